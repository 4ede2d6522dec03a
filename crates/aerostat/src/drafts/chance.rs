//! How likely guesses are to be right, learnt from those that were made.

/// Guesses that count as much as what a kind of guess is taken to be worth at first.
const PRIOR: f32 = 4.0;
/// What earlier guesses of a kind count for when another is judged.
const MEMORY: f32 = 0.995;
/// What they count for from sweep to sweep: a kind that was not worth its rows is forgotten, and tried again.
const FADING: f32 = 0.999;

/// Where guesses come from; kinds are judged apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It followed the longest match of so many tokens.
    Longest(usize),
    /// It followed a shorter one, or an earlier one.
    Other(usize),
    /// The model expected it after the same pair, with this chance in sixteenths.
    Pair(usize),
    /// The same after the same token.
    Token(usize),
    /// A small model's logits give it in this place, with this chance.
    Drawn(usize),
    /// It is one of the others that they make likely.
    Modelled(usize),
}

/// A chance in so many parts, from 0.
fn part(chance: f32) -> usize {
    ((chance * KINDS as f32) as usize).min(KINDS - 1)
}

const KINDS: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    offered: f32,
    right: f32,
}

/// How often guesses of each kind were right.
#[derive(Debug, Default)]
pub(super) struct Chances([[Judged; KINDS]; 6]);

impl Kind {
    /// A guess of the model's that had this chance.
    pub(super) fn expected(of_pair: bool, chance: f32) -> Self {
        if of_pair { Self::Pair(part(chance)) } else { Self::Token(part(chance)) }
    }

    /// What a small model says.
    pub(super) fn drawn(chance: f32) -> Self {
        Self::Drawn(part(chance))
    }

    /// What else it makes likely.
    pub(super) fn modelled(chance: f32) -> Self {
        Self::Modelled(part(chance))
    }

    fn place(self) -> (usize, usize) {
        let length = |matched: usize| match matched {
            0..=8 => matched.saturating_sub(1),
            9..=12 => 8,
            13..=20 => 9,
            _ => 10,
        };
        match self {
            Self::Longest(matched) => (0, length(matched)),
            Self::Other(matched) => (1, length(matched)),
            Self::Pair(sixteenth) => (2, sixteenth),
            Self::Token(sixteenth) => (3, sixteenth),
            Self::Drawn(sixteenth) => (4, sixteenth),
            Self::Modelled(sixteenth) => (5, sixteenth),
        }
    }

    /// What is taken to be its chance before any was judged.
    fn first(self) -> f32 {
        let (_, place) = self.place();
        let sixteenths = (place as f32 + 0.5) / KINDS as f32;
        match self {
            Self::Longest(_) => 1.0 - 0.6 / (place as f32).max(1.0),
            Self::Other(_) => 0.1,
            Self::Pair(_) => 0.7 * sixteenths,
            Self::Token(_) => 0.4 * sixteenths,
            Self::Drawn(_) => 0.2 + 0.7 * sixteenths,
            Self::Modelled(_) => 0.8 * sixteenths,
        }
    }
}

impl Chances {
    /// The chance of a guess, where what is before it is right.
    pub(super) fn of(&self, kind: Kind) -> f32 {
        let (group, place) = kind.place();
        let Judged { offered, right } = self.0[group][place];
        (right + PRIOR * kind.first()) / (offered + PRIOR)
    }

    /// A sweep more has passed.
    pub(super) fn fade(&mut self) {
        for judged in self.0.as_flattened_mut() {
            (judged.offered, judged.right) = (judged.offered * FADING, judged.right * FADING);
        }
    }

    /// A guess whose place was reached was right, or not.
    pub(super) fn judge(&mut self, kind: Kind, right: bool) {
        let (group, place) = kind.place();
        let judged = &mut self.0[group][place];
        judged.offered = judged.offered * MEMORY + 1.0;
        judged.right = judged.right * MEMORY + f32::from(u8::from(right));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_near_to_what_is_right() {
        let mut chances = Chances::default();
        let kind = Kind::Longest(5);
        assert!((chances.of(kind) - kind.first()).abs() < 1e-6);
        (0..500).for_each(|i| chances.judge(kind, i % 4 == 0));
        assert!((chances.of(kind) - 0.25).abs() < 0.03, "{}", chances.of(kind));
        assert_eq!(chances.of(Kind::Other(5)), Kind::Other(5).first());
        for kind in
            [Kind::Longest(usize::MAX), Kind::Other(0), Kind::expected(true, 1.0), Kind::expected(false, 0.0)]
        {
            assert!((0.0..=1.0).contains(&chances.of(kind)), "{kind:?}");
        }
    }
}
