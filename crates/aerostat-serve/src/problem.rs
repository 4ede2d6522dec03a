//! Errors as OpenAI's clients read them.

use aerostat::ErrorKind;
use aerostat_openai::{Refusal, RefusalKind};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

/// Tells OpenAI's clients whether a request may be sent again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const STOPPED: &str = "stopped";

/// Why a request has no other answer: a status and OpenAI's error object.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<String>,
    /// Seconds after which it may be tried again.
    retry_after: Option<u32>,
    /// The methods that would do.
    allow: Option<&'static str>,
    /// The connection is not to be used again.
    close: bool,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, message, param: None, retry_after: None, allow: None, close: false }
    }

    /// A request that is malformed.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A member whose value cannot be served.
    pub(crate) fn value(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::bad("invalid_value", message) }
    }

    /// The same about a member, at its path.
    pub(crate) fn about(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    /// What is asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path is there, the method is not.
    pub(crate) fn method(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Self { allow: Some(allow), ..problem }
    }

    /// There is too much to do.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
        Self { retry_after: Some(30), ..problem }
    }

    /// Not now.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, seconds: u32) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        Self { retry_after: Some(seconds), ..problem }
    }

    /// The server ends.
    pub(crate) fn stopping() -> Self {
        Self::unavailable(STOPPED, "the request was stopped: the server ends, or somebody cancelled it", 30)
    }

    /// Something that this program made itself is wrong, or the disk is; the log says more.
    pub(crate) fn internal(why: impl std::fmt::Display) -> Self {
        eprintln!("error: {why}");
        let message = "the server failed at this request; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The same, on a connection that ends with it: what is left of the request is not read.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// Somebody stopped the request, or the server ends.
    pub(crate) fn is_stopped(&self) -> bool {
        self.code == STOPPED
    }

    /// What is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body: `{"error": {…}}`.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        }})
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limit_exceeded",
            404 => "not_found_error",
            401 => "authentication_error",
            403 => "permission_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// What its response says beside the body.
    pub(crate) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS {
            headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
        }
        headers.extend(self.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
        headers.extend(self.allow.map(|allow| (ALLOW, HeaderValue::from_static(allow))));
        headers.extend(self.close.then_some((CONNECTION, HeaderValue::from_static("close"))));
        headers
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind() {
            RefusalKind::Invalid => {
                let status = match refusal.code() {
                    "unknown_url" => StatusCode::NOT_FOUND,
                    _ => StatusCode::BAD_REQUEST,
                };
                let problem = Self::new(status, refusal.code(), refusal.message());
                Self { param: refusal.param().map(str::to_owned), ..problem }
            }
            _ => Self::internal(refusal.message()),
        }
    }
}

impl From<&aerostat::Error> for Problem {
    fn from(error: &aerostat::Error) -> Self {
        match error.kind() {
            ErrorKind::Usage => Self::bad("invalid_value", error.to_string()),
            ErrorKind::Budget => Self::bad("context_length_exceeded", error.to_string()),
            ErrorKind::Interrupted => Self::stopping(),
            _ => Self::internal(error),
        }
    }
}
