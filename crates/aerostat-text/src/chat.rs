//! Chat templates, rendered as `transformers` renders them.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, ErrorKind as JinjaKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::error::{Error, ErrorKind, guarded};
use crate::hugging_face::{NamedToken, TokenizerConfig, read_json, read_text};
use crate::python;

/// Instructions a rendering may take: some thousand times what a long conversation needs.
const FUEL: u64 = 20_000_000;

/// The longest text a template may render.
const OUTPUT_BYTES_MAX: usize = 256 << 20;

/// The name of the one template of an environment.
const NAME: &str = "chat_template";

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
pub struct ChatTemplate {
    environment: Environment<'static>,
    specials: Specials,
}

impl ChatTemplate {
    /// Compiles a template. `strftime_now` gives the time of the system's clock, in UTC; see [`ChatTemplate::at`].
    ///
    /// # Errors
    /// `TemplateSyntax`, with the line.
    pub fn new(source: &str, specials: Specials) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let wrong = |error: minijinja::Error| {
            Error::new(ErrorKind::TemplateSyntax, format!("chat template: {}", describe(&error)))
        };
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(wrong)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(|out, _, value| python::print(out, value));
        environment.add_filter("tojson", |value: Value, options: Kwargs| python::tojson(&value, options));
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(JinjaKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(wrong)?;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
        Ok(ChatTemplate { environment, specials }.with_clock(now))
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
            None => default_template(&config.chat_template),
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
        self.with_clock(move || seconds)
    }

    /// Renders a conversation. `extra` holds further variables: `tools`, `documents`, `enable_thinking` ….
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
        let failed = |error: minijinja::Error| {
            Error::new(ErrorKind::TemplateRender, format!("chat template: {}", describe(&error)))
        };
        let gave_up = "chat template: it failed (the template engine gave up)";
        guarded(ErrorKind::TemplateRender, gave_up, || {
            let template = self.environment.get_template(NAME).map_err(failed)?;
            let mut output = Capped(Vec::new());
            template.render_captured_to(Value::from(Serde(&context)), &mut output).map_err(failed)?;
            Ok(String::from_utf8_lossy(&output.0).into_owned())
        })
    }

    fn with_clock(mut self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.environment.add_function("strftime_now", move |format: &str| python::strftime(format, now()));
        self
    }
}

/// A message as the variable `messages` holds it: reasoning is found under both names templates know.
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
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    fields.into()
}

/// The field `chat_template`: a template, or a list of named ones.
fn default_template(field: &serde_json::Value) -> Option<String> {
    let named = |list: &Vec<serde_json::Value>| {
        let default = list.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
        default.get("template")?.as_str().map(str::to_owned)
    };
    field.as_str().map(str::to_owned).or_else(|| named(field.as_array()?))
}

/// `{% generation %}` … `{% endgeneration %}` marks what a model wrote, for training. The marks become a scope.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let renamed =
            [("generation", "with"), ("endgeneration", "endwith")].into_iter().find_map(|(from, to)| {
                let after = word.strip_prefix(from)?;
                after.trim_start().trim_start_matches(['-', '+']).starts_with("%}").then_some((after, to))
            });
        rest = tag;
        if let Some((after, to)) = renamed {
            out.push_str(&tag[..tag.len() - word.len()]);
            out.push_str(to);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// What a template engine's error says, and where.
fn describe(error: &minijinja::Error) -> String {
    let what = match error.kind() {
        JinjaKind::OutOfFuel => format!("it did not end within {FUEL} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

/// Takes up to `OUTPUT_BYTES_MAX` bytes, and fails past them.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(format!("it rendered more than {OUTPUT_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
