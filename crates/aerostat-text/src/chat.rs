//! Chat templates, rendered as `transformers` renders them.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::error::{Error, ErrorKind, guarded};
use crate::hugging_face::{NamedToken, TokenizerConfig};
use crate::read::{Small, read_json, read_text};
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
    /// As it is written.
    source: Arc<str>,
    /// The one that is taken where there are tools, if another.
    with_tools: Option<Arc<Template>>,
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
        let (template, source) = (Arc::new(parse(source)?), Arc::from(source));
        Ok(ChatTemplate { template, source, with_tools: None, specials, now: None })
    }

    /// The template as it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Finds the template of a Hugging Face folder: `chat_template.jinja` first, then the field `chat_template` of
    /// `tokenizer_config.json`, then that of `chat_template.json` (either file as `chat_template`). `None` if there is
    /// none. Of several the one named `default` is taken, and with `tools` the one named `tool_use`.
    ///
    /// # Errors
    /// `Io` or `Malformed`, naming the file; `TemplateSyntax`.
    pub fn from_hugging_face(
        tokenizer_config: Option<&Path>,
        chat_template: Option<&Path>,
        special_tokens_map: Option<&Path>,
    ) -> Result<Option<Self>, Error> {
        Self::named_from_hugging_face(tokenizer_config, chat_template, special_tokens_map, None)
    }

    /// The same for the template of a name, where there are several.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::from_hugging_face`], and `Malformed` if there is none of that name.
    pub fn named_from_hugging_face(
        tokenizer_config: Option<&Path>,
        chat_template: Option<&Path>,
        special_tokens_map: Option<&Path>,
        name: Option<&str>,
    ) -> Result<Option<Self>, Error> {
        let config: TokenizerConfig = tokenizer_config.map_or_else(|| Ok(Default::default()), read_json)?;
        let is_json = |path: &&Path| path.extension().is_some_and(|extension| extension == "json");
        let field = match (chat_template.filter(|path| !is_json(path)), chat_template.filter(is_json)) {
            (Some(jinja), _) => read_text(jinja)?.into(),
            (None, Some(json)) if config.chat_template.0.is_null() => {
                let file: Small = read_json(json)?;
                file.0.get("chat_template").cloned().unwrap_or_default()
            }
            _ => config.chat_template.0.clone(),
        };
        let Some(source) = chosen_template(&field, name)? else { return Ok(None) };
        let map: Small = special_tokens_map.map_or_else(|| Ok(Small::default()), read_json)?;
        let token = |named: &NamedToken, name: &str| {
            let mapped = || {
                NamedToken::from(Small(map.0.get(name).cloned().unwrap_or_default()))
                    .text()
                    .map(str::to_owned)
            };
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
        let own = config.extra_special_tokens.0.as_object().into_iter().flatten();
        let own = own.filter_map(|(name, value)| {
            Some((name.clone(), NamedToken::from(Small(value.clone())).text()?.to_owned()))
        });
        let specials = Specials {
            bos_token: token(&config.bos_token, "bos_token"),
            eos_token: token(&config.eos_token, "eos_token"),
            unk_token: token(&config.unk_token, "unk_token"),
            pad_token: token(&config.pad_token, "pad_token"),
            additional: others.chain(own).collect(),
        };
        let mut template = Self::new(&source, specials)?;
        if name.is_none()
            && let Some(source) = named_template(&field, "tool_use")
        {
            template.with_tools = Some(Arc::new(parse(&source)?));
        }
        Ok(Some(template))
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
        let with_tools =
            self.with_tools.as_ref().filter(|_| context.get("tools").is_some_and(|t| !t.is_null()));
        let template = with_tools.unwrap_or(&self.template);
        guarded(ErrorKind::TemplateRender, gave_up, || template.render(&context, now).map_err(failed))
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

fn parse(source: &str) -> Result<Template, Error> {
    let wrong = |fault: Box<Fault>| Error::new(ErrorKind::TemplateSyntax, format!("chat template: {fault}"));
    let gave_up = "chat template: it cannot be read (the template engine gave up)";
    guarded(ErrorKind::TemplateSyntax, gave_up, || Template::parse(source).map_err(wrong))
}

/// The templates by name in a field `chat_template`: a list of objects with a name each, or an object.
fn named_templates(field: &serde_json::Value) -> Vec<(&str, Option<&str>)> {
    let listed = field.as_array().into_iter().flatten();
    let listed = listed.filter_map(|entry| {
        Some((entry.get("name")?.as_str()?, entry.get("template").and_then(|text| text.as_str())))
    });
    let keyed = field.as_object().into_iter().flatten().map(|(name, text)| (name.as_str(), text.as_str()));
    listed.chain(keyed).collect()
}

fn named_template(field: &serde_json::Value, name: &str) -> Option<String> {
    let templates = named_templates(field);
    let (_, source) = templates.into_iter().find(|(other, source)| *other == name && source.is_some())?;
    source.map(str::to_owned)
}

/// The template of a field `chat_template`: the only one, the one of the name, or the one named `default`.
fn chosen_template(field: &serde_json::Value, name: Option<&str>) -> Result<Option<String>, Error> {
    let several = field.is_array() || field.is_object();
    let wanted = name.unwrap_or("default");
    if !several {
        return match (field.as_str(), name) {
            (_, Some(name)) if name != "default" => Err(Error::malformed(format!(
                "there is no chat template named {:?}: the model has one at most, without a name",
                clip(name)
            ))),
            (source, _) => Ok(source.map(str::to_owned)),
        };
    }
    let templates = named_templates(field);
    if templates.is_empty() && name.is_none() {
        return Ok(None);
    }
    named_template(field, wanted).map(Some).ok_or_else(|| {
        let names: Vec<&str> = templates.iter().map(|(name, _)| *name).take(8).collect();
        let (names, wanted) = (clip(&names.join(", ")), clip(wanted));
        Error::malformed(format!(
            "the model has several chat templates ({names}), none of them named {wanted}; choose one with \
             --template-name"
        ))
    })
}
