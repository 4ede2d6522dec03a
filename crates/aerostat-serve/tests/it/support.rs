//! A server over a tiny model, and a client that takes every byte as it comes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerostat::{ModelFiles, Options};
use aerostat_serve::{Config, Server};
use serde_json::{Value, json};

/// A server that ends with the test.
pub(crate) struct Bench {
    pub(crate) server: Server,
    /// The model's folder, where it is made for the test.
    pub(crate) _folder: Option<tempfile::TempDir>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A model with a tokenizer and a chat template, 320 tokens, a context of 512.
pub(crate) fn files() -> Arc<ModelFiles> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
    Arc::new(ModelFiles::open(&path).unwrap())
}

/// The same model with Qwen's chat template.
pub(crate) fn talking() -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root.join("fixtures/chat")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let template = root.join("crates/aerostat-text/tests/data/chat/templates/qwen3.jinja");
    std::fs::copy(template, folder.path().join("chat_template.jinja")).unwrap();
    folder
}

/// The same model with another tensor's bytes, in a folder that is made.
pub(crate) fn other_files(folder: &Path) -> Arc<ModelFiles> {
    std::fs::create_dir(folder).unwrap();
    for entry in std::fs::read_dir(files().path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    Arc::new(ModelFiles::open(folder).unwrap())
}

pub(crate) fn options() -> Options {
    Options { memory_bytes: Some(1 << 30), threads: Some(1), ..Options::default() }
}

/// On a port of its own.
pub(crate) fn config() -> Config {
    Config { port: 0, max_new_tokens: 24, sequences_max: 8, ..Config::new("tiny") }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::of(config, options())
    }

    pub(crate) fn of(config: Config, options: Options) -> Self {
        Self::over(config, options, files(), None)
    }

    /// Of a model whose template knows functions and thoughts.
    pub(crate) fn talking(config: Config) -> Self {
        let folder = talking();
        let files = Arc::new(ModelFiles::open(folder.path()).unwrap());
        Self::over(config, options(), files, Some(folder))
    }

    /// Of one of the fixtures.
    pub(crate) fn fixture(name: &str, config: Config) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        Self::over(config, options(), Arc::new(ModelFiles::open(&path).unwrap()), None)
    }

    /// Of a model that is open already.
    pub(crate) fn model(config: Config, files: Arc<ModelFiles>) -> Self {
        Self::over(config, options(), files, None)
    }

    fn over(
        config: Config,
        options: Options,
        files: Arc<ModelFiles>,
        folder: Option<tempfile::TempDir>,
    ) -> Self {
        let mut server = Server::start(config, files, options).unwrap();
        server.open().unwrap();
        Self { server, _folder: folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(&request("POST", path, "", &body.to_string()))
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send(&format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    /// Uploads a batch file.
    pub(crate) fn upload(&self, text: &str) -> String {
        let answer = self.send(&form(&[("purpose", None, "batch"), ("file", Some("in.jsonl"), text)]));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a batch has ended, and gives it.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let mut batch = Value::Null;
        until("the end of a batch", || {
            batch = self.get(&format!("/v1/batches/{id}")).json();
            matches!(batch["status"].as_str(), Some("completed" | "failed" | "cancelled"))
        });
        batch
    }

    /// The lines of a file by their custom_id.
    pub(crate) fn results(&self, file: &Value) -> BTreeMap<String, Value> {
        let answer = self.get(&format!("/v1/files/{}/content", file.as_str().unwrap()));
        assert_eq!(answer.status, 200, "{answer:?}");
        by_custom_id(&answer.body)
    }

    /// Sends what is given, byte for byte.
    pub(crate) fn send(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        // A server that answers early does not read the rest.
        let _ = stream.write_all(text.as_bytes());
        Answer::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

/// The text of a request with a body of JSON.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Lines by their custom_id, none twice, without the time they were made at.
pub(crate) fn by_custom_id(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(body) = line.pointer_mut("/response/body").and_then(Value::as_object_mut) {
            body.remove("created");
        }
        let id = line["custom_id"].as_str().unwrap_or("none").to_owned();
        assert!(found.insert(id.clone(), line).is_none(), "{id} is there twice");
    }
    found
}

/// A form to `/v1/files`: names, names of files, texts.
pub(crate) fn form(fields: &[(&str, Option<&str>, &str)]) -> String {
    let mut body = String::new();
    for (name, file, text) in fields {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body += &format!("--xyz\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n");
    }
    body += "--xyz--\r\n";
    format!(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=xyz\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A line of a batch file.
pub(crate) fn line(id: &str, body: &Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string()
}

/// A chat of one question.
pub(crate) fn chat(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "question 1"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

impl Answer {
    /// Reads to the end of the connection. What is cut off by it is as good as nothing.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection that is reset has given what it has.
        let _ = stream.read_to_end(&mut bytes);
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Self { status: 0, head: text, body: String::new() };
        };
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body =
            if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The code of the error that it is.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The events of a stream that has types, by which it ends.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        events.map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The chunks of a stream, which ends as streams do.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut events: Vec<&str> = events.collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{}", self.body);
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// A body of chunks put together, the last of which must be there.
fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    loop {
        let Some((size, rest)) = text.split_once("\r\n") else { return format!("{whole}<cut off>") };
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    // Disks that others use, too, take their time.
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(240), "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}
