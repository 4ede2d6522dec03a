//! Requests to the Hub: redirects, which errors are worth another try, and how long to wait before it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::Response;
use ureq::{Agent, Body};

use crate::{Error, ErrorKind, Hub};

/// Longest time to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence of a server before the connection counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Longest pause before another try, also when the server asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a pause looks at the cancel flag.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// Longest chain of redirects.
const REDIRECTS_MAX: usize = 10;

/// Largest listing of a repository, in bytes.
const LISTING_BYTES_MAX: u64 = 64 << 20;

/// The connection pool of one pull.
pub(crate) struct Http<'a> {
    hub: &'a Hub,
    agent: Agent,
    cancel: &'a AtomicBool,
    /// Another worker of the pull has failed.
    stop: AtomicBool,
    /// Some server has answered something: failures from now on are worth waiting for.
    reached: AtomicBool,
}

/// A request that failed, and whether another try may help.
pub(crate) struct Failure {
    error: Error,
    again: bool,
    after: Option<Duration>,
}

/// The tries left of one request and the pauses between them.
pub(crate) struct Backoff<'a> {
    http: &'a Http<'a>,
    retries: u32,
    pause: Duration,
}

impl<'a> Http<'a> {
    pub(crate) fn new(hub: &'a Hub, cancel: &'a AtomicBool) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(hub.proxy.clone())
            .user_agent(concat!("aerostat/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_MAX))
            .max_idle_connections_per_host(hub.connections.max(1))
            .build();
        let (stop, reached) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { hub, agent: config.new_agent(), cancel, stop, reached }
    }

    /// Fails when the caller cancelled or another worker failed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.cancel.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed) {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }

    /// Makes all other workers stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn backoff(&self) -> Backoff<'_> {
        Backoff { http: self, retries: self.hub.retries, pause: self.hub.retry_pause }
    }

    /// The headers of `path`: the last answer before a redirect to another host.
    pub(crate) fn head(&self, path: &str) -> Result<Response<Body>, Error> {
        let mut backoff = self.backoff();
        loop {
            match self.call(true, path, None) {
                Ok(response) => return Ok(response),
                Err(failure) => backoff.pause(failure)?,
            }
        }
    }

    /// The text at `path`.
    pub(crate) fn text(&self, path: &str) -> Result<Vec<u8>, Error> {
        let read = |mut response: Response<Body>| {
            let mut text = Vec::new();
            match response.body_mut().as_reader().take(LISTING_BYTES_MAX).read_to_end(&mut text) {
                Ok(_) => Ok(text),
                Err(e) => Err(Failure::broken(e)),
            }
        };
        let mut backoff = self.backoff();
        loop {
            match self.call(false, path, None).and_then(read) {
                Ok(text) => return Ok(text),
                Err(failure) => backoff.pause(failure)?,
            }
        }
    }

    /// The bytes of `path` in `[start, end)`, or all; the server may send all where a range was asked for (status 200).
    pub(crate) fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Response<Body>, Failure> {
        self.call(false, path, range)
    }

    /// One request with its redirects. The token goes to the endpoint alone, never to a host it redirects to.
    fn call(&self, head: bool, path: &str, range: Option<(u64, u64)>) -> Result<Response<Body>, Failure> {
        self.check()?;
        let home = origin(&self.hub.endpoint);
        let mut url = format!("{}{path}", self.hub.endpoint);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = if head { self.agent.head(&url) } else { self.agent.get(&url) };
            if let Some(token) = self.hub.token.as_ref().filter(|_| origin(&url) == home) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some((start, end)) = range {
                request = request.header("range", format!("bytes={start}-{}", end.saturating_sub(1)));
            }
            let response = request.call().map_err(|e| self.unreachable(e))?;
            self.reached.store(true, Ordering::Relaxed);
            let status = response.status().as_u16();
            match status {
                200 | 206 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let next = redirect(&url, header(&response, "location"))?;
                    if head && origin(&next) != home {
                        return Ok(response);
                    }
                    url = next;
                }
                _ => return Err(self.refused(status, &response)),
            }
        }
        Err(Error::new(ErrorKind::Server, "the server redirects without end").into())
    }

    /// A request that got no answer. Before the first answer of all, waiting is pointless: the Hub is out of reach.
    fn unreachable(&self, error: ureq::Error) -> Failure {
        let message = "cannot reach the Hub. Check the network, HF_ENDPOINT and the proxy settings";
        let again = self.reached.load(Ordering::Relaxed);
        Failure { error: Error::new(ErrorKind::Network, message).caused_by(error), again, after: None }
    }

    /// A request answered with an error.
    fn refused(&self, status: u16, response: &Response<Body>) -> Failure {
        let login = "set HF_TOKEN or log in with `hf auth login`";
        let (kind, message) = match status {
            401 if self.hub.token.is_some() => {
                let what = "the Hub does not accept the token, or it does not cover this repository";
                (ErrorKind::Unauthorised, format!("{what}; check the spelling, or {login}"))
            }
            401 => {
                let what = "no such public repository; if it is private or gated";
                (ErrorKind::Unauthorised, format!("{what}, {login}; otherwise check the spelling"))
            }
            403 => {
                let what = "access refused. A gated model must be asked for on its page";
                (ErrorKind::Forbidden, format!("{what}, and the token must be allowed to read it ({login})"))
            }
            404 => {
                let what = "not found. Check the spelling and the revision";
                (ErrorKind::NotFound, format!("{what}; if it is private, {login}"))
            }
            429 => (ErrorKind::Server, "the Hub limits the rate of requests; try again later".to_owned()),
            _ => (ErrorKind::Server, format!("the server answered with status {status}; try again later")),
        };
        let again = matches!(status, 408 | 429 | 500..=599);
        let after =
            header(response, "retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Failure { error: Error::new(kind, message), again, after }
    }
}

impl Failure {
    /// A connection that broke within an answer.
    pub(crate) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error =
            Error::new(ErrorKind::Network, "the connection broke; pull again to resume").caused_by(error);
        Self { error, again: true, after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false, after: None }
    }
}

impl Backoff<'_> {
    /// Waits before another try, or gives the error back when there is none to be had.
    pub(crate) fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        if !failure.again || self.retries == 0 {
            return Err(failure.error);
        }
        self.retries -= 1;
        let until = Instant::now() + failure.after.unwrap_or(self.pause).min(PAUSE_MAX);
        self.pause = self.pause.saturating_mul(2);
        loop {
            self.http.check()?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(PAUSE_STEP)),
            }
        }
    }
}

/// A header's text, if it is there and is text.
pub(crate) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// `text` as one segment of a URL's path.
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let length = url.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).unwrap_or(url.len() - host);
    url.get(..host + length).unwrap_or(url)
}

/// Where a redirect leads; never from an encrypted connection to a plain one.
fn redirect(from: &str, location: Option<&str>) -> Result<String, Error> {
    let scheme = from.split("://").next().unwrap_or("https");
    let next = match location {
        Some(to) if to.starts_with("//") => format!("{scheme}:{to}"),
        Some(to) if to.starts_with('/') => format!("{}{to}", origin(from)),
        Some(to) if to.starts_with("https://") || (to.starts_with("http://") && scheme == "http") => {
            to.to_owned()
        }
        _ => {
            return Err(Error::new(ErrorKind::Server, "the server redirects to a place that is not allowed"));
        }
    };
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_encrypted_and_origins_are_exact() {
        let cases = [
            ("https://a/x", Some("/y?z"), Some("https://a/y?z")),
            ("https://a:1/x", Some("//b/y"), Some("https://b/y")),
            ("http://a/x", Some("https://b/y"), Some("https://b/y")),
            ("https://a/x", Some("http://b/y"), None),
            ("https://a/x", Some("ftp://b/y"), None),
            ("https://a/x", None, None),
        ];
        for (from, location, want) in cases {
            assert_eq!(redirect(from, location).ok().as_deref(), want, "{from} {location:?}");
        }
        assert_eq!(origin("https://a:1/x/y"), "https://a:1");
        assert_eq!(origin("https://a?x=/"), "https://a");
        assert_ne!(origin("https://a.evil/x"), origin("https://a/x"));
        assert_eq!(escape("refs/pr 1"), "refs%2Fpr%201");
    }
}
