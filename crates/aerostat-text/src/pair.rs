//! Two texts as one, such as a query and a document: what a post-processor puts around both.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, clip};
use crate::read::parts;
use crate::tokenizer::Tokenizer;

/// How many more tokens than the texts have may be put around them.
const ADDED_MAX: usize = 1024;

/// A part of what comes out.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    First,
    Second,
    Added(Vec<u32>),
}

/// What two texts become: pieces, each of the first part or of the second.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair(Vec<(Piece, bool)>);

impl Default for Pair {
    /// One text after the other.
    fn default() -> Self {
        Self(vec![(Piece::First, false), (Piece::Second, false)])
    }
}

/// Two texts as a model sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairTokens {
    /// The tokens of both, special ones included.
    pub token_ids: Vec<u32>,
    /// Where the second part begins, if the tokenizer tells parts apart.
    pub second: Option<usize>,
    /// Tokens that were cut off the ends of the texts.
    pub cut: usize,
}

impl Tokenizer {
    /// Two texts as one, with the special tokens that belong around and between them, of `tokens_max` tokens at most: where they
    /// are more the longer text is cut at its end, or both are to half.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str, tokens_max: usize) -> Result<PairTokens, Error> {
        let (mut first, mut second) = (self.encode(first, false)?, self.encode(second, false)?);
        let pair = self.pair();
        let room = tokens_max.saturating_sub(pair.added());
        let whole = first.len() + second.len();
        let (a, b) = cut(first.len(), second.len(), room);
        first.truncate(a);
        second.truncate(b);
        let (token_ids, second) = pair.apply(&first, &second);
        Ok(PairTokens { token_ids, second, cut: whole.saturating_sub(room) })
    }
}

/// The lengths that two texts are cut to: the longer one first, then both to halves, as tokenizers do it.
fn cut(first: usize, second: usize, room: usize) -> (usize, usize) {
    let (short, long) = (first.min(second), first.max(second));
    if short + long <= room {
        return (first, second);
    }
    let (short, long) = match room.checked_sub(short).filter(|left| *left >= short) {
        Some(left) => (short, left),
        None => (room / 2, room / 2 + room % 2),
    };
    if first > second { (long, short) } else { (short, long) }
}

impl Pair {
    /// The field `post_processor` of `tokenizer.json`; of several steps the last that speaks of two texts.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        let steps = parts(value, "processors")?.into_iter().map(step).filter_map(Result::transpose);
        let pair = steps.collect::<Result<Vec<_>, _>>()?.pop().unwrap_or_default();
        let count = |wanted: &Piece| pair.0.iter().filter(|(piece, _)| piece == wanted).count();
        // The first part may not come back once the second has begun.
        let in_order = pair.0.is_sorted_by_key(|(_, second)| *second);
        if count(&Piece::First) != 1 || count(&Piece::Second) != 1 || pair.added() > ADDED_MAX || !in_order {
            let message = "the post-processor repeats a text of a pair, drops it, or adds more than 1024 tokens";
            return Err(Error::malformed(message));
        }
        Ok(pair)
    }

    /// Tokens that are put around two texts.
    fn added(&self) -> usize {
        let added = |(piece, _): &(Piece, bool)| match piece {
            Piece::Added(ids) => ids.len(),
            Piece::First | Piece::Second => 0,
        };
        self.0.iter().map(added).sum()
    }

    fn apply(&self, first: &[u32], second: &[u32]) -> (Vec<u32>, Option<usize>) {
        let (mut ids, mut begins) = (Vec::with_capacity(first.len() + second.len() + self.added()), None);
        for (piece, is_second) in &self.0 {
            if *is_second && begins.is_none() {
                begins = Some(ids.len());
            }
            match piece {
                Piece::First => ids.extend(first),
                Piece::Second => ids.extend(second),
                Piece::Added(added) => ids.extend(added),
            }
        }
        (ids, begins)
    }
}

/// One step; `None` for one that says nothing of two texts.
fn step(value: &Value) -> Result<Option<Pair>, Error> {
    let wrong = |what: String| Error::malformed(format!("post_processor: {what}"));
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    let token = |name: &str| {
        let id = value.get(name).and_then(|pair| id(pair.get(1)?));
        id.ok_or_else(|| wrong(format!("{name} has no id")))
    };
    let added = |ids: &[u32], second| (Piece::Added(ids.to_vec()), second);
    Ok(match kind {
        "BertProcessing" => {
            let (cls, sep) = (token("cls")?, token("sep")?);
            let first = [added(&[cls], false), (Piece::First, false), added(&[sep], false)];
            Some(Pair([&first[..], &[(Piece::Second, true), added(&[sep], true)]].concat()))
        }
        "RobertaProcessing" => {
            let (cls, sep) = (token("cls")?, token("sep")?);
            let first = [added(&[cls], false), (Piece::First, false), added(&[sep, sep], false)];
            Some(Pair([&first[..], &[(Piece::Second, false), added(&[sep], false)]].concat()))
        }
        "TemplateProcessing" => {
            let Some(pieces) = value.get("pair").and_then(Value::as_array) else { return Ok(None) };
            let tokens = special_tokens(value.get("special_tokens").unwrap_or(&Value::Null));
            let pieces = pieces.iter().map(|piece| template_piece(piece, &tokens));
            Some(Pair(pieces.collect::<Result<_, _>>()?))
        }
        _ => None,
    })
}

fn template_piece(piece: &Value, tokens: &HashMap<&str, Vec<u32>>) -> Result<(Piece, bool), Error> {
    let wrong = |what: String| Error::malformed(format!("post_processor: {what}"));
    let (kind, inner) = match (piece.get("Sequence"), piece.get("SpecialToken")) {
        (Some(sequence), _) => ("text", sequence),
        (None, Some(token)) => ("token", token),
        _ => return Err(wrong("a piece of the pair is neither a text nor a token".to_owned())),
    };
    let second = inner.get("type_id").and_then(Value::as_u64).unwrap_or(0) > 0;
    let name = inner.get("id").and_then(Value::as_str).unwrap_or_default();
    let piece = match (kind, name) {
        ("text", "A") => Piece::First,
        ("text", "B") => Piece::Second,
        ("token", name) => {
            let ids = tokens.get(name);
            let ids = ids.ok_or_else(|| wrong(format!("the pair names {:?}, but not its ids", clip(name))))?;
            Piece::Added(ids.clone())
        }
        (_, name) => return Err(wrong(format!("the pair has no text {:?}", clip(name)))),
    };
    Ok((piece, second))
}

fn special_tokens(value: &Value) -> HashMap<&str, Vec<u32>> {
    let read = |(name, token): (_, &Value)| {
        let ids = token.get("ids").and_then(Value::as_array)?;
        Some((name, ids.iter().map(id).collect::<Option<Vec<u32>>>()?))
    };
    let tokens = value.as_object().into_iter().flatten();
    tokens.filter_map(|(name, token)| read((name.as_str(), token))).collect()
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longer_text_is_cut_then_both() {
        assert_eq!(cut(3, 9, 20), (3, 9));
        assert_eq!(cut(3, 19, 20), (3, 17));
        assert_eq!(cut(19, 3, 20), (17, 3));
        assert_eq!(cut(30, 40, 21), (10, 11));
        assert_eq!(cut(40, 30, 21), (11, 10));
        assert_eq!(cut(5, 5, 0), (0, 0));
    }

    #[test]
    fn pairs_are_those_of_their_processors() {
        let bert = json!({"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]});
        let pair = Pair::read(&bert).unwrap();
        assert_eq!(pair.apply(&[7, 8], &[9]), (vec![1, 7, 8, 2, 9, 2], Some(4)));
        let roberta = json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]});
        let pair = Pair::read(&roberta).unwrap();
        assert_eq!(pair.apply(&[7], &[9]), (vec![0, 7, 2, 2, 9, 2], None));
        assert_eq!(Pair::read(&json!(null)).unwrap().apply(&[7], &[9]), (vec![7, 9], None));
        let twice = json!({"type": "TemplateProcessing", "single": [], "special_tokens": {}, "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 1}}]});
        assert!(Pair::read(&twice).is_err());
    }
}
