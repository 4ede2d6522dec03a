//! Prompts made of the cells of a row: texts with `{NAME}` in them.

use std::sync::Arc;

use aerostat::{ModelFiles, Tokenizer};
use clap::Args;

use crate::encode::Chat;
use crate::failure::Failure;
use crate::prompts::Prompt;

/// What stands for the text, in whichever column it is.
pub(crate) const TEXT: &str = "text";
/// The longest name in braces; what is longer is text.
const NAME_CHARS_MAX: usize = 100;

/// How texts become prompts.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// What the model is given: {text} is the text, {NAME} the cell of a table's column; {{ and }} are braces.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    template: Option<String>,
    /// Give it as the user's message of the model's chat template.
    #[arg(long)]
    chat: bool,
}

impl TemplateArgs {
    /// The template, if there is one.
    pub(crate) fn template(&self) -> Result<Option<Template>, Failure> {
        let Some(text) = &self.template else { return Ok(None) };
        let template = Template::parse(text);
        template.check(text)?;
        Ok(Some(template))
    }

    /// Whether texts become messages of the model's chat template.
    pub(crate) fn is_chat(&self) -> bool {
        self.chat
    }

    /// The chat template, if it is wanted.
    pub(crate) fn chat(
        &self,
        files: &ModelFiles,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Option<Chat>, Failure> {
        match (self.chat, self.chat.then(|| files.chat_template(tokenizer)).transpose()?.flatten()) {
            (true, None) => Err(Failure::usage("--chat: the model has no chat template")),
            (_, template) => Ok(template.map(Arc::new)),
        }
    }

    /// What of these flags changes results, in words.
    pub(crate) fn words(&self) -> String {
        let template =
            self.template.as_ref().map_or_else(String::new, |template| format!(", template {template:?}"));
        format!("{}{template}", if self.chat { "chat" } else { "text" })
    }
}

/// A text in which names in braces stand for cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The cell of the column of this name.
    Cell(String),
}

impl Template {
    /// Reads a template. `{{` and `}}` are braces, and so are braces around anything but a name.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some((name, after)) = name(rest) {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Cell(name.to_owned()));
                rest = after;
            } else {
                plain.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Self(pieces)
    }

    /// The names in it, each once, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Cell(name) if !names.contains(&name.as_str()) => names.push(name.as_str()),
                _ => {}
            }
        }
        names
    }

    /// The template with a cell in the place of each name.
    pub(crate) fn fill<'c>(&self, cell: impl Fn(&str) -> &'c str) -> String {
        let piece = |piece: &'_ Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Cell(name) => cell(name).to_owned(),
        };
        self.0.iter().map(piece).collect()
    }

    /// Bytes of the template with a cell in the place of each name.
    pub(crate) fn bytes<'c>(&self, cell: impl Fn(&str) -> &'c str) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Cell(name) => cell(name).len(),
        };
        self.0.iter().map(piece).fold(0, usize::saturating_add)
    }

    /// The prompt of a text that is in no table.
    pub(crate) fn of_text(&self, prompt: &Prompt) -> Result<Prompt, Failure> {
        let Prompt::Text(text) = prompt else { return Ok(prompt.clone()) };
        match self.names().into_iter().find(|name| *name != TEXT) {
            Some(name) => {
                Err(Failure::usage(format!("--template: {{{name}}} is a column, which only a table has")))
            }
            None => Ok(Prompt::Text(self.fill(|_| text))),
        }
    }

    /// Whether it ends in white space of its own.
    pub(crate) fn ends_in_space(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Text(text)) if text.ends_with(char::is_whitespace))
    }

    /// Refuses a template that no row changes.
    pub(crate) fn check(&self, text: &str) -> Result<(), Failure> {
        if self.names().is_empty() {
            return Err(Failure::usage(format!(
                "--template {text:?}: {{text}} is missing, the place of the text, or {{NAME}}, that of a column"
            )));
        }
        Ok(())
    }
}

/// The name that a text begins with in braces, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let fits = !name.is_empty()
        && name == name.trim()
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.contains(['{', '"', '\'', ':', '\n', '\\']);
    fits.then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_cells_and_other_braces_are_braces() {
        let fill = |text: &str| {
            let cell = |name: &str| match name {
                "text" => "TEXT {title}",
                "a title" => "TITLE",
                _ => "?",
            };
            Template::parse(text).fill(cell)
        };
        for (template, want) in [
            ("{text}", "TEXT {title}"),
            ("a {text} b {a title}\n{text}", "a TEXT {title} b TITLE\nTEXT {title}"),
            ("{{text}} {}", "{text} {}"),
            ("{\"text\": \"{text}\"}", "{\"text\": \"TEXT {title}\"}"),
            ("open { and } {text", "open { and } {text"),
            ("ä{text}ö", "äTEXT {title}ö"),
        ] {
            assert_eq!(fill(template), want, "{template}");
        }
        assert_eq!(Template::parse("{b}{text}{b}").names(), ["b", "text"]);
        assert!(Template::parse("x").check("x").is_err() && Template::parse("{x}").check("").is_ok());
        assert!(Template::parse("{x} is ").ends_in_space() && !Template::parse(" {x}").ends_in_space());
    }
}
