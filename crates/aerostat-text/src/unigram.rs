//! Unigram models: of all ways to cut a text into tokens, the one whose scores sum to the most.

use crate::bpe::Vocab;
use crate::error::Error;
use crate::meter::Meter;

/// How much worse an unknown character is than the worst token.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A unigram model: a text in, ids out.
pub(crate) struct Unigram {
    vocab: Vocab,
    scores: Vec<f32>,
    unknown: Option<u32>,
    unknown_score: f64,
    /// The ids of `<0x00>` … `<0xFF>`; empty without byte fallback.
    bytes: Vec<u32>,
    /// The lengths of tokens in bytes, ascending.
    lengths: Vec<usize>,
    /// Whether sums of scores are rounded to 32 bits.
    single_precision: bool,
}

/// The best way to cut the text up to some place.
#[derive(Clone, Copy, Default)]
struct Best {
    score: f64,
    /// Where the last token of it begins, and what it is.
    last: Option<(u32, u32)>,
}

impl Unigram {
    /// A model of tokens and as many scores.
    pub(crate) fn new(
        vocab: Vocab,
        scores: Vec<f32>,
        unknown: Option<u32>,
        byte_fallback: bool,
    ) -> Result<Self, Error> {
        if unknown.is_some_and(|id| vocab.text(id).is_none()) {
            return Err(Error::malformed("the unknown token of the unigram model is not in its vocabulary"));
        }
        let byte_id = |byte: u8| vocab.id(&format!("<0x{byte:02X}>"));
        let bytes = byte_fallback.then(|| (0..=255).map(byte_id).collect::<Option<Vec<u32>>>());
        let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
        let unknown_score = f64::from(least) - UNKNOWN_PENALTY;
        let lengths = vocab.lengths();
        let bytes = bytes.flatten().unwrap_or_default();
        Ok(Unigram { vocab, scores, unknown, unknown_score, bytes, lengths, single_precision: false })
    }

    /// The same model with sums of 32 bits, as SentencePiece itself has them: they decide among cuts that are as good.
    pub(crate) fn in_single_precision(self) -> Self {
        Unigram { single_precision: true, ..self }
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Appends the ids of a piece of text.
    pub(crate) fn tokenize(&self, text: &str, ids: &mut Vec<u32>, meter: &Meter) -> Result<(), Error> {
        let best = self.best(text, meter)?;
        // From the end to the start; unknown tokens that touch are one.
        let mut cuts: Vec<(usize, usize, u32)> = Vec::new();
        let mut end = text.len();
        while let Some((start, id)) = best.get(end).and_then(|best| best.last) {
            let unknown = Some(id) == self.unknown;
            match cuts.last_mut() {
                Some((first, _, last)) if unknown && *last == id => *first = start as usize,
                _ => cuts.push((start as usize, end, id)),
            }
            end = start as usize;
        }
        for (start, end, id) in cuts.into_iter().rev() {
            let part = text.get(start..end).unwrap_or_default();
            match self.vocab.id(part) {
                Some(id) => ids.push(id),
                None if !self.bytes.is_empty() => {
                    ids.extend(part.bytes().filter_map(|byte| self.bytes.get(usize::from(byte))));
                }
                None => ids.push(id),
            }
        }
        Ok(())
    }

    fn best(&self, text: &str, meter: &Meter) -> Result<Vec<Best>, Error> {
        let mut best = vec![Best::default(); text.len() + 1];
        for (start, letter) in text.char_indices() {
            let before = best.get(start).map_or(0.0, |best| best.score);
            let mut improve = |length: usize, score: f64, id: u32| {
                let sum = before + score;
                let sum = if self.single_precision { f64::from(sum as f32) } else { sum };
                if let Some(end) = best.get_mut(start + length)
                    && (end.last.is_none() || sum > end.score)
                {
                    *end = Best { score: sum, last: Some((start as u32, id)) };
                }
            };
            let mut single = false;
            for &length in &self.lengths {
                meter.tick("the search for its tokens, which have very many lengths")?;
                if start + length > text.len() {
                    break;
                }
                let Some(id) = text.get(start..start + length).and_then(|part| self.vocab.id(part)) else {
                    continue;
                };
                improve(length, f64::from(self.scores.get(id as usize).copied().unwrap_or(0.0)), id);
                single |= length == letter.len_utf8();
            }
            if !single {
                let id = self.unknown.ok_or_else(|| {
                    Error::encode(
                        "the unigram model lacks a character of this text, and has no unknown token",
                    )
                })?;
                improve(letter.len_utf8(), self.unknown_score, id);
            }
        }
        Ok(best)
    }
}
