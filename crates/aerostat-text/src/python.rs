//! What templates expect of Python: how it prints values, writes JSON and formats dates.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// How deep values may nest where they are written out.
const DEPTH_MAX: usize = 128;

/// The methods of Python's strings, lists and dicts: those of `pycompat`, and some that it lacks or has wrong.
pub(crate) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name, args) {
        (Some(text), "title", []) => Ok(title(text).into()),
        (Some(text), "removeprefix", [affix]) => {
            Ok(affix.as_str().and_then(|affix| text.strip_prefix(affix)).unwrap_or(text).into())
        }
        (Some(text), "removesuffix", [affix]) => {
            Ok(affix.as_str().and_then(|affix| text.strip_suffix(affix)).unwrap_or(text).into())
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// Every letter that follows none is made large, all others small.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for char in text.chars() {
        if within {
            out.extend(char.to_lowercase());
        } else {
            out.extend(char.to_uppercase());
        }
        within = char.is_lowercase() || char.is_uppercase();
    }
    out
}

/// The filter `tojson` of `transformers`: Python's `json.dumps`, `ensure_ascii` off unless asked for.
pub(crate) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(indent.as_i64().unwrap_or(0).clamp(0, 64) as usize),
    });
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut json = Json { out: String::new(), indent, comma, colon, ensure_ascii, sort_keys };
    json.write(value, 0)?;
    Ok(json.out)
}

struct Json {
    out: String,
    indent: Option<String>,
    comma: String,
    colon: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Json {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        check_depth(depth)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value, "Infinity", "NaN")),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.nested(['[', ']'], depth, &items, |json, item| json.write(item, depth + 1))?;
            }
            kind => {
                let message = format!("tojson: a value of type {kind} is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.nested(['{', '}'], depth, &keys, |json, key| {
            match key.kind() {
                ValueKind::String => json.string(key.as_str().unwrap_or_default()),
                _ => {
                    json.out.push('"');
                    json.write(key, depth + 1)?;
                    json.out.push('"');
                }
            }
            json.out.push_str(&json.colon);
            json.write(&map.get_item(key)?, depth + 1)
        })
    }

    fn nested(
        &mut self,
        [open, close]: [char; 2],
        depth: usize,
        items: &[Value],
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push_str(&self.comma);
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// Begins a line at `depth`, where lines are asked for.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(char),
                '\u{7f}'.. if self.ensure_ascii && !char.is_ascii() => self.escape(char),
                _ => self.out.push(char),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, char: char) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }
}

/// `str(value)` as Python has it, for `{{ value }}`.
pub(crate) fn print(out: &mut impl Write, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Number => out.write_str(&number(value, "inf", "nan")),
        ValueKind::Seq | ValueKind::Map => {
            let mut text = String::new();
            repr(&mut text, value, 0)?;
            out.write_str(&text)
        }
        _ => write!(out, "{value}"),
    };
    Ok(written?)
}

/// `repr(value)`, for what is inside lists and dicts.
fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number => out.push_str(&number(value, "inf", "nan")),
        ValueKind::String => repr_string(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            out.push('[');
            for (at, item) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A string in quotes: single ones, unless it has those and no double ones.
fn repr_string(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        let _ = match char {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\\' => out.write_str("\\\\"),
            _ if char == quote => write!(out, "\\{char}"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' => write!(out, "\\x{:02x}", u32::from(char)),
            _ => out.write_char(char),
        };
    }
    out.push(quote);
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply to be written"));
    }
    Ok(())
}

/// A number as Python writes it.
fn number(value: &Value, infinity: &str, nan: &str) -> String {
    let Some(float) = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer()) else {
        return value.to_string();
    };
    if float.is_nan() {
        return nan.to_owned();
    }
    if float.is_infinite() {
        return format!("{}{infinity}", if float < 0.0 { "-" } else { "" });
    }
    // Rust changes to exponents where Python does, but writes 1e16 and 1e-5 for 1e+16 and 1e-05.
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a time given in seconds since 1970 as `strftime` does in the C locale. What it does not know stays as it is.
pub(crate) fn strftime(format: &str, seconds: i64) -> String {
    let date = Date::new(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let rest = chars.as_str();
        let plain = rest.strip_prefix('-');
        let Some(directive) = plain.unwrap_or(rest).chars().next() else {
            out.push('%');
            continue;
        };
        chars = plain.unwrap_or(rest).chars();
        chars.next();
        date.write(&mut out, directive, plain.is_some());
    }
    out
}

/// A moment of the Gregorian calendar, in UTC.
struct Date {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    day_of_year: i64,
    second_of_day: i64,
}

impl Date {
    fn new(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        // Years that begin in March put the leap day last: 400 of them are 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12;
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before_march = 59 + i64::from(leap);
        let day_of_year = if month < 2 { day_from_march - 306 } else { day_from_march + before_march } + 1;
        Date {
            year,
            month: month as usize,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            day_of_year,
            second_of_day: seconds.rem_euclid(86_400),
        }
    }

    fn write(&self, out: &mut String, directive: char, plain: bool) {
        let (hour, minute, second) =
            (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        let weekday = DAYS.get(self.weekday).copied().unwrap_or_default();
        let mut padded = |value: i64, width: usize| {
            let width = if plain { 0 } else { width };
            let _ = write!(out, "{value:0width$}");
        };
        match directive {
            'Y' => padded(self.year, 4),
            'y' => padded(self.year.rem_euclid(100), 2),
            'm' => padded(self.month as i64 + 1, 2),
            'd' => padded(self.day, 2),
            'H' => padded(hour, 2),
            'I' => padded((hour + 11) % 12 + 1, 2),
            'M' => padded(minute, 2),
            'S' => padded(second, 2),
            'f' => padded(0, 6),
            'j' => padded(self.day_of_year, 3),
            'w' => padded(self.weekday as i64, 1),
            'u' => padded((self.weekday as i64 + 6) % 7 + 1, 1),
            'B' => out.push_str(month),
            'b' | 'h' => out.push_str(month.get(..3).unwrap_or_default()),
            'A' => out.push_str(weekday),
            'a' => out.push_str(weekday.get(..3).unwrap_or_default()),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'e' => drop(write!(out, "{:>2}", self.day)),
            'F' => "Y-m-d".chars().for_each(|part| self.part(out, part)),
            'T' | 'X' => "H:M:S".chars().for_each(|part| self.part(out, part)),
            'R' => "H:M".chars().for_each(|part| self.part(out, part)),
            'D' | 'x' => "m/d/y".chars().for_each(|part| self.part(out, part)),
            'c' => "a b e T Y".chars().for_each(|part| self.part(out, part)),
            'Z' | 'z' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            other => out.extend(['%', other]),
        }
    }

    /// A letter as a directive, anything else as itself.
    fn part(&self, out: &mut String, part: char) {
        if part.is_ascii_alphabetic() {
            self.write(out, part, false);
        } else {
            out.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %a %A %j %b %B %-d %H:%M:%S %I%p %y %% %q %c";
        for (seconds, want) in [
            (0, "1970-01-01 Thu Thursday 001 Jan January 1 00:00:00 12AM 70 % %q Thu Jan  1 00:00:00 1970"),
            (
                951_825_599,
                "2000-02-29 Tue Tuesday 060 Feb February 29 11:59:59 11AM 00 % %q Tue Feb 29 11:59:59 2000",
            ),
            (
                951_868_800,
                "2000-03-01 Wed Wednesday 061 Mar March 1 00:00:00 12AM 00 % %q Wed Mar  1 00:00:00 2000",
            ),
            (
                4_107_542_399,
                "2100-02-28 Sun Sunday 059 Feb February 28 23:59:59 11PM 00 % %q Sun Feb 28 23:59:59 2100",
            ),
            (
                1_735_646_400,
                "2024-12-31 Tue Tuesday 366 Dec December 31 12:00:00 12PM 24 % %q Tue Dec 31 12:00:00 2024",
            ),
            (
                -1,
                "1969-12-31 Wed Wednesday 365 Dec December 31 23:59:59 11PM 69 % %q Wed Dec 31 23:59:59 1969",
            ),
        ] {
            assert_eq!(strftime(format, seconds), want);
        }
        assert_eq!(strftime("100%", 0), "100%");
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, want) in [
            (Value::from(1.0), "1.0"),
            (Value::from(1e16), "1e+16"),
            (Value::from(1.5e-7), "1.5e-07"),
            (Value::from(0.0001), "0.0001"),
            (Value::from(f64::NEG_INFINITY), "-inf"),
            (Value::from(7), "7"),
            (Value::from(-0.0), "-0.0"),
        ] {
            assert_eq!(number(&value, "inf", "nan"), want);
        }
    }
}
