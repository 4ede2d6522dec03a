//! Bodies: responses that are there or come piece by piece, and requests within their bounds.

use std::collections::VecDeque;
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
    /// What it holds of the memory that clients share, until then.
    held: Option<Box<dyn Send>>,
}

enum Content {
    Whole(VecDeque<Bytes>),
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
        Self::pieces(VecDeque::from([bytes]))
    }

    /// A body that is there in pieces.
    pub(crate) fn pieces(mut pieces: VecDeque<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        Self { content: Content::Whole(pieces), done: None, held: None }
    }

    pub(crate) fn live(live: impl Live + 'static) -> Self {
        Self { content: Content::Live(Box::new(live)), done: None, held: None }
    }

    /// The same body, which holds something as long as it is there.
    pub(crate) fn holding(self, held: impl Send + 'static) -> Self {
        let mut body = self;
        body.held = Some(Box::new(held));
        body
    }

    /// The next piece of one that is there; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        match &mut self.content {
            Content::Whole(pieces) => pieces.pop_front(),
            Content::Live(_) => None,
        }
    }

    /// Bytes that it takes, if it is there and holds nothing for them.
    pub(crate) fn unheld(&self) -> usize {
        match &self.content {
            Content::Whole(pieces) if self.held.is_none() => pieces.iter().map(Bytes::len).sum(),
            _ => 0,
        }
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
            Content::Whole(pieces) => Poll::Ready(pieces.pop_front().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Live(live) => live.poll_piece(context).map(|piece| Some(piece?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Content::Live(_) => SizeHint::default(),
        }
    }
}

/// The body of a request of JSON. As long as it is there, it holds what reading it takes of the memory that clients share: a
/// list of many small things takes far more than its text.
pub(crate) struct Json {
    bytes: Vec<u8>,
    _reading: Held,
}

impl std::ops::Deref for Json {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts the bytes of JSON as it comes, the values, and the names among them.
#[derive(Default)]
struct Counter {
    quoted: bool,
    escaped: bool,
    bytes: usize,
    values: usize,
    names: usize,
}

/// What a byte takes beside the body itself until it is a prompt, in thirds: what is held is a third of what is kept for it.
/// Measured in all: 6 for a message, 12 where it is kept, too, 14 where its tokens are cut.
const TEXT_BYTES: usize = 3;
/// What a value takes that was read, about, and the name of one.
const VALUE_BYTES: usize = 32;
const NAME_BYTES: usize = 80;

impl Counter {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' => self.quoted = !self.quoted,
                _ if self.quoted => {}
                b',' | b'[' | b'{' => self.values += 1,
                b':' => self.names += 1,
                _ => {}
            }
        }
    }

    fn bytes(&self) -> usize {
        self.bytes * TEXT_BYTES + self.values * VALUE_BYTES + self.names * NAME_BYTES
    }
}

/// The body of a request of JSON, with what it holds of the memory that clients share.
pub(crate) async fn json_bytes(
    request: Request<Incoming>,
    limits: &Limits,
    holder: &Arc<Holder>,
) -> Result<(Json, Held), Problem> {
    check_json(&request)?;
    let bytes_max = limits.body_bytes_max;
    let too_large = || {
        let message = format!("the body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message).closing()
    };
    if declared(&request).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let (mut held, mut reading, mut counter) = (holder.hold(0)?, holder.hold(0)?, Counter::default());
    let (mut bytes, mut body) = (Vec::new(), request.into_body());
    let begun = Instant::now();
    loop {
        let left = limits.body_time.saturating_sub(begun.elapsed());
        let frame = timeout(left.min(limits.body_idle_time), body.frame()).await;
        let Some(frame) = frame.map_err(|_| slow())? else {
            return Ok((Json { bytes, _reading: reading }, held));
        };
        let frame = frame.map_err(|_| unread())?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        let before = counter.bytes();
        counter.add(data);
        if counter.bytes() + bytes.len() + data.len() > holder.max() {
            let message =
                "reading the body would take more memory than there is for bodies: send less at once";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message).closing());
        }
        held.grow(data.len())?;
        reading.grow(counter.bytes() - before)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_however_a_body_is_cut() {
        let text = r#"{"a": [1, 2, {"b": "[,{\",\\"}], "c": ","}"#;
        for size in [1, 2, 3, 100] {
            let mut counter = Counter::default();
            text.as_bytes().chunks(size).for_each(|piece| counter.add(piece));
            assert_eq!((counter.values, counter.names, counter.quoted), (6, 3, false), "{size}");
        }
    }

    #[test]
    fn a_body_in_pieces_says_how_long_it_is() {
        let pieces = ["ab", "", "c"].map(Bytes::from);
        let mut body = Body::pieces(pieces.into());
        assert_eq!((hyper::body::Body::size_hint(&body).exact(), body.unheld()), (Some(3), 3));
        assert_eq!(body.next_piece(), Some(Bytes::from("ab")));
        assert_eq!(body.next_piece(), Some(Bytes::from("c")));
        assert!(body.next_piece().is_none() && hyper::body::Body::is_end_stream(&body));
        assert_eq!(Body::whole(Bytes::new()).unheld(), 0);
        assert_eq!(Body::whole(Bytes::from("a")).holding(1).unheld(), 0);
    }
}
