//! Texts as people have them: in UTF-8, UTF-16 or Latin-1, packed or not, read as UTF-8.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::str::FromStr;

use crate::input::Packing;

/// Bytes at the beginning of a file that tell how it is written.
const HEAD_BYTES: usize = 1 << 16;
/// Bytes that are decoded at a time.
const PIECE_BYTES: usize = 1 << 14;
/// What the bytes 0x80 to 0x9F are in Windows-1252; where it has none, Latin-1's.
const WINDOWS: [u16; 32] = [
    0x20AC, 0x81, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152,
    0x8D, 0x017D, 0x8F, 0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161,
    0x203A, 0x0153, 0x9D, 0x017E, 0x0178,
];

/// How the characters of a text are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with a byte order mark or without.
    Utf8,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
    /// ISO 8859-1.
    Latin1,
    /// Windows-1252: Latin-1 with quotes, dashes and the euro sign.
    Windows1252,
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "utf-8" | "utf8" => Ok(Self::Utf8),
            "utf-16" | "utf16" | "utf-16le" | "utf16le" => Ok(Self::Utf16Le),
            "utf-16be" | "utf16be" => Ok(Self::Utf16Be),
            "latin-1" | "latin1" | "iso-8859-1" => Ok(Self::Latin1),
            "windows-1252" | "cp1252" => Ok(Self::Windows1252),
            _ => Err("expected utf-8, utf-16, utf-16be, latin-1 or windows-1252".to_owned()),
        }
    }
}

/// Opens a text, packed if its name ends in `.gz` or `.zst`, to be read as UTF-8. Without an encoding, what it begins with
/// tells: a byte order mark, or the zeros of UTF-16.
///
/// # Errors
/// The file cannot be read; what it begins with is no UTF-8, and no encoding was named.
pub fn open_text(path: &Path, encoding: Option<Encoding>) -> io::Result<Box<dyn Read + Send>> {
    decoded(Packing::of(path).reader(File::open(path)?)?, encoding)
}

fn decoded(
    mut file: impl Read + Send + 'static,
    encoding: Option<Encoding>,
) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let (marked, mark_bytes) = mark(&head);
    let found = match encoding {
        // The mark knows which byte comes first.
        Some(Encoding::Utf16Le) => marked.unwrap_or(Encoding::Utf16Le),
        Some(encoding) => encoding,
        None => match marked.or_else(|| zeros(&head)) {
            Some(found) => found,
            None => must_be_utf8(&head).map(|()| Encoding::Utf8)?,
        },
    };
    let skipped = if marked == Some(found) { mark_bytes } else { 0 };
    head.drain(..skipped);
    let from = Cursor::new(head).chain(file);
    Ok(match found {
        Encoding::Utf8 => Box::new(from),
        encoding => {
            Box::new(Decoder { from: Box::new(from), encoding, held: Vec::new(), text: Vec::new(), at: 0 })
        }
    })
}

/// The encoding that a byte order mark names, and the bytes of the mark.
fn mark(head: &[u8]) -> (Option<Encoding>, usize) {
    match head {
        [0xEF, 0xBB, 0xBF, ..] => (Some(Encoding::Utf8), 3),
        [0xFF, 0xFE, ..] => (Some(Encoding::Utf16Le), 2),
        [0xFE, 0xFF, ..] => (Some(Encoding::Utf16Be), 2),
        _ => (None, 0),
    }
}

/// UTF-16 without a mark: texts of tables have ASCII in them, whose other byte is zero.
fn zeros(head: &[u8]) -> Option<Encoding> {
    match head {
        [a, 0, b, 0, ..] if *a != 0 && *b != 0 => Some(Encoding::Utf16Le),
        [0, a, 0, b, ..] if *a != 0 && *b != 0 => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// What a file is that begins so, and what to do with it.
fn no_text(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1F, 0x8B, ..] => Some("packed by gzip: unpack it, or let its name end in .gz"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("packed by Zstandard: unpack it, or let its name end in .zst"),
        [b'P', b'K', 3, 4, ..] => Some("a ZIP archive, as workbooks of Excel are: save it as CSV"),
        [b'P', b'A', b'R', b'1', ..] => Some("a Parquet file: let its name end in .parquet"),
        _ => None,
    }
}

/// Refuses what is no UTF-8 at its beginning; what follows fails row by row.
fn must_be_utf8(head: &[u8]) -> io::Result<()> {
    if let Some(what) = no_text(head) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is {what}")));
    }
    let Err(e) = std::str::from_utf8(head) else { return Ok(()) };
    if e.error_len().is_none() {
        // A character that goes on behind the head.
        return Ok(());
    }
    let at = e.valid_up_to();
    let line = head.iter().take(at).filter(|b| **b == b'\n').count() + 1;
    let byte = head.get(at).copied().unwrap_or_default();
    let message = format!(
        "line {line} is not UTF-8 (byte 0x{byte:02X})\n  hint: if it is Latin-1 or from Windows, say so: \
         --encoding latin-1, --encoding windows-1252"
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Reads a text as UTF-8.
struct Decoder {
    from: Box<dyn Read + Send>,
    encoding: Encoding,
    /// Bytes of a character that has not come whole.
    held: Vec<u8>,
    text: Vec<u8>,
    at: usize,
}

impl Decoder {
    fn fill(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.from.read(&mut piece)?;
        (self.text, self.at) = (Vec::new(), 0);
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend(piece.get(..read).unwrap_or_default());
        let text: String = match self.encoding {
            Encoding::Utf16Le => self.units(&bytes, read == 0, u16::from_le_bytes)?,
            Encoding::Utf16Be => self.units(&bytes, read == 0, u16::from_be_bytes)?,
            Encoding::Windows1252 => {
                let one = |byte: &u8| match WINDOWS.get(usize::from(byte.wrapping_sub(0x80))) {
                    Some(unit) => char::from_u32(u32::from(*unit)).unwrap_or(char::REPLACEMENT_CHARACTER),
                    None => char::from(*byte),
                };
                bytes.iter().map(one).collect()
            }
            Encoding::Latin1 | Encoding::Utf8 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        };
        self.text = text.into_bytes();
        Ok(())
    }

    /// The text of pairs of bytes; what is not whole is held, unless this is the end.
    fn units(&mut self, bytes: &[u8], end: bool, unit: fn([u8; 2]) -> u16) -> io::Result<String> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the text is not UTF-16");
        let (pairs, odd) = bytes.as_chunks::<2>();
        let mut units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let mut held = odd.to_vec();
        // The first half of a character.
        if units.last().is_some_and(|unit| (0xD800..0xDC00).contains(unit)) {
            units.pop();
            held.splice(..0, pairs.last().into_iter().flatten().copied());
        }
        if end && !held.is_empty() {
            return Err(broken());
        }
        self.held = held;
        String::from_utf16(&units).map_err(|_| broken())
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.at == self.text.len() {
            self.fill()?;
            // Whatever comes is text or is held.
            if self.text.is_empty() && self.held.is_empty() {
                return Ok(0);
            }
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>, encoding: Option<Encoding>) -> io::Result<String> {
        let mut text = String::new();
        decoded(Cursor::new(bytes), encoding)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn texts_are_read_in_every_encoding() {
        let text = "id;text\n1;Grüße 😀 und „mehr“\n".repeat(3000);
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let (le, be) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
        for (bytes, encoding) in [
            (text.clone().into_bytes(), None),
            ([b"\xef\xbb\xbf", text.as_bytes()].concat(), None),
            ([&b"\xff\xfe"[..], &le].concat(), None),
            ([&b"\xfe\xff"[..], &be].concat(), None),
            ([&b"\xfe\xff"[..], &be].concat(), Some(Encoding::Utf16Le)),
            (le.clone(), None),
            (be.clone(), None),
            (le.clone(), Some(Encoding::Utf16Le)),
        ] {
            assert!(read(bytes, encoding).unwrap() == text, "{encoding:?}");
        }
        assert!(read(le[..le.len() - 1].to_vec(), None).is_err());
        assert_eq!(read(Vec::new(), None).unwrap(), "");
        assert_eq!(read(b"\xe9t\xe9 \x80".to_vec(), Some(Encoding::Latin1)).unwrap(), "été \u{80}");
        assert_eq!(read(b"\xe9t\xe9 \x80".to_vec(), Some(Encoding::Windows1252)).unwrap(), "été €");
    }

    /// Such a table once failed row by row.
    #[test]
    fn what_is_no_utf8_is_told_with_a_hint() {
        let refused = read(b"text\ngood\ncaf\xe9\n".to_vec(), None).unwrap_err().to_string();
        assert!(refused.contains("line 3") && refused.contains("--encoding latin-1"), "{refused}");
    }
}
