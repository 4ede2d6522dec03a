//! JSON as clients read it line by line, and small responses.

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::problem::Problem;

/// JSON in one line for every client. Some split lines at these characters, which JSON may hold as they are.
pub(crate) fn line(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['\u{2028}', '\u{2029}', '\u{85}']) {
        return text;
    }
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029").replace('\u{85}', "\\u0085")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_finds_a_line_end_inside() {
        let value = Value::from("a\u{2028}b\u{2029}c\u{85}d\ne");
        let text = line(&value);
        assert_eq!(text, r#""a\u2028b\u2029c\u0085d\ne""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
