//! Why a request is not served, and the error object that says so.

use std::fmt;

use serde_json::{Value, json};

/// Characters of a message or of a path at most: what is quoted from a request may be as long as the request.
const CHARS_MAX: usize = 300;

/// Why a request is not served: a short code for programs, a sentence for people, and the field it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: RefusalKind,
    code: &'static str,
    message: String,
    param: Option<String>,
}

/// Whose fault a [`Refusal`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The request's: it is malformed, asks for what is not served, or does not fit the context.
    Invalid,
    /// Nobody's: it was a good request, and it failed when it was run.
    Failed,
    /// Ours: something that this program made itself is missing or of the wrong kind. Never the request's.
    Defect,
}

impl Refusal {
    /// A bad request, with a code of its own.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Invalid, code, message: clip(message.into()), param: None }
    }

    /// A field whose value cannot be served; `param` is its path, such as `messages[0].content`.
    pub fn value(param: &str, message: impl Into<String>) -> Self {
        Self::new("invalid_value", message).about(param)
    }

    /// A field, or a value of one, that is well formed but not served here; `param` is its path.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::new("unsupported_parameter", message).about(param)
    }

    /// A field that must be there and is not; `param` is its path.
    pub fn missing(param: &str) -> Self {
        Self::new("missing_parameter", format!("`{param}` is missing")).about(param)
    }

    /// A good request that failed while it was run.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Failed, ..Self::new("failed", message) }
    }

    /// A defect of this program.
    pub fn defect(what: impl fmt::Display) -> Self {
        let message = format!("a defect of aerostat: {what}");
        Self { kind: RefusalKind::Defect, ..Self::new("internal_error", message) }
    }

    /// The same refusal, said to be about the field at `param`.
    pub fn about(self, param: &str) -> Self {
        Self { param: Some(clip(param.to_owned())), ..self }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }

    /// A short name for programs, such as `invalid_value`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The path of the field it is about, such as `response_format.json_schema`, if it is about one.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The HTTP status that goes with it.
    pub fn status(&self) -> u16 {
        match self.kind {
            RefusalKind::Invalid => 400,
            RefusalKind::Failed | RefusalKind::Defect => 500,
        }
    }

    /// The body of the response: `{"error": {"message", "type", "param", "code"}}`.
    pub fn body(&self) -> Value {
        let kind = match self.kind {
            RefusalKind::Invalid => "invalid_request_error",
            RefusalKind::Failed | RefusalKind::Defect => "server_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

/// A text, cut where it is too long for a message.
fn clip(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_the_error_object_of_openai() {
        let refusal = Refusal::value("n", "`n` is 0");
        assert_eq!(refusal.status(), 400);
        let error = json!({"error": {"message": "`n` is 0", "type": "invalid_request_error", "param": "n",
            "code": "invalid_value"}});
        assert_eq!(refusal.body(), error);
        let failed = Refusal::failed("the disk is gone");
        assert_eq!((failed.status(), &failed.body()["error"]["type"]), (500, &json!("server_error")));
        assert_eq!(failed.body()["error"]["param"], Value::Null);
    }

    #[test]
    fn no_message_is_as_long_as_the_request_that_it_is_about() {
        let refusal = Refusal::unsupported(&"é".repeat(100_000), "n".repeat(100_000));
        assert!(refusal.body().to_string().chars().count() < 2 * CHARS_MAX + 200);
    }
}
