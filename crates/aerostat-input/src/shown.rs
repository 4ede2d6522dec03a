//! Text of others as messages repeat it: never much of it.

use std::borrow::Cow;

/// The most characters of a name (of a tensor, a file, a key, a family) that a message repeats.
pub const NAME_CHARS_MAX: usize = 120;
/// The most characters of a whole message.
pub const MESSAGE_CHARS_MAX: usize = 600;

/// The text, of which a longer one than `chars_max` characters loses its middle, and says how long it was.
///
/// ```
/// use aerostat_input::shortened;
/// assert_eq!(shortened("model.norm.weight", 20), "model.norm.weight");
/// assert_eq!(shortened(&"x".repeat(1000), 6), "xxxx… (1000 characters) …xx");
/// ```
pub fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    // As many bytes as characters may be: the common case, without counting.
    if text.len() <= chars_max {
        return Cow::Borrowed(text);
    }
    let chars = text.chars().count();
    if chars <= chars_max {
        return Cow::Borrowed(text);
    }
    let tail = chars_max / 3;
    let head: String = text.chars().take(chars_max - tail).collect();
    let tail: String = text.chars().skip(chars - tail).collect();
    Cow::Owned(format!("{head}… ({chars} characters) …{tail}"))
}

/// A name as messages repeat it: at most [`NAME_CHARS_MAX`] characters of it.
pub fn name_shown(name: &str) -> Cow<'_, str> {
    shortened(name, NAME_CHARS_MAX)
}
