//! Chat templates, rendered as `transformers` renders them.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::error::{Error, ErrorKind, guarded};
use crate::hugging_face::{NamedToken, TokenizerConfig, read_json, read_text};
use crate::template::Template;
use crate::template::limits::{Fault, clip};

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or whatever the template knows.
    pub role: String,
    /// The text: a string as a rule, a list of parts or null where a template takes those.
    #[serde(default)]
    pub content: serde_json::Value,
    /// All else the template may look at: `tool_calls`, `name`, `reasoning_content` ….
    #[serde(flatten)]
    pub extra: Map<String, serde_json::Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into().into(), extra: Map::new() }
    }
}

/// The special tokens a template may name, as text. Those that are `None` are undefined in the template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Specials {
    /// `bos_token`, which begins a text.
    pub bos_token: Option<String>,
    /// `eos_token`, which ends a text.
    pub eos_token: Option<String>,
    /// `unk_token`, which stands for what the vocabulary lacks.
    pub unk_token: Option<String>,
    /// `pad_token`, which fills up a batch.
    pub pad_token: Option<String>,
    /// Others by name, such as `image_token`.
    pub additional: Vec<(String, String)>,
}

impl Specials {
    fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let main = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
        ];
        let main = main.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?)));
        main.chain(self.additional.iter().map(|(name, token)| (name.as_str(), token.as_str())))
    }
}

/// A compiled chat template. It is immutable, `Send` and `Sync`.
///
/// ```
/// use aerostat_text::{ChatTemplate, Message, Specials};
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}";
/// let template = ChatTemplate::new(source, Specials { eos_token: Some("</s>".into()), ..Specials::default() })?;
/// let text = template.render(&[Message::new("user", "hi")], false, Default::default())?;
/// assert_eq!(text, "<user>hi</s>");
/// # Ok::<(), aerostat_text::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    template: Arc<Template>,
    specials: Specials,
    /// The time that `strftime_now` tells, in seconds since 1970; `None` for the system's.
    now: Option<i64>,
}

impl ChatTemplate {
    /// Compiles a template. `strftime_now` gives the time of the system's clock, in UTC; see [`ChatTemplate::at`].
    ///
    /// # Errors
    /// `TemplateSyntax`, with the line.
    pub fn new(source: &str, specials: Specials) -> Result<Self, Error> {
        let wrong =
            |fault: Box<Fault>| Error::new(ErrorKind::TemplateSyntax, format!("chat template: {fault}"));
        let gave_up = "chat template: it cannot be read (the template engine gave up)";
        let template =
            guarded(ErrorKind::TemplateSyntax, gave_up, || Template::parse(source).map_err(wrong))?;
        Ok(ChatTemplate { template: Arc::new(template), specials, now: None })
    }

    /// Finds the template of a Hugging Face folder: `chat_template.jinja` first, else the field `chat_template` of
    /// `tokenizer_config.json` (of a list, the one named `default`). `None` if there is none.
    ///
    /// # Errors
    /// `Io` or `Malformed`, naming the file; `TemplateSyntax`.
    pub fn from_hugging_face(
        tokenizer_config: Option<&Path>,
        chat_template_jinja: Option<&Path>,
        special_tokens_map: Option<&Path>,
    ) -> Result<Option<Self>, Error> {
        let config: TokenizerConfig = tokenizer_config.map_or_else(|| Ok(Default::default()), read_json)?;
        let source = match chat_template_jinja {
            Some(path) => Some(read_text(path)?),
            None => default_template(&config.chat_template)?,
        };
        let Some(source) = source else { return Ok(None) };
        let map: Map<String, serde_json::Value> =
            special_tokens_map.map_or_else(|| Ok(Map::new()), read_json)?;
        let token = |named: &NamedToken, name: &str| {
            let mapped =
                || NamedToken::from(map.get(name).cloned().unwrap_or_default()).text().map(str::to_owned);
            named.text().map(str::to_owned).or_else(mapped)
        };
        let others = [
            ("sep_token", &config.sep_token),
            ("cls_token", &config.cls_token),
            ("mask_token", &config.mask_token),
        ];
        let others =
            others.into_iter().filter_map(|(name, named)| Some((name.to_owned(), token(named, name)?)));
        // Tokens of a model's own, such as `image_token`, are given by name.
        let own = config.extra_special_tokens.as_object().into_iter().flatten();
        let own = own.filter_map(|(name, value)| {
            Some((name.clone(), NamedToken::from(value.clone()).text()?.to_owned()))
        });
        let specials = Specials {
            bos_token: token(&config.bos_token, "bos_token"),
            eos_token: token(&config.eos_token, "eos_token"),
            unk_token: token(&config.unk_token, "unk_token"),
            pad_token: token(&config.pad_token, "pad_token"),
            additional: others.chain(own).collect(),
        };
        Self::new(&source, specials).map(Some)
    }

    /// The same template with its clock stopped at a time, in seconds since 1970, that `strftime_now` formats: for
    /// results that can be repeated, or for local time.
    pub fn at(self, seconds: i64) -> Self {
        ChatTemplate { now: Some(seconds), ..self }
    }

    /// Renders a conversation. Members of messages that are null are left out, as `transformers` does. `extra` holds further variables: `tools`, `documents`, `enable_thinking` ….
    ///
    /// # Errors
    /// `TemplateRender`: the template refused the messages (`raise_exception`), failed, or did not come to an end.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: Map<String, serde_json::Value>,
    ) -> Result<String, Error> {
        let null = serde_json::Value::Null;
        let mut context: Map<String, serde_json::Value> = Map::new();
        context.extend(["tools", "documents"].map(|name| (name.to_owned(), null.clone())));
        context.extend(self.specials.named().map(|(name, token)| (name.to_owned(), token.into())));
        context.extend(extra);
        context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        context.insert("messages".to_owned(), messages.iter().map(as_template_sees).collect());
        let system =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
        let now = self.now.unwrap_or_else(system);
        let failed =
            |fault: Box<Fault>| Error::new(ErrorKind::TemplateRender, format!("chat template: {fault}"));
        let gave_up = "chat template: it failed (the template engine gave up)";
        guarded(ErrorKind::TemplateRender, gave_up, || self.template.render(&context, now).map_err(failed))
    }
}

/// A message as the variable `messages` holds it: without what is null, and with reasoning under both names that
/// templates know.
fn as_template_sees(message: &Message) -> serde_json::Value {
    let mut fields = Map::new();
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find_map(|name| message.extra.get(*name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        fields.insert("thinking".to_owned(), reasoning.clone());
    }
    fields.insert("role".to_owned(), message.role.clone().into());
    fields.insert("content".to_owned(), message.content.clone());
    fields.extend(message.extra.clone());
    fields.retain(|_, value| !value.is_null());
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    fields.into()
}

/// The field `chat_template`: a template, or a list of named ones, of which one must be the default.
fn default_template(field: &serde_json::Value) -> Result<Option<String>, Error> {
    let Some(list) = field.as_array() else { return Ok(field.as_str().map(str::to_owned)) };
    let named = |name: &str| {
        let entry = list.iter().find(|entry| entry.get("name").is_some_and(|other| other == name))?;
        entry.get("template")?.as_str().map(str::to_owned)
    };
    if list.is_empty() {
        return Ok(None);
    }
    named("default").map(Some).ok_or_else(|| {
        let names = list.iter().filter_map(|entry| entry.get("name")?.as_str()).take(8);
        let names = clip(&names.collect::<Vec<_>>().join(", "));
        Error::malformed(format!(
            "the chat templates of tokenizer_config.json ({names}) have no default among them"
        ))
    })
}
