//! Many byte strings in one allocation.

/// A list of byte strings held as one blob and the end offset of each: 4 bytes of overhead a string.
///
/// The blob is limited to 4 GiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    blob: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list with room for `count` strings of `bytes` bytes in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Strings { blob: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Appends a string; false, leaving the list as it was, if the blob would exceed 4 GiB.
    #[must_use]
    pub fn push(&mut self, string: &[u8]) -> bool {
        let Ok(end) = u32::try_from(self.blob.len() + string.len()) else { return false };
        self.blob.extend_from_slice(string);
        self.ends.push(end);
        true
    }

    /// The string at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.blob.get(start..end)
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Gives back memory beyond what the strings need.
    pub fn shrink_to_fit(&mut self) {
        self.blob.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// Collects strings; those past 4 GiB in all are dropped, which a reader of a file rules out by its own cap.
impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Strings::new();
        for string in strings {
            if !all.push(string.as_ref()) {
                break;
            }
        }
        all
    }
}
