//! From prompts to token ids, and what is refused before a model is loaded for it.

use std::sync::Arc;

use aerostat::{ChatTemplate, Message, ModelFiles, Tokenizer};

use crate::failure::Failure;
use crate::options::GenerationArgs;
use crate::output::{self, OutputArgs};
use crate::prompts::Prompt;

/// A chat template that several share.
pub(crate) type Chat = Arc<ChatTemplate>;

/// Turns texts and conversations into token ids, with a tokenizer and perhaps a chat template.
pub(crate) struct Encoder<'a> {
    tokenizer: Option<&'a Tokenizer>,
    template: Option<Chat>,
    system: Option<&'a str>,
    /// Texts with more tokens are refused before they are tokenised whole.
    tokens_max: usize,
}

impl<'a> Encoder<'a> {
    /// Without a chat template: a text gets only the special tokens that the model expects around one.
    pub(crate) fn plain(tokenizer: Option<&'a Tokenizer>) -> Self {
        Self { tokenizer, template: None, system: None, tokens_max: usize::MAX }
    }

    /// Through a chat template, if there is one: a text is the user's message, and an answer follows.
    pub(crate) fn through(self, template: Option<Chat>) -> Self {
        Self { template, ..self }
    }

    /// The tokenizer, if there is one.
    pub(crate) fn tokenizer(&self) -> Option<&'a Tokenizer> {
        self.tokenizer
    }

    /// Whether there is a chat template.
    pub(crate) fn chat(&self) -> bool {
        self.template.is_some()
    }

    /// Whether what the chat template writes before an answer ends in white space.
    pub(crate) fn ends_in_space(&self) -> Result<bool, Failure> {
        let Some(template) = &self.template else { return Ok(false) };
        let text = template.render(&[Message::new("user", "text")], true, Default::default());
        Ok(text.map_err(aerostat::Error::from)?.ends_with(char::is_whitespace))
    }

    /// For texts of so many tokens at most.
    pub(crate) fn within(self, tokens_max: usize) -> Self {
        Self { tokens_max, ..self }
    }

    /// With the model's chat template, unless it has none or the user wants none.
    pub(crate) fn new(
        files: &ModelFiles,
        tokenizer: Option<&'a Tokenizer>,
        args: &'a GenerationArgs,
        output: &OutputArgs,
    ) -> Result<Self, Failure> {
        let name = args.template_name.as_deref();
        let template = if args.raw { None } else { files.chat_template_named(tokenizer, name)? };
        if template.is_none() && args.system.is_some() {
            let why = if args.raw { "with --raw" } else { "the model has no chat template" };
            output::note(output, &format!("--system has no effect: {why}"));
        } else if template.is_none() && !args.raw {
            output::note(output, "the model has no chat template: it goes on with the text as it is");
        }
        let template = template.map(Arc::new);
        Ok(Self { tokenizer, template, system: args.system.as_deref(), tokens_max: usize::MAX })
    }

    /// The messages that a conversation begins with: the system message, if the user gives one.
    pub(crate) fn opening(&self) -> Vec<Message> {
        self.system.map(|text| Message::new("system", text)).into_iter().collect()
    }

    /// The token ids of a prompt.
    pub(crate) fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        match prompt {
            Prompt::TokenIds(ids) => Ok(ids.clone()),
            Prompt::Text(text) if self.template.is_some() && !text.is_empty() => {
                let mut messages = self.opening();
                messages.push(Message::new("user", text.as_str()));
                self.messages(&messages)
            }
            Prompt::Text(text) if self.template.is_some() => {
                Err(Failure::usage(format!("the prompt is empty: {text:?}; give some text, or --raw")))
            }
            Prompt::Text(text) => self.text(text, true),
        }
    }

    /// The token ids of a text that follows another one: without special tokens.
    pub(crate) fn continuation(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.text(text, false)
    }

    /// The token ids of a conversation that awaits an answer. Without a template its texts follow each other as lines.
    pub(crate) fn messages(&self, messages: &[Message]) -> Result<Vec<u32>, Failure> {
        match &self.template {
            Some(template) => {
                let text =
                    template.render(messages, true, Default::default()).map_err(aerostat::Error::from)?;
                // The template writes the special tokens out.
                self.text(&text, false)
            }
            None => {
                let lines = messages.iter().filter(|m| m.role != "system").filter_map(|m| m.content.as_str());
                self.text(&lines.map(|line| format!("{line}\n")).collect::<String>(), true)
            }
        }
    }

    fn text(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Failure> {
        let tokenizer = self.tokenizer.ok_or_else(|| Failure::failed("the model has no tokenizer"))?;
        if let Some(tokens) = aerostat_openai::longer_than(tokenizer, text, self.tokens_max) {
            let message = format!(
                "more than {tokens} tokens do not fit a context of {}; see --context",
                self.tokens_max
            );
            return Err(Failure::usage(message));
        }
        Ok(tokenizer.encode(text, add_special).map_err(aerostat::Error::from)?)
    }
}

/// How long a sequence may be, in tokens: as the user names it, else as the model was made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    named: Option<usize>,
    made_for: usize,
}

impl Room {
    /// What `--context` names, if it does, and what the model was made for.
    pub(crate) fn new(named: Option<usize>, made_for: usize) -> Self {
        Self { named, made_for }
    }

    /// Tokens of a sequence at most, prompt and answer.
    pub(crate) fn tokens(self) -> usize {
        self.named.unwrap_or(self.made_for)
    }

    /// Refuses a prompt that is longer than that.
    pub(crate) fn check(self, prompt_tokens: usize) -> Result<(), Failure> {
        if prompt_tokens <= self.tokens() {
            return Ok(());
        }
        let message = match self.named {
            Some(context) => format!(
                "a prompt of {prompt_tokens} tokens does not fit a context of {context}; raise --context"
            ),
            None => format!(
                "a prompt of {prompt_tokens} tokens; the model was made for {}: shorten it, or name a longer context \
                 if the model bears one: --context {}",
                self.made_for,
                prompt_tokens.saturating_add(256).next_multiple_of(256)
            ),
        };
        Err(Failure::usage(message))
    }

    /// The tokens that an answer may have after a prompt: as many as were `asked` for, as far as a context that was named
    /// has room; without a number, up to `most`, as far as there is room. An error if the model has none.
    pub(crate) fn answer(
        self,
        prompt_tokens: usize,
        asked: Option<usize>,
        most: usize,
    ) -> Result<usize, Failure> {
        self.check(prompt_tokens)?;
        let room = match asked {
            // The number is the user's word for it.
            Some(_) if self.named.is_none() => usize::MAX,
            _ => self.tokens() - prompt_tokens,
        };
        let tokens = asked.unwrap_or(most).min(room);
        if tokens == 0 && asked != Some(0) && self.named.is_none() {
            let message = format!(
                "the {prompt_tokens} tokens fill the context of {}: no room for an answer; --context names a longer one",
                self.tokens()
            );
            return Err(Failure::usage(message));
        }
        Ok(tokens)
    }

    /// Why an answer of so many tokens was cut, and which flag makes it longer.
    pub(crate) fn cut(self, prompt_tokens: usize, answer_tokens: usize) -> String {
        if prompt_tokens + answer_tokens == self.tokens() {
            return format!("stopped at a context of {} tokens: --context", self.tokens());
        }
        format!("stopped at {answer_tokens} tokens: --max-new-tokens")
    }
}
