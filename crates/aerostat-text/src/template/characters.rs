//! What Python says of characters.

/// `str.isspace`, and `\s` in regular expressions.
pub(super) fn is_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

/// What `str.splitlines` splits at; `\r\n` is one.
pub(super) fn is_line_end(char: char) -> bool {
    matches!(char, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

pub(super) fn is_identifier_start(char: char) -> bool {
    char == '_' || (char.is_alphabetic() && !is_mark(char))
}

pub(super) fn is_identifier_part(char: char) -> bool {
    char == '_' || char.is_alphanumeric() || is_mark(char)
}

/// Combining marks of the commonest blocks.
fn is_mark(char: char) -> bool {
    matches!(char, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// `str.isprintable` for one character, as `repr` needs it: other characters are escaped. Categories Cc, Cf, Cs, Co,
/// Cn, Zl, Zp and Zs but for the space, as far as they can be told without tables.
pub(super) fn is_printable(char: char) -> bool {
    match char {
        ' '..='~' => true,
        '\0'..='\u{a0}' | '\u{ad}' => false,
        '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' => {
            false
        }
        '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' => false,
        '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{d7fc}'..='\u{d7ff}' | '\u{e000}'..='\u{f8ff}' => false,
        '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}' => false,
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}' => {
            matches!(char, '\u{e0100}'..='\u{e01ef}')
        }
        _ => true,
    }
}

/// `str.istitle` and `str.title` count letters with a case.
pub(super) fn is_cased(char: char) -> bool {
    char.is_lowercase() || char.is_uppercase() || is_title(char)
}

/// Letters that are two, of which the first is large.
pub(super) fn is_title(char: char) -> bool {
    matches!(char, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// A letter as the first of a title.
pub(super) fn to_title(char: char, out: &mut String) {
    match char {
        'Ǆ' | 'ǅ' | 'ǆ' => out.push('ǅ'),
        'Ǉ' | 'ǈ' | 'ǉ' => out.push('ǈ'),
        'Ǌ' | 'ǋ' | 'ǌ' => out.push('ǋ'),
        'Ǳ' | 'ǲ' | 'ǳ' => out.push('ǲ'),
        'ß' => out.push_str("Ss"),
        '\u{fb00}' => out.push_str("Ff"),
        '\u{fb01}' => out.push_str("Fi"),
        '\u{fb02}' => out.push_str("Fl"),
        _ if is_title(char) => out.push(char),
        _ => out.extend(char.to_uppercase()),
    }
}

/// `str.lower`, where a sigma ends a word as its final form.
pub(super) fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// `str.isdecimal` for one character: digits of the commonest scripts.
pub(super) fn is_decimal(char: char) -> bool {
    decimal_value(char).is_some()
}

/// The value of a decimal digit of any script that has its ten in a row.
pub(super) fn decimal_value(char: char) -> Option<u32> {
    const ZEROS: [u32; 26] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1b50, 0xff10, 0x1d7ce,
    ];
    if char.is_ascii() {
        return char.to_digit(10);
    }
    let code = u32::from(char);
    ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)).map(|zero| code - zero)
}

/// `str.isdigit` for one character: decimals, and raised, lowered or circled digits.
pub(super) fn is_digit(char: char) -> bool {
    is_decimal(char)
        || matches!(char, '²' | '³' | '¹' | '\u{2070}' | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}'
            | '\u{2460}'..='\u{2468}' | '\u{2474}'..='\u{247c}' | '\u{2488}'..='\u{2490}' | '\u{24ea}'
            | '\u{24f5}'..='\u{24fd}' | '\u{24ff}' | '\u{2776}'..='\u{277e}' | '\u{2780}'..='\u{2788}'
            | '\u{278a}'..='\u{2792}')
}

/// A character by its name in Unicode, as `\N{…}` has it: letters and digits of ASCII, and the commonest others.
pub(super) fn named_character(name: &str) -> Option<char> {
    let name = name.to_ascii_uppercase();
    let letter =
        |letter: &str| letter.chars().next().filter(|char| letter.len() == 1 && char.is_ascii_uppercase());
    if let Some(found) = name.strip_prefix("LATIN SMALL LETTER ").and_then(letter) {
        return Some(found.to_ascii_lowercase());
    }
    if let Some(found) = name.strip_prefix("LATIN CAPITAL LETTER ").and_then(letter) {
        return Some(found);
    }
    NAMED.iter().find(|(other, _)| *other == name).map(|(_, char)| *char)
}

const NAMED: [(&str, char); 86] = [
    ("BULLET", '\u{2022}'),
    ("EM DASH", '\u{2014}'),
    ("EN DASH", '\u{2013}'),
    ("HORIZONTAL ELLIPSIS", '\u{2026}'),
    ("LEFT DOUBLE QUOTATION MARK", '\u{201c}'),
    ("RIGHT DOUBLE QUOTATION MARK", '\u{201d}'),
    ("LEFT SINGLE QUOTATION MARK", '\u{2018}'),
    ("RIGHT SINGLE QUOTATION MARK", '\u{2019}'),
    ("NO-BREAK SPACE", '\u{a0}'),
    ("ZERO WIDTH SPACE", '\u{200b}'),
    ("ZERO WIDTH JOINER", '\u{200d}'),
    ("ZERO WIDTH NON-JOINER", '\u{200c}'),
    ("SOFT HYPHEN", '\u{ad}'),
    ("SPACE", '\u{20}'),
    ("EXCLAMATION MARK", '\u{21}'),
    ("QUOTATION MARK", '\u{22}'),
    ("APOSTROPHE", '\u{27}'),
    ("NUMBER SIGN", '\u{23}'),
    ("DOLLAR SIGN", '\u{24}'),
    ("PERCENT SIGN", '\u{25}'),
    ("AMPERSAND", '\u{26}'),
    ("LEFT PARENTHESIS", '\u{28}'),
    ("RIGHT PARENTHESIS", '\u{29}'),
    ("LEFT CURLY BRACKET", '\u{7b}'),
    ("RIGHT CURLY BRACKET", '\u{7d}'),
    ("LEFT SQUARE BRACKET", '\u{5b}'),
    ("RIGHT SQUARE BRACKET", '\u{5d}'),
    ("VERTICAL LINE", '\u{7c}'),
    ("REVERSE SOLIDUS", '\u{5c}'),
    ("SOLIDUS", '\u{2f}'),
    ("COLON", '\u{3a}'),
    ("COMMA", '\u{2c}'),
    ("FULL STOP", '\u{2e}'),
    ("HYPHEN-MINUS", '\u{2d}'),
    ("LOW LINE", '\u{5f}'),
    ("TILDE", '\u{7e}'),
    ("GRAVE ACCENT", '\u{60}'),
    ("COMMERCIAL AT", '\u{40}'),
    ("CHECK MARK", '\u{2713}'),
    ("HEAVY CHECK MARK", '\u{2714}'),
    ("SNOWMAN", '\u{2603}'),
    ("BLACK STAR", '\u{2605}'),
    ("WHITE STAR", '\u{2606}'),
    ("RIGHTWARDS ARROW", '\u{2192}'),
    ("LEFTWARDS ARROW", '\u{2190}'),
    ("UPWARDS ARROW", '\u{2191}'),
    ("DOWNWARDS ARROW", '\u{2193}'),
    ("MIDDLE DOT", '\u{b7}'),
    ("SECTION SIGN", '\u{a7}'),
    ("COPYRIGHT SIGN", '\u{a9}'),
    ("REGISTERED SIGN", '\u{ae}'),
    ("TRADE MARK SIGN", '\u{2122}'),
    ("DEGREE SIGN", '\u{b0}'),
    ("PLUS-MINUS SIGN", '\u{b1}'),
    ("MULTIPLICATION SIGN", '\u{d7}'),
    ("DIVISION SIGN", '\u{f7}'),
    ("EURO SIGN", '\u{20ac}'),
    ("POUND SIGN", '\u{a3}'),
    ("INFINITY", '\u{221e}'),
    ("LINE SEPARATOR", '\u{2028}'),
    ("LOWER ONE EIGHTH BLOCK", '\u{2581}'),
    ("FULLWIDTH VERTICAL LINE", '\u{ff5c}'),
    ("LATIN SMALL LETTER SHARP S", '\u{df}'),
    ("LATIN SMALL LETTER E WITH ACUTE", '\u{e9}'),
    ("LATIN SMALL LETTER E WITH GRAVE", '\u{e8}'),
    ("LATIN SMALL LETTER A WITH DIAERESIS", '\u{e4}'),
    ("LATIN SMALL LETTER O WITH DIAERESIS", '\u{f6}'),
    ("LATIN SMALL LETTER U WITH DIAERESIS", '\u{fc}'),
    ("LATIN SMALL LETTER N WITH TILDE", '\u{f1}'),
    ("LATIN SMALL LETTER C WITH CEDILLA", '\u{e7}'),
    ("GREEK SMALL LETTER ALPHA", '\u{3b1}'),
    ("GREEK SMALL LETTER BETA", '\u{3b2}'),
    ("GREEK SMALL LETTER GAMMA", '\u{3b3}'),
    ("GREEK SMALL LETTER DELTA", '\u{3b4}'),
    ("GREEK SMALL LETTER PI", '\u{3c0}'),
    ("GREEK SMALL LETTER LAMDA", '\u{3bb}'),
    ("GREEK CAPITAL LETTER OMEGA", '\u{3a9}'),
    ("GREEK SMALL LETTER MU", '\u{3bc}'),
    ("GRINNING FACE", '\u{1f600}'),
    ("ROCKET", '\u{1f680}'),
    ("FIRE", '\u{1f525}'),
    ("WHITE HEAVY CHECK MARK", '\u{2705}'),
    ("CROSS MARK", '\u{274c}'),
    ("WARNING SIGN", '\u{26a0}'),
    ("HEAVY BLACK HEART", '\u{2764}'),
    ("BYTE ORDER MARK", '\u{feff}'),
];

/// `str.casefold`: small letters, and letters for ligatures.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            'ς' => out.push('σ'),
            'ſ' => out.push('s'),
            _ if char.to_lowercase().count() == 1 && char.to_uppercase().count() > 1 => {
                out.extend(char.to_uppercase().flat_map(char::to_lowercase));
            }
            _ => out.extend(char.to_lowercase()),
        }
    }
    out
}
