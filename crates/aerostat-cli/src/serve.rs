//! `aerostat serve`: OpenAI's API over HTTP, until it is stopped.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aerostat_serve::{Config, ErrorKind, Server};
use clap::{Args, value_parser};
use serde_json::json;

use crate::failure::Failure;
use crate::model::{self, ModelName};
use crate::options::{EngineArgs, MODEL_HELP, NEW_TOKENS_DEFAULT};
use crate::output::OutputArgs;
use crate::{interrupt, keys, output, size};

/// Between two looks at whether the user wants to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[arg(help = MODEL_HELP)]
    model: ModelName,
    /// The address to listen at; one that other machines reach needs a key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// The port to listen at; 0: any that is free.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// A file of keys, one in a line, of which clients must show one. AEROSTAT_API_KEY names one, too.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A name that clients may call this server by, beside localhost and numbers; may be given several times.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// What clients call the model; may be given several times. Without it, MODEL or the last part of its path.
    #[arg(long, value_name = "NAME")]
    served_model_name: Vec<String>,
    /// Ignore fields that are not known, and take temperatures above 2, as vLLM does.
    #[arg(long)]
    lenient: bool,
    /// Speak Ollama's API, too, at /api: for clients that know no other; models cannot be changed by it.
    #[arg(long)]
    ollama: bool,
    /// A folder for files and batches, which outlive the server; without it, neither is served.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Bytes that files may take together, such as 10GiB.
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = size::parse)]
    data_quota: u64,
    /// Days that files are kept; without it, until they are deleted.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    keep_days: Option<u32>,
    /// Sequences that the memory is planned for, as far as it goes.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=4096))]
    max_num_seqs: u32,
    /// Tokens of a chat's answer at most, where the request does not say.
    #[arg(long, value_name = "N", default_value_t = NEW_TOKENS_DEFAULT)]
    max_new_tokens: usize,
    /// Seconds that each sweep is held up, which tells how patient clients are.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide = true)]
    hold_sweeps: u64,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn execute(args: &ServeArgs, output: &OutputArgs) -> Result<(), Failure> {
    let keys = keys::keys(args.api_key_file.as_deref())?;
    let options = args.engine.options(output)?;
    let files = model::open(&args.model, args.engine.adapter(), output)?;
    files.sampling_notes().iter().for_each(|text| output::note(output, text));
    let options = model::of_model(options, &args.engine, &files);
    let options = model::drafting(options, &args.engine, &files, output)?;
    let options = model::keeping(options, &args.engine, &files, true)?;
    let config = Config {
        host: args.host,
        port: args.port,
        keys,
        allow_hosts: args.allow_host.clone(),
        names: args.names(),
        lenient: args.lenient,
        ollama: args.ollama,
        sweep_delay: Duration::from_secs(args.hold_sweeps),
        data: args.data.clone(),
        data_bytes_max: args.data_quota,
        keep_days: args.keep_days,
        context: args.engine.context(),
        max_new_tokens: args.max_new_tokens,
        sequences_max: args.max_num_seqs as usize,
        ..Config::new(args.model.to_string())
    };
    let _graceful = interrupt::graceful();
    let mut server = Server::start(config, Arc::new(files), options)?;
    let url = format!("http://{}", server.address());
    output::note(output, &format!("listening at {url}; opening the model"));
    let stopper = server.stopper();
    thread::spawn(move || {
        wait_for_interrupt();
        stopper();
    });
    match server.open() {
        Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
        opened => opened?,
    }
    if output.json {
        output::json(&json!({"url": url, "model": args.names().first()}))?;
    }
    output::note(output, &format!("ready: {url}/v1"));
    wait_for_interrupt();
    output::note(output, "stopping");
    server.stop();
    Ok(())
}

fn wait_for_interrupt() {
    while !interrupt::requested() {
        thread::sleep(LOOK_EVERY);
    }
}

impl ServeArgs {
    /// What clients call the model.
    fn names(&self) -> Vec<String> {
        if !self.served_model_name.is_empty() {
            return self.served_model_name.clone();
        }
        let path = Path::new(&self.model);
        let last = path.file_name().filter(|_| path.exists()).map(|name| name.to_string_lossy().into_owned());
        vec![last.unwrap_or_else(|| self.model.to_string())]
    }
}

fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        text => text.parse().map_err(|_| "expected an IP address, such as 127.0.0.1 or 0.0.0.0".to_owned()),
    }
}

impl From<aerostat_serve::Error> for Failure {
    fn from(e: aerostat_serve::Error) -> Self {
        match e.kind() {
            ErrorKind::Usage => Self::Usage(e.to_string()),
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed(e.to_string()),
        }
    }
}
