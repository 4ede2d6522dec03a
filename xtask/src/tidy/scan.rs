//! Just enough of Rust's grammar for the rules: comments and literals blanked out, functions, test items, words.

use std::ops::Range;

/// The source with comments and the contents of literals replaced by spaces; every byte stays where it was.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some((contents, end)) = opaque(bytes, at) else {
            at += 1;
            continue;
        };
        for byte in &mut code[contents] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// A function with a body. Lines count from 1.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    /// Its name, without path.
    pub(super) name: String,
    /// Bytes from `fn` to the closing brace, inclusive.
    pub(super) bytes: Range<usize>,
}

/// All functions with a body, nested ones too, of blanked code.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let found = find_word(code, "fn").into_iter();
    found
        .filter_map(|begin| {
            let signature = begin + "fn".len();
            let name_begin = signature + leading_spaces(code.get(signature..)?);
            let name: String =
                code.get(name_begin..)?.chars().take_while(|&c| is_name(c) || c == '$').collect();
            let end = item_end(code, name_begin)?;
            let has_body = code.as_bytes().get(end - 1) == Some(&b'}');
            (!name.is_empty() && has_body).then_some(Function { name, bytes: begin..end })
        })
        .collect()
}

/// The items of blanked code that only tests compile: those under `#[cfg(test)]` or `#[test]`, attribute included.
/// `#![cfg(test)]` makes all of the file one.
pub(super) fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    for (begin, _) in code.match_indices('#') {
        let inner = code[begin + 1..].starts_with('!');
        let open = begin + 1 + usize::from(inner);
        if !code[open..].starts_with('[') {
            continue;
        }
        let Some(close) = closing(code, open) else { continue };
        if is_test_attribute(&code[open + 1..close]) {
            let end = if inner {
                code.len()
            } else {
                item_end(code, after_attributes(code, close + 1)).unwrap_or(close)
            };
            items.push(if inner { 0 } else { begin }..end);
        }
    }
    items
}

/// Where `word` stands in the code with no further letter, digit or underscore on either side. A side of `word`
/// that is itself no letter, as in `panic!`, is not looked beyond.
pub(super) fn find_word(code: &str, word: &str) -> Vec<usize> {
    let open_begin = !word.starts_with(is_name);
    let open_end = !word.ends_with(is_name);
    let stands_alone = |at: usize| {
        let before = code[..at].chars().next_back().is_some_and(is_name);
        let after = code[at + word.len()..].chars().next().is_some_and(is_name);
        (open_begin || !before) && (open_end || !after)
    };
    code.match_indices(word).map(|(at, _)| at).filter(|&at| stands_alone(at)).collect()
}

/// One past the `;` or the body that ends the item at `from`.
pub(super) fn item_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes().get(from..)?.iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b';' if depth == 0 => return Some(from + offset + 1),
            b'{' if depth == 0 => return closing(code, from + offset).map(|at| at + 1),
            _ => {}
        }
    }
    None
}

/// Whether `c` may be part of an identifier.
pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The comment or literal that begins at `at`: what of it to blank, and where it ends.
fn opaque(bytes: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let rest = &bytes[at..];
    let inside_name = at > 0 && is_name(char::from(bytes[at - 1]));
    match rest {
        [b'/', b'/', ..] => {
            let end = rest.iter().position(|&b| b == b'\n').map_or(bytes.len(), |length| at + length);
            Some((at..end, end))
        }
        [b'/', b'*', ..] => {
            let end = at + block_comment_length(rest);
            Some((at..end, end))
        }
        [b'"', ..] => {
            let end = at + quoted_length(rest);
            Some((at + 1..end.saturating_sub(1).max(at + 1), end))
        }
        [b'r', b'#' | b'"', ..] if !inside_name || matches!(bytes[at - 1], b'b' | b'c') => {
            raw_string(bytes, at)
        }
        [b'\'', ..] => {
            let end = at + character_length(rest)?;
            Some((at + 1..end - 1, end))
        }
        _ => None,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(bytes: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let contents = &bytes[open + 1..];
    let length = contents.windows(close.len()).position(|window| window == close).unwrap_or(contents.len());
    Some((open + 1..open + 1 + length, (open + 1 + length + close.len()).min(bytes.len())))
}

/// The length of the character literal that `rest` begins with; `None` for a lifetime.
fn character_length(rest: &[u8]) -> Option<usize> {
    let closes =
        |from: usize| rest.get(from..)?.iter().position(|&b| b == b'\'').map(|length| from + length + 1);
    match rest.get(1)? {
        b'\\' => closes(3),
        first => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
        }
    }
}

/// Where the bracket at `open` closes.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes().get(open..)?.iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open + offset);
                }
            }
            _ => {}
        }
    }
    None
}

/// Skips blanks and further attributes.
fn after_attributes(code: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        at += leading_spaces(&code[at..]);
        if !code[at..].starts_with("#[") {
            return at;
        }
        match closing(code, at + 1) {
            Some(close) => at = close + 1,
            None => return code.len(),
        }
    }
}

fn is_test_attribute(attribute: &str) -> bool {
    let attribute = attribute.trim();
    let conditional = attribute.starts_with("cfg(")
        && !find_word(attribute, "test").is_empty()
        && !attribute.contains("not(test");
    conditional || attribute == "test"
}

fn leading_spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        for (source, code) in [
            ("a // fn b\nc", "a        \nc"),
            ("a /* /* */ x */ c", "a               c"),
            (r#"f("fn \" {") g"#, r#"f("       ") g"#),
            (r###"r#"un"safe"# x"###, r###"r#"       "# x"###),
            (r#"br"{" x"#, r#"br" " x"#),
            ("'{' b'\\'' '\\u{7b}' 'ä' <'a> x", "' ' b'  ' '      ' '  ' <'a> x"),
            ("r#fn x", "r#fn x"),
            ("bar\"{\"", "bar\" \""),
        ] {
            assert_eq!(blank(source), code, "{source}");
        }
    }

    #[test]
    fn functions_are_found_with_their_bodies() {
        let code =
            "fn a(x: [u8; 3]) -> [u8; 3] {\n  fn b() {}\n}\ntrait T { fn c(&self); }\ntype P = fn(u8) -> u8;";
        let found = functions(code);
        let names: Vec<_> = found.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(code[found[0].bytes.clone()].ends_with("}\n}"));
    }

    #[test]
    fn test_items_are_found() {
        for (code, expected) in [
            ("x; #[cfg(test)]\nmod tests { y } z", Some("#[cfg(test)]\nmod tests { y }")),
            ("#[test]\n#[ignore]\nfn a() { } b", Some("#[test]\n#[ignore]\nfn a() { }")),
            ("#[cfg(all(test, unix))] use a::b; c", Some("#[cfg(all(test, unix))] use a::b;")),
            ("#[cfg(not(test))] fn a() {}", None),
            ("#[derive(Debug)] struct A;", None),
            ("#![cfg(test)] fn a() {}", Some("#![cfg(test)] fn a() {}")),
        ] {
            let items = test_items(code);
            assert_eq!(items.first().map(|item| &code[item.clone()]), expected, "{code}");
        }
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(find_word("unsafe_code unsafe {", "unsafe"), [12]);
        assert_eq!(find_word("a.unwrap() b.unwrap_or()", ".unwrap()"), [1]);
        assert_eq!(find_word("std::fs::read dfs::x", "fs::"), [5]);
    }
}
