//! JSON as clients read it line by line, and small responses.

use std::collections::VecDeque;
use std::io;

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::problem::Problem;

/// JSON in one line for every client.
pub(crate) use aerostat_openai::one_line as line;

/// Takes what is written, in pieces that can be sent.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    done: VecDeque<Bytes>,
    open: Vec<u8>,
}

const PIECE_BYTES: usize = 64 << 10;

impl Pieces {
    /// All that was written.
    pub(crate) fn finish(mut self) -> VecDeque<Bytes> {
        self.done.push_back(self.open.into());
        self.done
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.len() + bytes.len() > PIECE_BYTES && !self.open.is_empty() {
            self.done.push_back(std::mem::take(&mut self.open).into());
        }
        self.open.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A response of JSON.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", line(value))
}

/// A response of JSON that is written already.
pub(crate) fn json_body(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response that tells a problem.
pub(crate) fn problem_response(problem: &Problem) -> Response<Body> {
    let mut response = json_response(problem.status(), &problem.body());
    response.headers_mut().extend(problem.headers().into_iter().map(|(name, value)| (Some(name), value)));
    response
}

/// A response that is there at once.
pub(crate) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
