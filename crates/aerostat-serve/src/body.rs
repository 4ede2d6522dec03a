//! Bodies: responses that are there or come piece by piece, and requests within their bounds.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::time::timeout;

use crate::config::Limits;
use crate::held::{Held, Holder};
use crate::problem::Problem;

/// The body of a response. What goes with the connection is kept until the last byte.
pub(crate) struct Body {
    content: Content,
    /// Told when the response has been written or given up.
    done: Option<Box<dyn FnOnce() + Send>>,
}

enum Content {
    Whole(Option<Bytes>),
    Live(Box<dyn Live>),
}

/// A body in the making. Dropping it says that nobody wants the rest.
pub(crate) trait Live: Send {
    /// The next piece; `None` at the end. An error breaks the connection.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;
}

/// The response cannot be finished.
#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer failed after it had begun")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), done: None }
    }

    pub(crate) fn live(live: impl Live + 'static) -> Self {
        Self { content: Content::Live(Box::new(live)), done: None }
    }

    /// The same body, which tells when it is done with.
    pub(crate) fn then(self, done: impl FnOnce() + Send + 'static) -> Self {
        let mut body = self;
        body.done = Some(Box::new(done));
        body
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.get_mut().content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Live(live) => live.poll_piece(context).map(|piece| Some(piece?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Live(_) => SizeHint::default(),
        }
    }
}

/// The body of a request of JSON, with what it holds of the memory that clients share.
pub(crate) async fn json_bytes(
    request: Request<Incoming>,
    limits: &Limits,
    holder: &Arc<Holder>,
) -> Result<(Vec<u8>, Held), Problem> {
    check_json(&request)?;
    let bytes_max = limits.body_bytes_max;
    let too_large = || {
        let message = format!("the body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message).closing()
    };
    if declared(&request).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let mut held = holder.hold(0)?;
    let (mut bytes, mut body) = (Vec::new(), request.into_body());
    let begun = Instant::now();
    loop {
        let left = limits.body_time.saturating_sub(begun.elapsed());
        let frame = timeout(left.min(limits.body_idle_time), body.frame()).await;
        let Some(frame) = frame.map_err(|_| slow())? else { return Ok((bytes, held)) };
        let frame = frame.map_err(|_| unread())?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        held.grow(data.len())?;
        bytes.extend_from_slice(data);
    }
}

/// A body that came too slowly.
pub(crate) fn slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body came too slowly").closing()
}

/// A body that broke off or is not well formed.
pub(crate) fn unread() -> Problem {
    Problem::bad("body_unreadable", "the body broke off or is malformed").closing()
}

/// The bytes that a body is said to have.
pub(crate) fn declared(request: &Request<Incoming>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a body that is not said to be JSON: a page of another site can send others without asking.
fn check_json(request: &Request<Incoming>) -> Result<(), Problem> {
    let mut types = request.headers().get_all(CONTENT_TYPE).iter();
    let is_json = |value: &hyper::header::HeaderValue| {
        let kind = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    match (types.next(), types.next()) {
        (Some(kind), None) if is_json(kind) => Ok(()),
        _ => {
            let message = "the body must be JSON, and Content-Type must say application/json";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).closing())
        }
    }
}
