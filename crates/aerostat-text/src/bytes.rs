//! The alphabet of byte-level vocabularies, which spells each byte as a printable character.

/// The bytes as a byte-level vocabulary writes them.
pub(crate) fn to_byte_level(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| letter(*byte)).collect()
}

/// The bytes that a byte-level vocabulary writes as `token`, or `None` if it is not in its alphabet.
pub(crate) fn from_byte_level(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte).collect()
}

/// The byte of a token like `<0x0A>`.
pub(crate) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// Printable Latin-1 stands for itself.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The 68 bytes that are not plain, in order: they are the characters from U+0100.
const OTHERS: [u8; 68] = {
    let (mut others, mut count, mut byte) = ([0; 68], 0, 0);
    while byte < 256 {
        if !is_plain(byte as u8) {
            others[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    others
};

fn letter(byte: u8) -> char {
    if is_plain(byte) {
        return char::from(byte);
    }
    let at = OTHERS.partition_point(|other| *other < byte) as u32;
    char::from_u32(0x100 + at).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ 0..=0xFF => Some(code as u8).filter(|byte| is_plain(*byte)),
        code => OTHERS.get((code - 0x100) as usize).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_its_own() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_byte_level(&to_byte_level(&all)).as_deref(), Some(&all[..]));
        assert_eq!(to_byte_level(b" \n\xad"), "\u{120}\u{10a}\u{143}");
    }
}
