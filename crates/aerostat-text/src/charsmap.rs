//! The table by which SentencePiece normalises characters: `precompiled_charsmap` of a `tokenizer.model`.
//!
//! It is a trie in the layout of the library Darts, then the texts that its leaves point at, each ended by a zero.

use crate::error::Error;
use crate::meter::Meter;

/// The longest entry that is looked for, in bytes.
const KEY_BYTES_MAX: usize = 64;

/// The most bytes that one entry may become.
const ENTRY_BYTES_MAX: usize = 256;

/// A table of what is replaced by what.
pub(crate) struct CharsMap {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl CharsMap {
    /// Reads a table, which must not be empty.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::malformed("the table precompiled_charsmap contradicts itself");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let (units, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(wrong)?;
        let (units, _) = units.as_chunks::<4>();
        if texts.split(|byte| *byte == 0).any(|text| text.len() > ENTRY_BYTES_MAX) {
            return Err(wrong());
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(CharsMap { units, texts: texts.to_vec() })
    }

    /// The text with the longest entries replaced, from left to right.
    pub(crate) fn apply(&self, text: &str, meter: &Meter) -> Result<String, Error> {
        let (mut rest, mut normalised) = (text, String::with_capacity(text.len()));
        while let Some(first) = rest.chars().next() {
            meter.fits(normalised.len())?;
            let found = self.longest(rest.as_bytes()).and_then(|(length, at)| {
                let texts = self.texts.get(at..)?;
                let end = texts.iter().position(|byte| *byte == 0).unwrap_or(texts.len());
                Some((rest.get(length..)?, std::str::from_utf8(texts.get(..end)?).ok()?))
            });
            match found {
                Some((after, replaced)) => {
                    normalised.push_str(replaced);
                    rest = after;
                }
                None => {
                    normalised.push(first);
                    rest = rest.get(first.len_utf8()..).unwrap_or_default();
                }
            }
        }
        Ok(normalised)
    }

    /// The length of the longest entry that `text` begins with, and where its replacement stands.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let mut found = None;
        let mut at = offset(*self.units.first()?) as usize;
        for (length, byte) in text.iter().take(KEY_BYTES_MAX).enumerate() {
            at ^= *byte as usize;
            let Some(&unit) = self.units.get(at) else { break };
            if *byte == 0 || unit & (1 << 31 | 0xFF) != u32::from(*byte) {
                break;
            }
            at ^= offset(unit) as usize;
            if unit >> 8 & 1 == 1 {
                let leaf = self.units.get(at)? & !(1 << 31);
                found = Some((length + 1, leaf as usize));
            }
        }
        found
    }
}

/// Where the children of a unit are, relative to it.
fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}
