//! Tokens of a template, with `trim_blocks` and `lstrip_blocks` on.

use super::characters::{is_identifier_part, is_identifier_start, is_space, named_character};
use super::limits::{Fault, Outcome};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    Data(&'s str),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(&'s str),
    Text(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

impl Token<'_> {
    /// How a message names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Data(_) => "template data / text".to_owned(),
            Token::VariableBegin => "begin of print statement".to_owned(),
            Token::VariableEnd => "end of print statement".to_owned(),
            Token::BlockBegin => "begin of statement block".to_owned(),
            Token::BlockEnd => "end of statement block".to_owned(),
            Token::Name(name) => (*name).to_owned(),
            Token::Text(_) => "string".to_owned(),
            Token::Int(_) => "integer".to_owned(),
            Token::Float(_) => "float".to_owned(),
            Token::Operator(operator) => (*operator).to_owned(),
            Token::End => "end of template".to_owned(),
        }
    }
}

/// Longer ones first.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Root,
    Raw,
    Variable,
    Block,
}

/// Cuts a source whose line ends are `\n` into tokens, one at a time.
pub(super) struct Lexer<'s> {
    source: &'s str,
    at: usize,
    pub(super) line: u32,
    state: State,
    /// The closing brackets that are due.
    brackets: Vec<&'static str>,
    /// Whether what was read last ended a line.
    line_starting: bool,
    /// A tag that follows the data which was given last.
    pending: Option<State>,
}

/// The sign at a tag that says what becomes of the whitespace beside it.
fn sign(rest: &str) -> &str {
    rest.get(..1).filter(|sign| matches!(*sign, "-" | "+")).unwrap_or("")
}

/// Line ends become `\n`, and the last one goes.
pub(super) fn normalized(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

impl<'s> Lexer<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Lexer {
            source,
            at: 0,
            line: 1,
            state: State::Root,
            brackets: Vec::new(),
            line_starting: true,
            pending: None,
        }
    }

    /// The next token and its line.
    pub(super) fn next(&mut self) -> Outcome<(Token<'s>, u32)> {
        loop {
            let token = match self.state {
                State::Root => self.root()?,
                State::Raw => self.raw()?,
                State::Variable | State::Block => self.tag()?,
            };
            if let Some(token) = token {
                return Ok(token);
            }
        }
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Goes on by so many bytes.
    fn take(&mut self, bytes: usize) -> &'s str {
        let taken = self.rest().get(..bytes).unwrap_or_default();
        self.line += taken.matches('\n').count() as u32;
        self.at += taken.len();
        if !taken.is_empty() {
            self.line_starting = taken.ends_with('\n');
        }
        taken
    }

    fn fail<T>(&self, message: impl AsRef<str>) -> Outcome<T> {
        Err(Fault::at(message, self.line))
    }

    /// Data up to the next tag, then the tag. `None` where there is nothing to give yet.
    fn root(&mut self) -> Outcome<Option<(Token<'s>, u32)>> {
        if let Some(state) = self.pending.take() {
            return self.enter(state);
        }
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(Some((Token::End, self.line)));
        }
        let found = rest.match_indices('{').find_map(|(at, _)| match rest.as_bytes().get(at + 1) {
            Some(b'{') => Some((at, State::Variable)),
            Some(b'%') => Some((at, State::Block)),
            Some(b'#') => Some((at, State::Root)),
            _ => None,
        });
        let Some((at, state)) = found else {
            let line = self.line;
            return Ok(Some((Token::Data(self.take(rest.len())), line)));
        };
        let tag = rest.get(at + 2..).unwrap_or_default();
        let data = self.kept(rest.get(..at).unwrap_or_default(), sign(tag), state != State::Variable);
        let line = self.line;
        self.take(at);
        self.pending = Some(state);
        Ok((!data.is_empty()).then_some((Token::Data(data), line)))
    }

    /// The part of data before a tag that the tag lets stand.
    fn kept(&self, data: &'s str, sign: &str, is_block: bool) -> &'s str {
        match sign {
            "-" => data.trim_end_matches(is_space),
            "" if is_block => {
                let start = data.rfind('\n').map_or(0, |at| at + 1);
                let (kept, last) = data.split_at(start);
                let blank = last.chars().all(is_space);
                if blank && (start > 0 || self.line_starting) { kept } else { data }
            }
            _ => data,
        }
    }

    /// Begins a tag; a comment is skipped.
    fn enter(&mut self, state: State) -> Outcome<Option<(Token<'s>, u32)>> {
        let line = self.line;
        let signed = 2 + sign(self.rest().get(2..).unwrap_or_default()).len();
        match state {
            State::Variable => {
                self.take(signed);
                self.state = State::Variable;
                Ok(Some((Token::VariableBegin, line)))
            }
            State::Block => {
                if let Some(bytes) = raw_begin(self.rest(), signed) {
                    self.take(bytes);
                    self.state = State::Raw;
                    return Ok(None);
                }
                self.take(signed);
                self.state = State::Block;
                Ok(Some((Token::BlockBegin, line)))
            }
            State::Root | State::Raw => {
                self.take(signed);
                let Some(end) = self.rest().find("#}") else {
                    // Python's patterns do not see what begins at the very end.
                    if self.rest().is_empty() {
                        return Ok(None);
                    }
                    return self.fail("Missing end of comment tag");
                };
                let sign = self.rest().get(..end).and_then(|comment| comment.chars().next_back());
                self.take(end);
                let length = 2 + after_end(self.rest().get(2..).unwrap_or_default(), sign);
                self.take(length);
                Ok(None)
            }
        }
    }

    /// What stands between `{% raw %}` and `{% endraw %}`.
    fn raw(&mut self) -> Outcome<Option<(Token<'s>, u32)>> {
        let rest = self.rest();
        let ends = rest.match_indices("{%").find_map(|(at, _)| Some((at, raw_end(rest.get(at..)?)?)));
        let Some((at, bytes)) = ends else {
            if rest.is_empty() {
                return Ok(Some((Token::End, self.line)));
            }
            return self.fail("Missing end of raw directive");
        };
        let tag_sign = sign(rest.get(at + 2..).unwrap_or_default());
        let data = self.kept(rest.get(..at).unwrap_or_default(), tag_sign, true);
        let line = self.line;
        self.take(at + bytes);
        self.state = State::Root;
        Ok((!data.is_empty()).then_some((Token::Data(data), line)))
    }

    /// A token inside a tag.
    fn tag(&mut self) -> Outcome<Option<(Token<'s>, u32)>> {
        let rest = self.rest();
        let line = self.line;
        if self.brackets.is_empty()
            && let Some(bytes) = tag_end(rest, self.state == State::Block)
        {
            let token = if self.state == State::Block { Token::BlockEnd } else { Token::VariableEnd };
            self.take(bytes);
            self.state = State::Root;
            return Ok(Some((token, line)));
        }
        let Some(first) = rest.chars().next() else { return Ok(Some((Token::End, line))) };
        if is_space(first) {
            self.take(rest.len() - rest.trim_start_matches(is_space).len());
            return Ok(None);
        }
        if first.is_ascii_digit() {
            return self.number().map(|token| Some((token, line)));
        }
        if is_identifier_part(first) {
            let bytes = rest.find(|char| !is_identifier_part(char)).unwrap_or(rest.len());
            if !is_identifier_start(first) {
                return self.fail("Invalid character in identifier");
            }
            return Ok(Some((Token::Name(self.take(bytes)), line)));
        }
        if matches!(first, '\'' | '"')
            && let Some(bytes) = quoted(rest)
        {
            let text = unescaped(rest.get(1..bytes - 1).unwrap_or_default());
            let text = text.map_err(|message| Fault::at(message, line))?;
            self.take(bytes);
            return Ok(Some((Token::Text(text), line)));
        }
        let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
        let Some(operator) = operator else {
            return self.fail(format!("unexpected char {first:?}"));
        };
        self.take(operator.len());
        self.bracket(operator)?;
        Ok(Some((Token::Operator(operator), line)))
    }

    /// Keeps account of brackets.
    fn bracket(&mut self, operator: &'static str) -> Outcome<()> {
        match operator {
            "{" => self.brackets.push("}"),
            "(" => self.brackets.push(")"),
            "[" => self.brackets.push("]"),
            "}" | ")" | "]" => match self.brackets.pop() {
                None => return self.fail(format!("unexpected '{operator}'")),
                Some(due) if due != operator => {
                    return self.fail(format!("unexpected '{operator}', expected '{due}'"));
                }
                Some(_) => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self) -> Outcome<Token<'s>> {
        let rest = self.rest();
        let after_dot = self.source.get(..self.at).unwrap_or_default().ends_with('.');
        if let Some(bytes) = float_length(rest).filter(|_| !after_dot) {
            let text = self.take(bytes).replace('_', "");
            return Ok(Token::Float(text.parse().unwrap_or(f64::NAN)));
        }
        let lower = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
        let radix = match lower.as_str() {
            "0b" => Some(2),
            "0o" => Some(8),
            "0x" => Some(16),
            _ => None,
        };
        if let Some(radix) = radix {
            let digits = grouped(rest.get(2..).unwrap_or_default(), radix, true);
            if digits > 0 {
                let text = self.take(2 + digits).get(2..).unwrap_or_default().replace('_', "");
                return self.integer(&text, radix);
            }
        }
        let zeros = rest.starts_with('0');
        let digits = grouped(rest, if zeros { 1 } else { 10 }, false);
        let text = self.take(digits.max(1)).replace('_', "");
        self.integer(&text, 10)
    }

    fn integer(&self, digits: &str, radix: u32) -> Outcome<Token<'s>> {
        match i128::from_str_radix(digits, radix) {
            Ok(value) => Ok(Token::Int(value)),
            Err(_) => self.fail("an integer of more than 128 bits"),
        }
    }
}

/// The length of digits, single underscores between them (and before them, if `leading`).
fn grouped(text: &str, radix: u32, leading: bool) -> usize {
    let is_digit = |char: char| if radix == 1 { char == '0' } else { char.is_digit(radix) };
    let mut end = 0;
    let mut underscore = false;
    for (at, char) in text.char_indices() {
        if is_digit(char) {
            end = at + 1;
            underscore = false;
        } else if char == '_' && !underscore && (at > 0 || leading) {
            underscore = true;
        } else {
            break;
        }
    }
    end
}

/// The length of the floating-point number that a text begins with.
fn float_length(text: &str) -> Option<usize> {
    let whole = grouped(text, 10, false);
    let after = text.get(whole..)?;
    let fraction = match after.strip_prefix('.') {
        Some(digits) => match grouped(digits, 10, false) {
            0 => 0,
            digits => digits + 1,
        },
        None => 0,
    };
    let tail = after.get(fraction..)?;
    let exponent = tail.strip_prefix(['e', 'E']).map_or(0, |tail| {
        let signed = usize::from(tail.starts_with(['+', '-']));
        match grouped(tail.get(signed..).unwrap_or_default(), 10, false) {
            0 => 0,
            digits => 1 + signed + digits,
        }
    });
    (whole > 0 && fraction + exponent > 0).then_some(whole + fraction + exponent)
}

/// How much belongs to the end of a comment or block after its `#}` or `%}`, before which `sign` stood.
fn after_end(rest: &str, sign: Option<char>) -> usize {
    match sign {
        Some('-') => rest.len() - rest.trim_start_matches(is_space).len(),
        Some('+') => 0,
        _ => usize::from(rest.starts_with('\n')),
    }
}

/// The length of the end of a tag at the beginning of `rest`.
fn tag_end(rest: &str, is_block: bool) -> Option<usize> {
    let end = if is_block { "%}" } else { "}}" };
    let (signed, sign) = match rest.chars().next() {
        Some('-') => (1, Some('-')),
        Some('+') if is_block => (1, Some('+')),
        _ => (0, None),
    };
    let after = rest.get(signed..)?.strip_prefix(end)?;
    let more = if is_block || sign.is_some() { after_end(after, sign) } else { 0 };
    Some(signed + end.len() + more)
}

/// The length of `{% raw %}`, whose sign ends at `signed`.
fn raw_begin(tag: &str, signed: usize) -> Option<usize> {
    let word = tag.get(signed..)?.trim_start_matches(is_space).strip_prefix("raw")?;
    let end = word.trim_start_matches(is_space);
    let after = match end.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => end.strip_prefix("%}")?,
    };
    Some(tag.len() - after.len())
}

/// The length of `{% endraw %}`, if the text begins with one.
fn raw_end(tag: &str) -> Option<usize> {
    let inner = tag.get(2..)?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let word = inner.trim_start_matches(is_space).strip_prefix("endraw")?;
    let end = word.trim_start_matches(is_space);
    Some(tag.len() - end.len() + tag_end(end, true)?)
}

/// The length of a string in quotes.
fn quoted(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = bytes.first()?;
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The escapes of Python's strings. What is none stays as it is.
fn unescaped(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let Some(escape) = after.chars().next() else { return Err("\\ at end of string") };
        rest = after.get(escape.len_utf8()..).unwrap_or_default();
        match escape {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(escape),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let digits = after.chars().take(3).take_while(|char| char.is_digit(8)).count();
                out.push(code(after, digits, 8)?);
                rest = after.get(digits..).unwrap_or_default();
            }
            'x' | 'u' | 'U' => {
                let digits = [('x', 2), ('u', 4), ('U', 8)].iter().find(|(char, _)| *char == escape);
                let digits = digits.map_or(2, |(_, digits)| *digits);
                out.push(code(rest, digits, 16)?);
                rest = rest.get(digits..).unwrap_or_default();
            }
            'N' => {
                let name = rest.strip_prefix('{').and_then(|name| name.split_once('}'));
                let (name, after) = name.ok_or("malformed \\N character escape")?;
                out.push(named_character(name).ok_or("a character by a name (\\N) that is not known here")?);
                rest = after;
            }
            // Python decodes what it has made ASCII of before.
            _ if !escape.is_ascii() => {
                let number = u32::from(escape);
                let width = if number < 0x100 {
                    ("x", 2)
                } else if number < 0x10000 {
                    ("u", 4)
                } else {
                    ("U", 8)
                };
                out.push_str(&format!("\\{}{number:0width$x}", width.0, width = width.1));
            }
            _ => out.extend(['\\', escape]),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The character whose number is so many digits long.
fn code(text: &str, digits: usize, radix: u32) -> Result<char, &'static str> {
    let truncated = "truncated or wrong escape in a string";
    let number = text.get(..digits).filter(|digits| digits.chars().all(|char| char.is_digit(radix)));
    let number = number.and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or(truncated)?;
    char::from_u32(number).ok_or("a surrogate or a number that is no character, in a string")
}
