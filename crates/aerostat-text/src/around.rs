//! What is put around the tokens of a text: post-processors.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, clip};
use crate::read::parts;

/// How many more tokens than a text has may be put around it.
const ADDED_MAX: usize = 1024;

/// A part of what comes out.
enum Piece {
    /// The tokens so far.
    Text,
    /// Tokens that are added.
    Added(Vec<u32>),
}

/// All steps of a tokenizer, in order: each a list of pieces.
#[derive(Default)]
pub(crate) struct Around(Vec<Vec<Piece>>);

impl Around {
    /// Up to one token before and up to one after a text.
    pub(crate) fn tokens(before: Option<u32>, after: Option<u32>) -> Self {
        let added = |id: Option<u32>| Piece::Added(id.into_iter().collect());
        Around(vec![vec![added(before), Piece::Text, added(after)]])
    }

    /// The field `post_processor` of `tokenizer.json`.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        let steps = parts(value, "processors")?.into_iter().map(step).filter_map(Result::transpose);
        let steps = Around(steps.collect::<Result<_, _>>()?);
        let texts =
            steps.0.iter().map(|step| step.iter().filter(|piece| matches!(piece, Piece::Text)).count());
        let added = steps.0.iter().flatten().map(|piece| match piece {
            Piece::Text => 0,
            Piece::Added(ids) => ids.len(),
        });
        if texts.into_iter().any(|count| count != 1) || added.sum::<usize>() > ADDED_MAX {
            let message = "the post-processor repeats the text, drops it, or adds more than 1024 tokens";
            return Err(Error::malformed(message));
        }
        Ok(steps)
    }

    /// Puts what belongs there around the tokens of a text.
    pub(crate) fn apply(&self, ids: &mut Vec<u32>) {
        for step in &self.0 {
            let (mut before, mut after, mut passed) = (Vec::<u32>::new(), Vec::<u32>::new(), false);
            for piece in step {
                match piece {
                    Piece::Text => passed = true,
                    Piece::Added(added) if passed => after.extend(added),
                    Piece::Added(added) => before.extend(added),
                }
            }
            ids.splice(0..0, before);
            ids.extend(after);
        }
    }
}

/// One step; `None` for one that changes no ids.
fn step(value: &Value) -> Result<Option<Vec<Piece>>, Error> {
    let wrong = |what: &str| Error::malformed(format!("post_processor: {what}"));
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "ByteLevel" => Ok(None),
        "RobertaProcessing" | "BertProcessing" => {
            let id = |name: &str| {
                let id = value.get(name).and_then(|pair| id(pair.get(1)?));
                id.ok_or_else(|| wrong(&format!("{name} has no id")))
            };
            Ok(Some(vec![Piece::Added(vec![id("cls")?]), Piece::Text, Piece::Added(vec![id("sep")?])]))
        }
        "TemplateProcessing" => {
            let tokens = special_tokens(value.get("special_tokens").unwrap_or(&Value::Null))?;
            let single = value.get("single").and_then(Value::as_array);
            let single = single.ok_or_else(|| wrong("a template without `single`"))?;
            single.iter().map(|piece| template_piece(piece, &tokens)).collect::<Result<_, _>>().map(Some)
        }
        kind => Err(wrong(&format!("{:?} is unknown", clip(kind)))),
    }
}

fn template_piece(piece: &Value, tokens: &HashMap<&str, Vec<u32>>) -> Result<Piece, Error> {
    let wrong = |what: String| Error::malformed(format!("post_processor: {what}"));
    if piece.pointer("/Sequence/id").and_then(Value::as_str) == Some("A") {
        return Ok(Piece::Text);
    }
    let name = piece.pointer("/SpecialToken/id").and_then(Value::as_str);
    let name =
        name.ok_or_else(|| wrong("a piece of the template is neither a text nor a token".to_owned()))?;
    let ids = tokens.get(name);
    let ids = ids.ok_or_else(|| wrong(format!("the template names {:?}, but not its ids", clip(name))))?;
    Ok(Piece::Added(ids.clone()))
}

fn special_tokens(value: &Value) -> Result<HashMap<&str, Vec<u32>>, Error> {
    let read = |(name, token): (_, &Value)| {
        let ids = token.get("ids").and_then(Value::as_array)?;
        Some((name, ids.iter().map(id).collect::<Option<Vec<u32>>>()?))
    };
    let tokens = value.as_object().into_iter().flatten().map(|(name, token)| read((name.as_str(), token)));
    tokens
        .collect::<Option<_>>()
        .ok_or_else(|| Error::malformed("post_processor: special_tokens without ids"))
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
