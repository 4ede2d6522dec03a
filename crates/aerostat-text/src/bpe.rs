//! Byte-pair merging over a compact vocabulary.
//!
//! The model holds each token text once (in [`Strings`]), each merge in twelve bytes, and one hash index of `u32` for
//! either; a vocabulary of 262,144 tokens with 514,906 merges takes about 16 MB. It is a model of the `tokenizers`
//! crate, which does all around it: added tokens, normalizers, splitters, post-processors and decoders.
//!
//! Merges come in two kinds. A ranked list of pairs (`merges` of `tokenizer.json` and of byte-level GGUF files), and
//! ranks of the tokens themselves (SentencePiece): there any two neighbours merge whose joined text is a token, the
//! best token first. Equal ranks go from left to right.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hash::{BuildHasher, Hash, RandomState};

use crate::error::Error;
use crate::meter::Meter;
use crate::strings::Strings;

/// No token, no slot, no neighbour.
const NONE: u32 = u32::MAX;

/// The longest piece of text that is merged at once, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// How text is turned into the first symbols, before any merge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The token for a character the vocabulary lacks; without one, the character is dropped.
    pub(crate) unknown: Option<String>,
    /// Neighbouring unknown characters become one token.
    pub(crate) fuse_unknown: bool,
    /// Unknown characters become the tokens `<0x00>` … `<0xFF>` of their bytes.
    pub(crate) byte_fallback: bool,
    /// A text that is a token as a whole is not taken apart.
    pub(crate) ignore_merges: bool,
    /// What tokens other than the first of a word begin with.
    pub(crate) prefix: String,
    /// What the last token of a word ends with.
    pub(crate) suffix: String,
}

/// A byte-pair model: a text in, ids out.
pub(crate) struct Bpe {
    vocab: Vocab,
    merges: Merges,
    settings: Settings,
    unknown: Option<u32>,
    /// The ids of `<0x00>` … `<0xFF>`, or `NONE`; empty without byte fallback.
    bytes: Vec<u32>,
}

impl Bpe {
    pub(crate) fn new(vocab: Vocab, merges: Merges, settings: Settings) -> Result<Self, Error> {
        let unknown = match &settings.unknown {
            Some(token) => Some(vocab.id(token).ok_or_else(|| {
                Error::malformed(format!("the unknown token {token:?} is not in the vocabulary"))
            })?),
            None => None,
        };
        let byte_token = |byte: u8| vocab.id(&format!("<0x{byte:02X}>")).unwrap_or(NONE);
        let bytes = if settings.byte_fallback { (0..=255).map(byte_token).collect() } else { Vec::new() };
        Ok(Bpe { vocab, merges, settings, unknown, bytes })
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Appends the ids of a piece of text.
    pub(crate) fn tokenize(&self, text: &str, ids: &mut Vec<u32>, meter: &Meter) -> Result<(), Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::encode(format!("a text of {} bytes is more than can be encoded", text.len())));
        }
        if self.settings.ignore_merges
            && let Some(id) = self.vocab.id(text)
        {
            ids.push(id);
            return Ok(());
        }
        let scored = matches!(self.merges, Merges::Scored(_));
        let mut symbols = if scored { self.characters(text) } else { self.known_symbols(text) };
        self.merge(text, &mut symbols, meter)?;
        let whole = symbols.iter().filter(|symbol| symbol.bytes > 0);
        if !scored {
            ids.extend(whole.map(|symbol| symbol.id));
            return Ok(());
        }
        let mut known = Symbols::default();
        for symbol in whole {
            let start = symbol.start as usize;
            let part = text.get(start..start + symbol.bytes as usize).unwrap_or("");
            self.push_known(&mut known, part, symbol.id);
        }
        ids.extend(known.finish().iter().map(|symbol| symbol.id));
        Ok(())
    }

    /// One symbol for each character, in the vocabulary or not: scored merges look at the text.
    fn characters(&self, text: &str) -> Vec<Symbol> {
        let mut symbols = Symbols::default();
        for (at, char) in text.char_indices() {
            let id = text.get(at..at + char.len_utf8()).and_then(|char| self.vocab.id(char));
            symbols.push(id.unwrap_or(NONE), char.len_utf8());
        }
        symbols.finish()
    }

    /// Symbols that are all in the vocabulary: ranked merges look at ids.
    fn known_symbols(&self, text: &str) -> Vec<Symbol> {
        let (prefix, suffix) = (&self.settings.prefix, &self.settings.suffix);
        let mut symbols = Symbols::default();
        let mut spelled = String::new();
        for (at, char) in text.char_indices() {
            let end = at + char.len_utf8();
            let plain = text.get(at..end).unwrap_or("");
            let prefix = if at > 0 { prefix.as_str() } else { "" };
            let suffix = if end == text.len() { suffix.as_str() } else { "" };
            if prefix.is_empty() && suffix.is_empty() {
                self.push_known(&mut symbols, plain, self.vocab.id(plain).unwrap_or(NONE));
            } else {
                spelled.clear();
                spelled.extend([prefix, plain, suffix]);
                self.push_known(&mut symbols, plain, self.vocab.id(&spelled).unwrap_or(NONE));
            }
        }
        symbols.finish()
    }

    /// Appends `text` as the token `id`, or as its bytes, or as the unknown token.
    fn push_known(&self, symbols: &mut Symbols, text: &str, id: u32) {
        if id != NONE {
            symbols.flush_unknown();
            return symbols.push(id, text.len());
        }
        let byte_id = |byte: u8| self.bytes.get(usize::from(byte)).copied().unwrap_or(NONE);
        if text.bytes().all(|byte| byte_id(byte) != NONE) {
            text.bytes().for_each(|byte| symbols.push(byte_id(byte), 1));
        } else if let Some(unknown) = self.unknown {
            symbols.push_unknown(unknown, text.len(), self.settings.fuse_unknown);
        }
    }

    /// Merges neighbours, the best first, until none is left to merge. A symbol merged into its left neighbour keeps
    /// its place with 0 bytes.
    fn merge(&self, text: &str, symbols: &mut [Symbol], meter: &Meter) -> Result<(), Error> {
        let mut queue: BinaryHeap<Reverse<(u32, u32, u32)>> =
            (0..symbols.len() as u32).filter_map(|at| self.candidate(text, symbols, at)).collect();
        while let Some(Reverse((_, at, joined))) = queue.pop() {
            meter.tick("its merges")?;
            // The queue keeps candidates whose symbols have changed since; they are known by what they would become.
            if self.candidate(text, symbols, at).is_none_or(|Reverse((_, _, now))| now != joined) {
                continue;
            }
            let Some(&left) = symbols.get(at as usize) else { continue };
            let Some(&right) = symbols.get(left.next as usize) else { continue };
            if let Some(gone) = symbols.get_mut(left.next as usize) {
                gone.bytes = 0;
            }
            if let Some(after) = symbols.get_mut(right.next as usize) {
                after.previous = at;
            }
            if let Some(merged) = symbols.get_mut(at as usize) {
                *merged = Symbol { id: joined, bytes: left.bytes + right.bytes, next: right.next, ..left };
            }
            queue.extend(self.candidate(text, symbols, left.previous));
            queue.extend(self.candidate(text, symbols, at));
        }
        Ok(())
    }

    /// What the symbol at `at` and its right neighbour would merge into: (rank, place, id).
    fn candidate(&self, text: &str, symbols: &[Symbol], at: u32) -> Option<Reverse<(u32, u32, u32)>> {
        let left = symbols.get(at as usize).filter(|symbol| symbol.bytes > 0)?;
        let right = symbols.get(left.next as usize)?;
        let (rank, joined) = match &self.merges {
            Merges::Ranked { pairs, index } => {
                let key = (left.id, right.id);
                let rank = index.find(&key, |rank| pair_at(pairs, rank) == Some(key))?;
                (rank, pairs.get(rank as usize)?[2])
            }
            Merges::Scored(ranks) => {
                let joined = text.get(left.start as usize..(right.start + right.bytes) as usize)?;
                let id = self.vocab.id(joined)?;
                (*ranks.get(id as usize)?, id)
            }
        };
        Some(Reverse((rank, at, joined)))
    }
}

/// What decides which neighbours merge, and which first.
pub(crate) enum Merges {
    /// `[left, right, joined]` in order, found by the hash of the pair.
    Ranked {
        /// The merges, the best first.
        pairs: Vec<[u32; 3]>,
        /// Finds the rank of a pair.
        index: Index,
    },
    /// A rank for each token, the lower first; see [`rank_of_score`].
    Scored(Vec<u32>),
}

impl Merges {
    /// A ranked list of merges; a pair listed twice counts where it stands last.
    pub(crate) fn ranked(mut pairs: Vec<[u32; 3]>) -> Self {
        pairs.shrink_to_fit();
        let mut index = Index::new(pairs.len());
        for (rank, [left, right, _]) in pairs.iter().enumerate() {
            let key = (*left, *right);
            index.insert(&key, rank as u32, |rank| pair_at(&pairs, rank) == Some(key));
        }
        Merges::Ranked { pairs, index }
    }
}

/// A rank that orders scores from the greatest to the least; ranks below 2^22 are free for what comes before all.
pub(crate) fn rank_of_score(score: f32) -> u32 {
    // Adding zero makes both zeros one; flipping the bits of negatives orders floats as integers.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
}

/// The texts of the ids, and the ids of the texts. An empty text stands for an id without a token.
#[derive(Default)]
pub(crate) struct Vocab {
    texts: Strings,
    index: Index,
    count: usize,
}

impl Vocab {
    /// The tokens of ids 0, 1, 2 …; of equal texts the last has the id.
    pub(crate) fn new(mut texts: Strings) -> Self {
        texts.shrink_to_fit();
        let count = texts.iter().filter(|text| !text.is_empty()).count();
        let mut index = Index::new(count);
        for (id, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            index.insert(text, id as u32, |id| texts.get(id as usize) == Some(text));
        }
        Vocab { texts, index, count }
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        let text = text.as_bytes();
        self.index.find(text, |id| self.texts.get(id as usize) == Some(text))
    }

    /// The text of an id; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn text(&self, id: u32) -> Option<String> {
        let text = self.texts.get(id as usize).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The lengths of tokens in bytes, ascending, each once.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let lengths: BTreeSet<usize> =
            self.texts.iter().map(<[u8]>::len).filter(|length| *length > 0).collect();
        lengths.into_iter().collect()
    }

    /// How many ids have a token.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// One more than the greatest id.
    pub(crate) fn ids(&self) -> usize {
        self.texts.len()
    }
}

/// A hash index of `u32` into something that holds the keys: open addressing, at most three quarters full.
#[derive(Default)]
pub(crate) struct Index {
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Index {
    fn new(count: usize) -> Self {
        let slots = (count + count / 3 + 1).next_power_of_two();
        Index { slots: vec![NONE; slots], hasher: RandomState::new() }
    }

    fn find<K: Hash + ?Sized>(&self, key: &K, is_key: impl Fn(u32) -> bool) -> Option<u32> {
        let slot = self.slot(key, is_key)?;
        self.slots.get(slot).copied().filter(|&entry| entry != NONE)
    }

    fn insert<K: Hash + ?Sized>(&mut self, key: &K, entry: u32, is_key: impl Fn(u32) -> bool) {
        let slot = self.slot(key, is_key);
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = entry;
        }
    }

    /// Where `key` is, or would go.
    fn slot<K: Hash + ?Sized>(&self, key: &K, is_key: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let start = self.hasher.hash_one(key) as usize;
        (0..=mask).map(|step| start.wrapping_add(step) & mask).find(|&slot| {
            let entry = self.slots.get(slot).copied().unwrap_or(NONE);
            entry == NONE || is_key(entry)
        })
    }
}

fn pair_at(pairs: &[[u32; 3]], rank: u32) -> Option<(u32, u32)> {
    pairs.get(rank as usize).map(|[left, right, _]| (*left, *right))
}

/// A stretch of text that is one token so far, linked to its neighbours.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    start: u32,
    bytes: u32,
    previous: u32,
    next: u32,
}

/// Symbols under construction, and the unknown one that may still grow.
#[derive(Default)]
struct Symbols {
    list: Vec<Symbol>,
    end: u32,
    unknown: Option<(u32, usize)>,
}

impl Symbols {
    fn push(&mut self, id: u32, bytes: usize) {
        let at = self.list.len() as u32;
        let previous = at.checked_sub(1).unwrap_or(NONE);
        self.list.push(Symbol { id, start: self.end, bytes: bytes as u32, previous, next: at + 1 });
        self.end += bytes as u32;
    }

    fn push_unknown(&mut self, id: u32, bytes: usize, fuse: bool) {
        let grown = self.unknown.filter(|_| fuse).map_or(bytes, |(_, before)| before + bytes);
        if !fuse {
            self.flush_unknown();
        }
        self.unknown = Some((id, grown));
    }

    fn flush_unknown(&mut self) {
        if let Some((id, bytes)) = self.unknown.take() {
            self.push(id, bytes);
        }
    }

    fn finish(mut self) -> Vec<Symbol> {
        self.flush_unknown();
        if let Some(last) = self.list.last_mut() {
            last.next = NONE;
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores_from_the_greatest() {
        let scores = [f32::INFINITY, f32::MAX, 2.0, 1e-30, 0.0, -1e-30, -1.0, -1000.0, f32::NEG_INFINITY];
        let ranks = scores.map(rank_of_score);
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(rank_of_score(-0.0), rank_of_score(0.0));
        assert!(ranks[0] > 1 << 22);
    }

    #[test]
    fn scored_merges_take_the_best_token_first_and_fall_back_to_bytes() {
        let texts = ["<unk>", "a", "b", "ab", "bb", "abb", "<0xC3>", "<0xA9>"];
        let ranks = [0.0, -9.0, -9.0, -2.0, -1.0, -3.0, 0.0, 0.0].map(rank_of_score).to_vec();
        let settings = Settings { unknown: Some("<unk>".into()), byte_fallback: true, ..Settings::default() };
        let bpe = Bpe::new(Vocab::new(texts.iter().collect()), Merges::Scored(ranks), settings).unwrap();
        for (text, want) in [
            ("", &[][..]),
            ("ab", &[3]),
            ("abb", &[5]),
            ("bbb", &[4, 2]),
            ("a\u{e9}b", &[1, 6, 7, 2]),
            ("a\u{ea}b", &[1, 0, 2]),
        ] {
            let mut got = Vec::new();
            bpe.tokenize(text, &mut got, &Meter::new(0)).unwrap();
            assert_eq!(got, want, "{text:?}");
        }
    }

    #[test]
    fn an_id_without_text_is_not_a_token() {
        let vocab = Vocab::new(["a", "", "b", "a"].iter().collect());
        assert_eq!((vocab.count(), vocab.ids()), (3, 4));
        assert_eq!((vocab.id("a"), vocab.id(""), vocab.text(1)), (Some(3), None, None));
    }
}
