//! A model as it lies on disk: headers, family, tokenizer, template, defaults.

use std::path::{Path, PathBuf};

use aerostat_arch::ModelSpec;
use aerostat_checkpoint::{Adapter, Catalog, Checkpoint, Config};
use aerostat_text::{ChatTemplate, Tokenizer};

use crate::texts::Texts;
use crate::{Error, ErrorKind, Sampling, makers};

/// A checkpoint whose headers have been read and understood.
#[derive(Debug)]
pub struct ModelFiles {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) spec: ModelSpec,
    adapter: Option<PathBuf>,
}

/// What a checkpoint holds, whether or not it can run.
#[derive(Debug)]
pub struct Inspection {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is, or why it cannot run.
    pub spec: Result<ModelSpec, Error>,
    /// Name, format, shape, bytes and file of each tensor in the order of the files.
    pub tensors: Vec<(String, &'static str, Vec<u64>, u64, PathBuf)>,
    /// The codec, if it is packed.
    pub codec: Option<String>,
    /// The tensors as `aerostat-pack` asks for them.
    pub catalog: Catalog,
    /// Whether a tokenizer is there.
    pub tokenizer: bool,
    /// Whether a chat template is there.
    pub chat_template: bool,
}

impl ModelFiles {
    /// Reads the headers of a folder or GGUF file.
    ///
    /// # Errors
    /// [`ErrorKind::Model`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(path)?;
        let spec = aerostat_arch::describe(&checkpoint)?;
        Ok(Self { checkpoint, spec, adapter: None })
    }

    /// The same with an adapter, a folder that PEFT saved: its low-rank updates (LoRA) are added to what the model's matrices
    /// give, in f32. Nothing is merged, and the adapter's matrices stay in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Model`], also for adapters of another kind or of another model.
    pub fn open_with_adapter(path: &Path, adapter: &Path) -> Result<Self, Error> {
        let mut checkpoint = Checkpoint::open(path)?;
        // One that lies beside the weights is told of unless it is the one.
        checkpoint.adapter = checkpoint.adapter.filter(|beside| beside.path.parent() != Some(adapter));
        let mut spec = aerostat_arch::describe(&checkpoint)?;
        let adapter = Adapter::open(adapter)?;
        checkpoint.catalog = checkpoint.catalog.with(adapter.catalog.clone())?;
        aerostat_arch::adapt(&mut spec, &adapter, &checkpoint.catalog)?;
        Ok(Self { checkpoint, spec, adapter: Some(adapter.path) })
    }

    /// Everything that can be said about a checkpoint, of a known family or not.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the headers themselves are broken.
    pub fn inspect(path: &Path) -> Result<Inspection, Error> {
        let checkpoint = Checkpoint::open(path)?;
        let spec = aerostat_arch::describe(&checkpoint).map_err(Error::from);
        let catalog = &checkpoint.catalog;
        let tensors = catalog
            .tensors()
            .map(|t| {
                (
                    t.name.clone(),
                    t.dtype.name(),
                    t.shape.clone(),
                    t.extent.bytes,
                    catalog.file_of(t).to_owned(),
                )
            })
            .collect();
        let tokenizer = Texts::of(&checkpoint).has_tokenizer();
        let chat_template = Texts::of(&checkpoint).chat_template(None, None).is_ok_and(|t| t.is_some());
        let codec = catalog.codec().map(str::to_owned);
        let Checkpoint { path, catalog, .. } = checkpoint;
        Ok(Inspection { path, spec, tensors, codec, catalog, tokenizer, chat_template })
    }

    /// Where the model lies.
    pub fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    /// The adapter that is applied to it: its folder.
    pub fn adapter(&self) -> Option<&Path> {
        self.adapter.as_deref()
    }

    /// Its tensors.
    pub fn catalog(&self) -> &Catalog {
        &self.checkpoint.catalog
    }

    /// The same files described in another way, for plans of what is not there yet.
    pub fn with_spec(&self, spec: ModelSpec) -> Self {
        Self { checkpoint: self.checkpoint.clone(), spec, adapter: self.adapter.clone() }
    }

    /// Whether a small model's tokens are this one's, so that it can guess for it ([`Draft::Model`](crate::Draft::Model)): every
    /// number that both have must be the same token. What one has beyond the other's last is padding to that.
    ///
    /// # Errors
    /// [`ErrorKind::Model`]: where they differ; or what is wrong with a tokenizer.
    pub fn check_draft(&self, small: &Self) -> Result<(), Error> {
        let refuse = |why: String| {
            let message = format!("{} cannot guess for this model: {why}", small.path().display());
            Err(Error::new(ErrorKind::Model, message))
        };
        if small.spec.head.absent || small.spec.state_elements() > 0 {
            return refuse("it has no LM head, or keeps recurrent states".to_owned());
        }
        let (Some(own), Some(other)) = (self.tokenizer()?, small.tokenizer()?) else {
            let (own, other) = (self.spec.vocab, small.spec.vocab);
            return match own == other {
                true => Ok(()),
                false => refuse(format!("it has {other} tokens, not {own}, and no tokenizer tells which")),
            };
        };
        for id in 0..own.vocab_size().min(other.vocab_size()) as u32 {
            if let (Some(a), Some(b)) = (own.token_text(id), other.token_text(id))
                && a != b
            {
                return refuse(format!("its token {id} is {b:?}, and this model's {a:?}"));
            }
        }
        Ok(())
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The tokenizer; `None` if the checkpoint has none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        Texts::of(&self.checkpoint).tokenizer()
    }

    /// The chat template; `None` if the checkpoint has none.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken.
    pub fn chat_template(&self, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>, Error> {
        self.chat_template_named(tokenizer, None)
    }

    /// The chat template of a name, where the checkpoint has several; without a name the default.
    ///
    /// # Errors
    /// [`ErrorKind::Text`] if it is broken, or if there is none of that name.
    pub fn chat_template_named(
        &self,
        tokenizer: Option<&Tokenizer>,
        name: Option<&str>,
    ) -> Result<Option<ChatTemplate>, Error> {
        Texts::of(&self.checkpoint).chat_template(tokenizer, name)
    }

    /// The tokens that end an answer: those that `generation_config.json` (else `config.json`) names, the end of a text by
    /// `tokenizer_config.json`, the ids of a GGUF file; in GGUF files, which often name one only, also tokens that are
    /// written as ends of turns are. Where `<|end|>` ends a message within a turn (harmony), it is none of them.
    pub fn end_tokens(&self, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
        let mut ends = self.spec.eos.clone();
        if let Some(tokenizer) = tokenizer {
            ends.extend(tokenizer.eos());
            if let Config::Gguf(_) = &self.checkpoint.config {
                ends.extend(tokenizer.turn_ends());
            }
            if let Some((end, turn_ends)) = tokenizer.message_end() {
                ends.retain(|id| *id != end);
                ends.extend(turn_ends);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Refuses a prompt that is empty or holds token ids outside the vocabulary; `index` is its name in the message.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub fn check_tokens(&self, index: u64, tokens: &[u32]) -> Result<(), Error> {
        check_tokens(&self.spec, index, tokens, 0)
    }

    /// How the model's makers sample and which tokens they rule out: `generation_config.json`, else greedy.
    pub fn sampling(&self) -> Sampling {
        self.makers().0
    }

    /// What of `generation_config.json` changes what transformers answers and is not followed here, a sentence each.
    pub fn sampling_notes(&self) -> Vec<String> {
        self.makers().1
    }

    /// Tokens of an answer at most that the model's makers name in `generation_config.json`.
    pub fn answer_tokens(&self) -> Option<usize> {
        let Config::HuggingFace(hf) = &self.checkpoint.config else { return None };
        makers::answer_tokens(hf.generation.as_ref()?)
    }

    fn makers(&self) -> (Sampling, Vec<String>) {
        let generation = match &self.checkpoint.config {
            Config::HuggingFace(hf) => hf.generation.as_ref(),
            Config::Gguf(_) => None,
        };
        let Some(config) = generation else { return <_>::default() };
        let (sampling, mut notes) = makers::sampling(config, self.spec.vocab);
        notes.extend(makers::length_note(config, self.spec.context_max));
        (sampling, notes)
    }
}

/// Refuses a prompt that cannot be run with `new_tokens` after it.
pub(crate) fn check_tokens(
    spec: &ModelSpec,
    index: u64,
    tokens: &[u32],
    new_tokens: usize,
) -> Result<(), Error> {
    let vocab = spec.vocab;
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, format!("prompt {index}{why}")));
    if tokens.is_empty() {
        return refuse(" is empty: at least one token is needed".to_owned());
    }
    // The last new token is not computed with.
    let positions = tokens.len() + new_tokens.saturating_sub(1);
    if let Some(p) = spec.positions.as_ref().filter(|p| positions > p.rows.saturating_sub(p.offset)) {
        let have = p.rows.saturating_sub(p.offset);
        return refuse(format!(" and its answer take {positions} positions; this model has learned {have}"));
    }
    match tokens.iter().find(|t| **t as usize >= vocab) {
        Some(t) => refuse(format!(": token id {t} is outside the vocabulary of {vocab} tokens")),
        None => Ok(()),
    }
}
