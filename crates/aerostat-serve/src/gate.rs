//! Who may come in: the name the server is called by, the page a request comes from, and the key it shows.

use std::net::IpAddr;

use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING,
};
use hyper::{StatusCode, Uri};
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// Keys that clients may show, kept as digests.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// The keys of a text, one in a line; blank lines and those that begin with `#` are none. A byte order mark, which some
    /// editors put first, is no part of a key.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(digest).collect())
    }

    /// These keys and others.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that is shown, by its place; the time it takes does not tell how near a wrong one came.
    fn find(&self, shown: &str) -> Option<usize> {
        let shown = digest(shown);
        let mut found = None;
        for (place, key) in self.0.iter().enumerate() {
            let difference = key.iter().zip(&shown).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(place);
            }
        }
        found
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Refuses a request that was sent to another name: a page elsewhere may make a browser take its name for our address.
pub(crate) fn check_host(headers: &HeaderMap, uri: &Uri, allowed: &[String]) -> Result<(), Problem> {
    let bad = |what: &str| Problem::bad("bad_host", format!("{what} Host header")).closing();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().ok_or_else(|| bad("the request has no"))?;
    if hosts.next().is_some() {
        return Err(bad("the request has more than one"));
    }
    let host = host.to_str().unwrap_or("");
    // A whole address in place of a path, as proxies are asked, must name the same host; `CONNECT` has no path at all.
    if uri.authority().is_some_and(|named| uri.scheme().is_none() || named.as_str() != host) {
        let message =
            "the request's target must be a path, or an address of the host that its Host header names";
        return Err(Problem::bad("bad_path", message).closing());
    }
    let name = name_of(host).ok_or_else(|| bad("the request has an empty or malformed"))?;
    let known = name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || allowed.iter().any(|other| other.eq_ignore_ascii_case(&name));
    if known {
        return Ok(());
    }
    let message = "the server does not go by this name; --allow-host names others";
    Err(Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", message).closing())
}

/// The name or number in a Host header, without its port, in lower case.
fn name_of(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, rest)| (name, rest.strip_prefix(':')))?,
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_port = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    (is_port && !name.is_empty() && name.bytes().all(plain)).then(|| name.to_ascii_lowercase())
}

/// Refuses a request that a page of another site sends.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let own = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or("");
        ["http://", "https://"]
            .iter()
            .any(|scheme| origin.strip_prefix(scheme).is_some_and(|o| o.eq_ignore_ascii_case(host)))
    };
    match headers.get_all(ORIGIN).iter().all(own) {
        true => Ok(()),
        false => {
            let message = "pages of other sites may not use this server";
            Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", message).closing())
        }
    }
}

/// Refuses what a header demands and nothing here does: to unpack a body, or to fulfil an expectation.
pub(crate) fn check_demands(headers: &HeaderMap) -> Result<(), Problem> {
    let other_than = |name: HeaderName, known: &str| {
        headers.get_all(name).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
    };
    if other_than(CONTENT_ENCODING, "identity") {
        let message = "a body is sent as it is, without a Content-Encoding";
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
        return Err(problem.closing());
    }
    if other_than(TRANSFER_ENCODING, "chunked") {
        let message = "a body comes whole or chunked, without another Transfer-Encoding";
        return Err(Problem::bad("transfer_encoding", message).closing());
    }
    if other_than(EXPECT, "100-continue") {
        let message = "the only expectation that can be met is `100-continue`";
        let problem = Problem::new(StatusCode::EXPECTATION_FAILED, "expectation_failed", message);
        return Err(problem.closing());
    }
    Ok(())
}

/// The place of the key that a request showed, kept with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyPlace(pub(crate) usize);

/// The place of the key that a request shows; 0 where none is needed.
pub(crate) fn check_key(headers: &HeaderMap, keys: &Keys) -> Result<usize, Problem> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let key = match (shown.next().and_then(|value| value.to_str().ok()), shown.next()) {
        (Some(text), None) => {
            text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        }
        _ => None,
    };
    key.and_then(|(_, key)| keys.find(key.trim())).ok_or_else(|| {
        let message = "the request must show a key of this server: `Authorization: Bearer KEY`";
        Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).closing()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn host_status(pairs: &[(&'static str, &str)]) -> u16 {
        let allowed = ["my.box".to_owned()];
        let checked = check_host(&headers(pairs), &Uri::from_static("/"), &allowed);
        checked.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn names_that_the_server_goes_by_are_let_in() {
        for (host, status) in [
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("[::1]", 200),
            ("localhost", 200),
            ("LOCALHOST.:1", 200),
            ("a.localhost:80", 200),
            ("my.box", 200),
            ("MY.BOX:443", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example:80", 403),
            ("", 400),
            (":80", 400),
            ("a b", 400),
            ("localhost:80:evil", 400),
            ("localhost/..", 400),
            ("[::1", 400),
        ] {
            assert_eq!(host_status(&[("host", host)]), status, "{host}");
        }
        assert_eq!(host_status(&[]), 400);
        assert_eq!(host_status(&[("host", "localhost"), ("host", "localhost")]), 400);
        let absolute =
            |target| check_host(&headers(&[("host", "localhost")]), &Uri::from_static(target), &[]).is_ok();
        assert!(absolute("http://localhost/health"));
        assert!(!absolute("http://evil.example/health") && !absolute("localhost:80"));
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        for (origin, good) in [
            ("http://localhost:8080", true),
            ("https://localhost:8080", true),
            ("http://localhost", false),
            ("http://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let headers = headers(&[("host", "localhost:8080"), ("origin", origin)]);
            assert_eq!(check_origin(&headers).is_ok(), good, "{origin}");
        }
        assert!(check_origin(&headers(&[("host", "a")])).is_ok());
    }

    #[test]
    fn one_of_the_keys_must_be_shown() {
        let marked = Keys::parse("\u{feff}one\r\ntwo\r\n");
        assert_eq!(check_key(&headers(&[("authorization", "Bearer one")]), &marked).ok(), Some(0));
        assert!(Keys::parse("\u{feff}# ours\n \n").is_empty());
        let keys = Keys::parse("# ours\n one \n\ntwo\n");
        let place = |shown: &[(&'static str, &str)]| check_key(&headers(shown), &keys).ok();
        assert_eq!(place(&[("authorization", "Bearer one")]), Some(0));
        assert_eq!(place(&[("authorization", "bearer  two ")]), Some(1));
        for bad in ["", "one", "Bearer", "Bearer on", "Basic one", "Bearer # ours"] {
            assert_eq!(place(&[("authorization", bad)]), None, "{bad}");
        }
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[("authorization", "Bearer one"), ("authorization", "Bearer one")]), None);
        assert_eq!(check_key(&HeaderMap::new(), &Keys::default()).ok(), Some(0));
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }
}
