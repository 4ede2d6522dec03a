//! A small Hub: listing, HEAD and ranged GET over files in memory, with a script that may answer in its place.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aerostat_hub::{Hub, ModelId, Progress};
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came, header names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// Whether it asks for the content of `name`.
    pub(crate) fn fetches(&self, name: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/resolve/{COMMIT}/{name}"))
    }

    pub(crate) fn is_head(&self, name: &str) -> bool {
        self.method == "HEAD" && self.path.ends_with(&format!("/{name}"))
    }

    /// The range asked for, end exclusive.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (start, end) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, end.parse::<usize>().ok()? + 1))
    }
}

/// What a script makes of a request.
pub(crate) enum Reply {
    Usual,
    /// A status with headers and no body.
    Status(u16, Vec<(&'static str, String)>),
    /// The usual headers, so many bytes of the body, and the connection is cut.
    CutAfter(usize),
    /// All of the file with status 200.
    IgnoreRange,
    /// The usual answer with one header replaced.
    With(&'static str, String),
    /// Another body for the listing.
    Listing(String),
}

type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct State {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    log: Mutex<Vec<Request>>,
    script: Mutex<Arc<Script>>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

impl Server {
    pub(crate) fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script: Arc<Script> = Arc::new(Box::new(|_| Reply::Usual));
        let files = files.iter().map(|(name, content)| (name.to_string(), content.clone())).collect();
        let state = State { files: Mutex::new(files), log: Mutex::default(), script: Mutex::new(script) };
        let server = Self { url, state: Arc::new(state) };
        let state = server.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                thread::spawn(move || serve(&state, stream));
            }
        });
        server
    }

    pub(crate) fn script(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Arc::new(Box::new(script));
    }

    pub(crate) fn put(&self, name: &str, content: Vec<u8>) {
        self.state.files.lock().unwrap().insert(name.to_owned(), content);
    }

    /// The requests since the last call.
    pub(crate) fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }

    pub(crate) fn hub(&self, cache_dir: &Path) -> Hub {
        let mut hub = Hub::new(&self.url, cache_dir);
        hub.retry_pause = Duration::from_millis(1);
        hub.connections = 3;
        hub
    }
}

/// Content that differs everywhere; as the Hub does, files of 1000 bytes and more are "large": their ETag is a SHA-256.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn etag(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    if content.len() >= 1000 { hex } else { hex[..40].to_owned() }
}

pub(crate) fn id(text: &str) -> ModelId {
    text.parse().unwrap()
}

/// How many bytes of `name` the requests ask for.
pub(crate) fn bytes_asked(log: &[Request], name: &str) -> usize {
    let ranges = log.iter().filter(|request| request.fetches(name)).filter_map(|request| request.range());
    ranges.map(|(start, end)| end - start).sum()
}

/// Counts what it is told, and cancels once `cancel_at` bytes came.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) total: AtomicU64,
    pub(crate) present: AtomicU64,
    pub(crate) advanced: AtomicU64,
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) cancel: AtomicBool,
    pub(crate) cancel_at: Option<u64>,
}

impl Progress for Watch {
    fn started(&self, _files: usize, bytes_total: u64, bytes_present: u64) {
        self.total.store(bytes_total, Ordering::Relaxed);
        self.present.store(bytes_present, Ordering::Relaxed);
    }

    fn advanced(&self, bytes: u64) {
        let now = self.advanced.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.cancel_at.is_some_and(|at| now >= at) {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

fn serve(state: &State, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        state.log.lock().unwrap().push(request.clone());
        let script = state.script.lock().unwrap().clone();
        let reply = script(&request);
        let files = state.files.lock().unwrap().clone();
        if answer(&mut stream, &files, &request, reply).is_none() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let pairs = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Some(Request { method, path, headers })
}

/// Answers a request; none when the connection ends with it.
fn answer(
    stream: &mut TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    request: &Request,
    reply: Reply,
) -> Option<()> {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    let (mut status, mut body) = (404, Vec::new());
    if request.path.starts_with("/api/models/") {
        let sibling = |(name, content): (&String, &Vec<u8>)| {
            format!(r#"{{"rfilename":{name:?},"size":{}}}"#, content.len())
        };
        let siblings: Vec<String> = files.iter().map(sibling).collect();
        body = format!(r#"{{"sha":"{COMMIT}","siblings":[{}],"private":false}}"#, siblings.join(","))
            .into_bytes();
        status = 200;
    } else if let Some(content) = request.path.split_once(COMMIT).and_then(|(_, name)| files.get(&name[1..]))
    {
        headers.insert("etag", format!("\"{}\"", etag(content)));
        headers.insert("x-repo-commit", COMMIT.to_owned());
        status = 200;
        body = content.clone();
        if let (Some((start, end)), false) = (request.range(), matches!(reply, Reply::IgnoreRange)) {
            status = 206;
            headers.insert("content-range", format!("bytes {start}-{}/{}", end - 1, content.len()));
            body = content[start..end].to_vec();
        }
    }
    let mut sent_max = usize::MAX;
    match reply {
        Reply::Usual | Reply::IgnoreRange => {}
        Reply::Status(other, more) => {
            (status, body) = (other, Vec::new());
            headers = more.into_iter().collect();
        }
        Reply::CutAfter(count) => sent_max = count,
        Reply::With(name, value) => drop(headers.insert(name, value)),
        Reply::Listing(text) => body = text.into_bytes(),
    }
    headers.entry("content-length").or_insert(body.len().to_string());
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("HTTP/1.1 {status} X\r\n{lines}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&body[..body.len().min(sent_max)]).ok()?;
    }
    if sent_max < body.len() {
        stream.shutdown(std::net::Shutdown::Both).ok()?;
        return None;
    }
    Some(())
}
