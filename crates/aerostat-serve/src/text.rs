//! JSON as clients read it line by line, and small responses.

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::problem::Problem;

/// JSON in one line for every client.
pub(crate) use aerostat_openai::one_line as line;

/// A response of JSON.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", line(value))
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
