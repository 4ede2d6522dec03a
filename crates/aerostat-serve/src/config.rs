//! How a server is set up.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aerostat::Share;

use crate::error::{Error, ErrorKind};
use crate::gate::Keys;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen at. Other than a loopback address it needs a key.
    pub host: IpAddr,
    /// The port to listen at; 0: any that is free.
    pub port: u16,
    /// What clients must show; none: they need not.
    pub keys: Keys,
    /// Names that clients may call this server by, beside `localhost` and numbers.
    pub allow_hosts: Vec<String>,
    /// What clients call the model; the first is what answers call it. At least one.
    pub names: Vec<String>,
    /// Take what vLLM takes and OpenAI refuses; members that are not known are ignored and named in a header.
    pub lenient: bool,
    /// Each sweep is held up for so long, which tells how patient clients are with a model that is far larger.
    pub sweep_delay: Duration,
    /// Speak Ollama's API, too.
    pub ollama: bool,
    /// The folder for files and batches; `None`: neither is served.
    pub data: Option<PathBuf>,
    /// Bytes that files may take together.
    pub data_bytes_max: u64,
    /// Days that files and results are kept; `None`: until they are deleted.
    pub keep_days: Option<u32>,
    /// Tokens of a sequence at most, prompt and answer; `None`: what the model was made for, or 8,192 if that is less.
    pub context: Option<usize>,
    /// Tokens of a chat's answer at most, where the request does not say.
    pub max_new_tokens: usize,
    /// Sequences that the memory is planned for, as far as it goes.
    pub sequences_max: usize,
    /// Bounds that tests make small.
    pub limits: Limits,
}

/// Bounds of what clients may do. Bytes and times are those of one request or connection unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Requests under way or waiting, together.
    pub requests_max: usize,
    /// Sequences of a request.
    pub parts_max: usize,
    /// Bytes of all headers.
    pub header_bytes_max: usize,
    /// Bytes of a body, but for uploads.
    pub body_bytes_max: usize,
    /// Bytes of an uploaded file.
    pub file_bytes_max: u64,
    /// Bytes that requests hold together, from their bodies to their prompts.
    pub held_bytes_max: usize,
    /// Bytes of a grammar.
    pub grammar_bytes_max: usize,
    /// From the first byte of a request to the last of its headers.
    pub header_time: Duration,
    /// Between two requests of a connection.
    pub idle_time: Duration,
    /// Between two pieces of a body.
    pub body_idle_time: Duration,
    /// From the first piece of a body to the last; uploads have more.
    pub body_time: Duration,
    /// A client that takes nothing for so long is let go.
    pub write_time: Duration,
    /// Between two bytes of an answer that is waited for.
    pub sign_time: Duration,
    /// Between two chunks of a stream.
    pub chunk_time: Duration,
    /// After so long an answer that is not streamed begins, whatever will come of it.
    pub early_time: Duration,
    /// What answers are given at the end, after the model is closed.
    pub goodbye_time: Duration,
    /// A request whose client has gone and may ask again goes on for so long.
    pub orphan_time: Duration,
    /// Between two looks at how far requests are.
    pub look_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections_max: 256,
            requests_max: 1024,
            parts_max: 1024,
            header_bytes_max: 32 << 10,
            body_bytes_max: 8 << 20,
            file_bytes_max: 512 << 20,
            held_bytes_max: 32 << 20,
            grammar_bytes_max: 256 << 10,
            header_time: seconds(10),
            idle_time: seconds(120),
            body_idle_time: seconds(30),
            body_time: seconds(60),
            write_time: seconds(300),
            sign_time: seconds(10),
            chunk_time: seconds(50),
            early_time: seconds(25),
            goodbye_time: seconds(3),
            orphan_time: seconds(60),
            look_time: Duration::from_millis(500),
        }
    }
}

/// Tokens of a sequence where neither the user nor the model wants fewer.
const CONTEXT_DEFAULT: usize = 8192;
/// Memory that is kept free of weights for what clients send and are answered.
pub(crate) const RESERVE: Share = Share { parts: 12, bytes_max: 96 << 20 };
/// Bytes of answers at most where nothing bounds the memory, of those that are wanted soon and of those that can wait each.
const ANSWER_BYTES_MAX: usize = 16 << 20;

impl Config {
    /// A server for a model of this name on this machine alone, without files.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            keys: Keys::default(),
            allow_hosts: Vec::new(),
            names: vec![name.into()],
            lenient: false,
            ollama: false,
            sweep_delay: Duration::ZERO,
            data: None,
            data_bytes_max: 10 << 30,
            keep_days: None,
            context: None,
            max_new_tokens: 256,
            sequences_max: 64,
            limits: Limits::default(),
        }
    }

    /// Refuses what is not safe.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.host.to_canonical().is_loopback() && self.keys.is_empty() {
            let message = format!(
                "{} can be reached from other machines: name a key by --api-key-file or AEROSTAT_API_KEY, \
                 or listen at 127.0.0.1",
                self.host
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        if self.names.is_empty() || self.names.iter().any(String::is_empty) {
            return Err(Error::new(ErrorKind::Usage, "the model needs a name that is not empty"));
        }
        Ok(())
    }

    /// Tokens of a sequence at most, in a model that was made for so many.
    pub(crate) fn context_of(&self, model: usize) -> usize {
        self.context.unwrap_or(model.min(CONTEXT_DEFAULT)).max(1)
    }

    /// Bytes that requests may hold together, so that they stay within what is kept for them: a parsed body takes some
    /// times its bytes.
    pub(crate) fn held_bytes_max(&self, budget: Option<u64>) -> usize {
        let most = self.limits.held_bytes_max;
        usize::try_from(reserve(budget) / 3).unwrap_or(most).min(most)
    }

    /// Bytes that answers may take together: those that are wanted soon, and as many again for those that can wait.
    pub(crate) fn answer_bytes_max(&self, budget: Option<u64>) -> usize {
        usize::try_from(reserve(budget) / 6).unwrap_or(ANSWER_BYTES_MAX).min(ANSWER_BYTES_MAX)
    }
}

fn reserve(budget: Option<u64>) -> u64 {
    budget.map_or(u64::MAX, |budget| RESERVE.of(budget))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_key() {
        for (host, keys, good) in [
            ("127.0.0.1", "", true),
            ("127.9.9.9", "", true),
            ("::1", "", true),
            ("::ffff:127.0.0.1", "", true),
            ("0.0.0.0", "", false),
            ("::", "", false),
            ("192.168.1.2", "", false),
            ("0.0.0.0", "secret", true),
        ] {
            let keys = Keys::parse(keys);
            let config = Config { host: host.parse().unwrap(), keys, ..Config::new("m") };
            assert_eq!(config.check().is_ok(), good, "{host}");
        }
    }

    #[test]
    fn what_clients_send_has_memory_of_its_own() {
        let config = Config::new("m");
        assert_eq!((config.held_bytes_max(Some(4 << 30)), config.held_bytes_max(None)), (32 << 20, 32 << 20));
        assert_eq!(
            (config.answer_bytes_max(Some(4 << 30)), config.answer_bytes_max(None)),
            (16 << 20, 16 << 20)
        );
        assert_eq!(config.held_bytes_max(Some(256 << 20)) >> 20, 7);
        assert_eq!(config.answer_bytes_max(Some(256 << 20)) >> 20, 3);
    }
}
