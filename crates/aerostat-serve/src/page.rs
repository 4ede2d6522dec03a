//! The page at `/`: three files that name nothing outside.

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use hyper::{Response, StatusCode};

use crate::body::Body;
use crate::text::whole;

/// Nothing but what this server sends, and in no frame of others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";
const FRAMES: HeaderName = HeaderName::from_static("x-frame-options");

/// A file of the page: its path, type and text.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/openapi.json", "application/json", include_str!("openapi.json")),
];

/// The file at a path.
pub(crate) fn at(path: &str) -> Option<usize> {
    FILES.iter().position(|(own, ..)| *own == path)
}

/// Whether a file needs no key: the page asks for one, and the document is nobody's but the key's.
pub(crate) fn is_open(file: usize) -> bool {
    FILES.get(file).is_some_and(|(path, ..)| *path != "/openapi.json")
}

/// The response with a file.
pub(crate) fn response(file: usize) -> Response<Body> {
    let (_, kind, text) = FILES.get(file).copied().unwrap_or(("", "text/plain", ""));
    let mut response = whole(StatusCode::OK, kind, text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(FRAMES, HeaderValue::from_static("DENY"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_names_nothing_outside() {
        let page = &FILES[..3];
        assert!(page.iter().map(|(.., text)| text.len()).sum::<usize>() < 40 << 10);
        for (path, _, text) in page {
            for word in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "style=",
                "onclick",
            ] {
                assert!(!text.contains(word), "{path} has {word}");
            }
        }
    }
}
