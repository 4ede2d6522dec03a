//! Reading `tokenizer.model` of SentencePiece: a protocol buffer with the pieces, their scores and kinds, and how texts are
//! normalised. Field numbers are those of `sentencepiece_model.proto`.

use crate::added::AddedToken;
use crate::around::Around;
use crate::bpe::{Bpe, Merges, Settings, Vocab, rank_of_score};
use crate::charsmap::CharsMap;
use crate::error::{Error, ErrorKind};
use crate::gguf::{SPACE, marks_to_spaces, spaces_to_marks};
use crate::hugging_face::{ID_MAX, TokenizerConfig};
use crate::model::TextModel;
use crate::normalize::{Normalizer, Normalizers};
use crate::split::{Prepend, Splitter, Splitters};
use crate::strings::Strings;
use crate::tokenizer::{Parts, Tokenizer};
use crate::unigram::Unigram;

const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

const KIND_NORMAL: u64 = 1;
const KIND_UNKNOWN: u64 = 2;
const KIND_CONTROL: u64 = 3;
const KIND_USER_DEFINED: u64 = 4;

/// What the file says.
struct Model {
    pieces: Strings,
    scores: Vec<f32>,
    kinds: Vec<u8>,
    model_type: u64,
    byte_fallback: bool,
    bos: u64,
    eos: u64,
    charsmap: Vec<u8>,
    dummy_prefix: bool,
    single_spaces: bool,
}

/// The tokenizer of a `tokenizer.model`. BOS and EOS are put around a text as its configuration says, BOS without any.
pub(crate) fn read(bytes: &[u8], config: &TokenizerConfig) -> Result<Tokenizer, Error> {
    let model = Model::read(bytes)?;
    let added = added_tokens(&model);
    let mut normalizers = Vec::new();
    if !model.charsmap.is_empty() {
        normalizers.push(Normalizer::Table(CharsMap::read(&model.charsmap)?));
    }
    if model.single_spaces {
        normalizers.push(Normalizer::SingleSpaces);
    }
    let prefix = config.add_prefix_space.unwrap_or(model.dummy_prefix);
    // Older configurations put a space before every text between special tokens, newer ones before the first alone.
    let first_alone = prefix && config.legacy == Some(false);
    let splitters = if first_alone {
        let mark = SPACE.chars().next().unwrap_or(' ');
        Splitters(vec![Splitter::Metaspace { mark, prepend: Prepend::First, split: false }])
    } else {
        normalizers.extend(spaces_to_marks(prefix)?.0);
        Splitters::default()
    };
    let vocab = Vocab::new(model.pieces);
    let unknown = model.kinds.iter().position(|kind| u64::from(*kind) == KIND_UNKNOWN);
    let unknown = unknown.map(|id| id as u32);
    let text_model = match model.model_type {
        UNIGRAM => {
            let unigram = Unigram::new(vocab, model.scores, unknown, model.byte_fallback)?;
            TextModel::Unigram(unigram.in_single_precision())
        }
        BPE => {
            let settings = Settings {
                unknown: unknown.and_then(|id| vocab.text(id)),
                fuse_unknown: true,
                byte_fallback: model.byte_fallback,
                ..Settings::default()
            };
            let ranks = model.scores.into_iter().map(rank_of_score).collect();
            TextModel::Bpe(Bpe::new(vocab, Merges::Scored(ranks), settings)?)
        }
        other => {
            let message =
                format!("SentencePiece's model type {other} is not supported, only unigram and BPE");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    let count = text_model.vocab().ids();
    let special = |id: u64| u32::try_from(id).ok().filter(|id| (*id as usize) < count);
    let [bos, eos] = [special(model.bos), special(model.eos)];
    let around = Around::tokens(
        bos.filter(|_| config.add_bos_token.unwrap_or(true)),
        eos.filter(|_| config.add_eos_token.unwrap_or(false)),
    );
    let parts = Parts {
        model: text_model,
        normalizers: Normalizers(normalizers),
        splitters,
        decoders: marks_to_spaces(prefix)?,
        added: [vec![added], config.added()].concat(),
    };
    Tokenizer::new(parts, around, |tokenizer| {
        let named = [&config.bos_token, &config.eos_token].map(|token| tokenizer.token_id(token.text()?));
        [named[0].or(bos), named[1].or(eos)]
    })
}

/// Control pieces are special; pieces that users defined are looked for in normalised text, as they are written.
fn added_tokens(model: &Model) -> Vec<AddedToken> {
    let whole = |(piece, kind): (&[u8], &u8)| {
        let text = std::str::from_utf8(piece).ok()?;
        match u64::from(*kind) {
            KIND_UNKNOWN | KIND_CONTROL => Some(AddedToken::raw(text, true)),
            KIND_USER_DEFINED => Some(AddedToken { verbatim: true, ..AddedToken::raw(text, false) }),
            _ => None,
        }
    };
    model.pieces.iter().zip(&model.kinds).filter_map(whole).collect()
}

impl Model {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut model = Model {
            pieces: Strings::new(),
            scores: Vec::new(),
            kinds: Vec::new(),
            model_type: UNIGRAM,
            byte_fallback: false,
            bos: 1,
            eos: 2,
            charsmap: Vec::new(),
            dummy_prefix: true,
            single_spaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.read_piece(piece)?,
                (2, Field::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(Error::malformed("the SentencePiece model has no pieces"));
        }
        Ok(model)
    }

    fn read_piece(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (mut text, mut score, mut kind) = (&[][..], 0.0, KIND_NORMAL);
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(bytes)) => text = bytes,
                (2, Field::Four(bits)) => score = f32::from_bits(bits),
                (3, Field::Number(number)) => kind = number,
                _ => {}
            }
        }
        if self.scores.len() > ID_MAX as usize || !self.pieces.push(text) {
            return Err(Error::malformed("the SentencePiece model has more pieces than can be"));
        }
        self.scores.push(score);
        self.kinds.push(u8::try_from(kind).unwrap_or(u8::MAX));
        Ok(())
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for field in Fields(bytes) {
            match field? {
                (3, Field::Number(number)) => self.model_type = number,
                (35, Field::Number(number)) => self.byte_fallback = number != 0,
                (41, Field::Number(number)) => self.bos = number,
                (42, Field::Number(number)) => self.eos = number,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for field in Fields(bytes) {
            match field? {
                (2, Field::Bytes(bytes)) => self.charsmap = bytes.to_vec(),
                (3, Field::Number(number)) => self.dummy_prefix = number != 0,
                (4, Field::Number(number)) => self.single_spaces = number != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A value of a protocol buffer.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four(u32),
    Eight,
}

/// The fields of a message, with their numbers; the last item is an error if the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Eight)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Four(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Error::malformed("the file is not a SentencePiece model")))
    }
}
