//! What is saved of sequences under way, as bytes.

use aerostat_openai::{Finish, More, PartResult, Token};

use crate::error::Error;

/// Tokens as bytes: id, log-probability (NaN: none), number of alternatives, and those; little-endian.
///
/// # Errors
/// A defect: more alternatives than anyone may ask for.
pub(crate) fn pack_tokens(tokens: &[Token]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(tokens.len() * 10);
    for token in tokens {
        let count = u16::try_from(token.top.len())
            .map_err(|_| Error::defect(format!("a token with {} alternatives", token.top.len())))?;
        bytes.extend(token.id.to_le_bytes());
        bytes.extend(token.logprob.unwrap_or(f32::NAN).to_le_bytes());
        bytes.extend(count.to_le_bytes());
        for (id, logprob) in &token.top {
            bytes.extend(id.to_le_bytes());
            bytes.extend(logprob.to_le_bytes());
        }
    }
    Ok(bytes)
}

/// Back again; `None` if the bytes are not what [`pack_tokens`] wrote.
pub(crate) fn unpack_tokens(mut bytes: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while !bytes.is_empty() {
        let id = u32::from_le_bytes(take(&mut bytes)?);
        let logprob = Some(f32::from_le_bytes(take(&mut bytes)?)).filter(|l| !l.is_nan());
        let count = u16::from_le_bytes(take(&mut bytes)?);
        let mut top = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            top.push((u32::from_le_bytes(take(&mut bytes)?), f32::from_le_bytes(take(&mut bytes)?)));
        }
        tokens.push(Token { id, logprob, top });
    }
    Some(tokens)
}

/// Added to the kind of a text that has what few have.
const MORE: u8 = 16;

/// A result as bytes: its kind, then text (with how it ended, and what few have with its length before it) or floats.
pub(crate) fn pack_result(result: &PartResult) -> Vec<u8> {
    let floats = |kind: u8, list: &mut dyn Iterator<Item = f32>| {
        std::iter::once(kind).chain(list.flat_map(f32::to_le_bytes)).collect()
    };
    match result {
        PartResult::Text { text, finish, more } => {
            let kind = match (text, finish) {
                (None, Finish::Stop) => 0,
                (None, Finish::Length) => 1,
                (Some(_), Finish::Stop) => 2,
                (Some(_), Finish::Length) => 3,
            };
            let text = text.as_deref().unwrap_or("").as_bytes();
            if *more == More::default() {
                return [&[kind], text].concat();
            }
            let more = more.to_bytes();
            [&[kind + MORE], &(more.len() as u32).to_le_bytes()[..], &more, text].concat()
        }
        PartResult::Logprobs(list) => floats(4, &mut list.iter().map(|l| l.unwrap_or(f32::NAN))),
        PartResult::Vector(list) => floats(5, &mut list.iter().copied()),
    }
}

/// Back again; `None` if the bytes are not what [`pack_result`] wrote.
pub(crate) fn unpack_result(bytes: &[u8]) -> Option<PartResult> {
    let (kind, mut rest) = bytes.split_first()?;
    let (kind, more) = match kind.checked_sub(MORE) {
        None => (*kind, More::default()),
        Some(kind) => {
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (more, text) = rest.split_at_checked(length)?;
            rest = text;
            (kind, More::from_bytes(more)?)
        }
    };
    let text = || String::from_utf8(rest.to_vec()).ok();
    let floats = || {
        let (chunks, left) = rest.as_chunks::<4>();
        left.is_empty().then(|| chunks.iter().map(|c| f32::from_le_bytes(*c)))
    };
    Some(match kind {
        0 => PartResult::Text { text: None, finish: Finish::Stop, more },
        1 => PartResult::Text { text: None, finish: Finish::Length, more },
        2 => PartResult::Text { text: Some(text()?), finish: Finish::Stop, more },
        3 => PartResult::Text { text: Some(text()?), finish: Finish::Length, more },
        4 => PartResult::Logprobs(floats()?.map(|l| Some(l).filter(|l| !l.is_nan())).collect()),
        5 => PartResult::Vector(floats()?.collect()),
        _ => return None,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_results_come_back_as_they_were() {
        let tokens = vec![
            Token { id: 7, logprob: None, top: Vec::new() },
            Token { id: u32::MAX, logprob: Some(-0.1), top: vec![(1, -0.1), (2, f32::NEG_INFINITY)] },
        ];
        let bytes = pack_tokens(&tokens).unwrap();
        assert_eq!(unpack_tokens(&bytes), Some(tokens));
        assert_eq!(unpack_tokens(&bytes[..bytes.len() - 1]), None);
        let with = |text: Option<&str>, finish, more| PartResult::Text {
            text: text.map(str::to_owned),
            finish,
            more,
        };
        let text = |text, finish| with(text, finish, More::default());
        let more = More { prompt_logprobs: Some(vec![None]), ..More::default() };
        for result in [
            text(None, Finish::Stop),
            text(None, Finish::Length),
            text(Some(""), Finish::Stop),
            text(Some("é\n"), Finish::Length),
            with(Some("é\n"), Finish::Stop, more.clone()),
            with(None, Finish::Length, more),
            PartResult::Logprobs(vec![None, Some(-1.5)]),
            PartResult::Vector(vec![0.25, -3.0]),
        ] {
            assert_eq!(unpack_result(&pack_result(&result)), Some(result));
        }
        assert_eq!(unpack_result(&[]), None);
        assert_eq!(unpack_result(&[9]), None);
    }
}
