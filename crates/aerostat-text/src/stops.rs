//! Stop strings, found across token borders.

/// Watches generated text for stop strings, holding back only what could still become one.
///
/// ```
/// let mut stops = aerostat_text::Stops::new(["</end>"]);
/// assert_eq!(stops.push("all <"), ("all ".to_owned(), false));
/// assert_eq!(stops.push("b> is well </e"), ("<b> is well ".to_owned(), false));
/// assert_eq!(stops.push("nd> never shown"), (String::new(), true));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stops {
    strings: Vec<String>,
    held: String,
    /// The string that was found.
    hit: Option<String>,
    includes: bool,
}

impl Stops {
    /// Watches for any of `strings`; empty ones are ignored.
    pub fn new<S: Into<String>>(strings: impl IntoIterator<Item = S>) -> Self {
        let strings = strings.into_iter().map(Into::into).filter(|stop| !stop.is_empty()).collect();
        Stops { strings, held: String::new(), hit: None, includes: false }
    }

    /// The same, with the string that is found as the last of the text.
    pub fn including(self) -> Self {
        Stops { includes: true, ..self }
    }

    /// The string that was found.
    pub fn hit(&self) -> Option<&str> {
        self.hit.as_deref()
    }

    /// Takes a piece of text that no stop string ends: one that is complete within it is text like any other. Returns what
    /// is safe to print.
    pub fn pass(&mut self, text: &str) -> String {
        self.held.push_str(text);
        self.release()
    }

    /// Takes the next piece of text; returns what is now safe to print, and whether a stop string was found.
    ///
    /// Of several, the one that is complete first counts, however the text was cut into pieces. The text before it is
    /// returned with the hit; the stop string and all after it is dropped, as are all later pieces.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.hit.is_some() {
            return (String::new(), true);
        }
        // What was held was looked at.
        let old = self.held.len();
        self.held.push_str(text);
        let ends = |stop: &String| {
            let from = self.held.floor_char_boundary((old + 1).saturating_sub(stop.len()));
            let found = |start: usize| (start + stop.len(), start);
            let new = self.held.get(from..)?.find(stop.as_str()).map(|at| found(from + at));
            new.filter(|(end, _)| *end > old)
        };
        let found = self.strings.iter().filter_map(|stop| ends(stop).map(|at| (at, stop))).min();
        if let Some(((end, start), stop)) = found {
            self.hit = Some(stop.clone());
            self.held.truncate(if self.includes { end } else { start });
            return (std::mem::take(&mut self.held), true);
        }
        (self.release(), false)
    }

    /// Takes out what can no longer become a stop string.
    fn release(&mut self) -> String {
        let kept = self.strings.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let later = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, later)
    }

    /// Ends the text: returns what was held back and did not become a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length of the longest proper prefix of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(at, _)| at).filter(|&at| text.ends_with(&stop[..at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_same_stop_however_the_text_is_cut() {
        let cases: [(&[&str], &str, &str, bool); 7] = [
            (&["stop"], "one stop two", "one ", true),
            (&["stop"], "one sto", "one sto", false),
            (&["aab"], "aaab", "a", true),
            (&["abc", "b"], "xabc", "xa", true),
            (&["\u{1F600}!"], "hi \u{1F600}\u{1F600}! there", "hi \u{1F600}", true),
            (&["", "\n\n"], "a\nb\n\nc", "a\nb", true),
            (&[], "free text", "free text", false),
        ];
        for (stops, text, want, want_hit) in cases {
            for piece in 1..=text.len() {
                let mut watch = Stops::new(stops.iter().copied());
                let chars: Vec<char> = text.chars().collect();
                let (mut got, mut hit) = (String::new(), false);
                for part in chars.chunks(piece) {
                    let (safe, now) = watch.push(&part.iter().collect::<String>());
                    got.push_str(&safe);
                    hit |= now;
                }
                got.push_str(&watch.finish());
                // A longer stop may start earlier, but a shorter one that is complete first ends the text.
                assert!(
                    want == got || stops.len() > 1 && got == "xa",
                    "{stops:?} in {text:?} by {piece}: {got:?}"
                );
                assert_eq!(hit, want_hit, "{stops:?} in {text:?} by {piece}");
            }
        }
    }
    #[test]
    fn what_was_found_is_told_and_may_be_kept() {
        let mut watch = Stops::new(["end", "stop"]).including();
        assert_eq!(watch.push("all st"), ("all ".to_owned(), false));
        assert_eq!((watch.push("op here"), watch.hit()), (("stop".to_owned(), true), Some("stop")));
    }

    /// vLLM takes stop strings as text while an answer is shorter than its shortest length, but finds those that end after.
    #[test]
    fn strings_that_are_complete_in_passing_do_not_count() {
        let mut watch = Stops::new(["ab", "bcd"]);
        assert_eq!(watch.pass("xab"), "xa");
        assert_eq!((watch.push("c"), watch.push("d")), ((String::new(), false), (String::new(), true)));
        assert_eq!(watch.hit(), Some("bcd"));
        let mut watch = Stops::new(["a", "ab"]);
        assert_eq!((watch.pass("a"), watch.push("c")), (String::new(), ("ac".to_owned(), false)));
    }
}
