//! Where a job's files are, and how it is run.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aerostat_openai::Rules;

use crate::apart::{Named, keep_apart};
use crate::error::{Error, ErrorKind};

/// Behind the name of a table's output: its results so far.
pub(crate) const ROWS_ENDING: &str = "rows";

/// What stands before the shard in the words of options, behind all else.
pub(crate) const SHARD_WORD: &str = ", shard ";

/// Where a job's files are.
#[derive(Clone, Debug)]
pub struct JobPaths {
    /// The batch file: JSON lines, packed if it ends in `.gz` or `.zst`.
    pub input: PathBuf,
    /// The file that results are appended to.
    pub output: PathBuf,
    /// The file that failures are appended to.
    pub errors: PathBuf,
}

impl JobPaths {
    /// The paths of a job whose failures go beside its output: `out.errors.jsonl` beside `out.jsonl`.
    pub fn beside(input: &Path, output: &Path) -> Self {
        Self { input: input.to_owned(), output: output.to_owned(), errors: errors_beside(output) }
    }

    /// The job's database: `out.jsonl.job` beside `out.jsonl`.
    pub fn database(&self) -> PathBuf {
        added(&self.output, "job")
    }

    /// The paths of a job that works through a table: failures are JSON lines, whatever the output is.
    pub fn of_table(input: &Path, output: &Path) -> Self {
        let mut errors = output.to_owned();
        // `out.csv.gz` and `out.csv` both have `out.errors.jsonl`.
        if let Some("gz" | "zst") = output.extension().and_then(|e| e.to_str()) {
            errors.set_extension("");
        }
        errors.set_extension("errors.jsonl");
        Self { input: input.to_owned(), output: output.to_owned(), errors }
    }

    /// Where results of a table are kept until all are there: `out.csv.rows` beside `out.csv`.
    pub fn rows(&self) -> PathBuf {
        added(&self.output, ROWS_ENDING)
    }

    /// Where the copy of an input that comes through a pipe is kept: `out.jsonl.input` beside `out.jsonl`.
    pub fn copy_of_input(output: &Path) -> PathBuf {
        added(output, "input")
    }

    /// Refuses files that are one and the same, by whatever name, and paths that name no file; also where what is written
    /// is one of others that are `read`, or of others that are `written`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub fn check(&self, read: &[Named], written: &[Named]) -> Result<(), Error> {
        for (what, path) in [("output", &self.output), ("errors", &self.errors)] {
            if path.file_name().is_none() {
                let message = format!("the {what} {} names no file", path.display());
                return Err(Error::new(ErrorKind::Usage, message));
            }
        }
        // Of what is piped in, the file that a shell opened for it.
        let piped = cfg!(unix) && self.input == Path::new("-");
        let input = if piped { Path::new("/dev/stdin") } else { &self.input };
        let read = [&[Named::new("the input", input)], read].concat();
        let database = self.database();
        let log =
            ["-wal", "-shm"].map(|ending| Named::new("a log of the database", sibling(&database, ending)));
        let mut own = vec![
            Named::new("the output", &self.output),
            Named::new("the error file", &self.errors),
            Named::new("the job's database", &database),
        ];
        own.extend(log);
        own.extend_from_slice(written);
        keep_apart(&read, &own)
    }
}

/// `path` with this behind its name.
pub(crate) fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// `path` with another extension behind those it has.
pub(crate) fn added(path: &Path, extension: &str) -> PathBuf {
    path.with_added_extension(extension)
}

fn errors_beside(output: &Path) -> PathBuf {
    let packed = output.extension().filter(|e| *e == "gz" || *e == "zst");
    let plain = if packed.is_some() { output.with_extension("") } else { output.to_owned() };
    let mut ending = OsString::from("errors.");
    ending.push(plain.extension().unwrap_or("jsonl".as_ref()));
    if let Some(packed) = packed {
        ending.push(".");
        ending.push(packed);
    }
    plain.with_extension(ending)
}

/// Those lines of a batch file that one job of several works through: line i, counted from 0, is of the shard i mod N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u64,
    /// How many there are.
    pub count: u64,
}

impl Default for Shard {
    /// The whole.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Whether a line is of this shard; lines are counted from 0.
    pub(crate) fn holds(self, number: u64) -> bool {
        number % self.count.max(1) == self.index
    }
}

/// Written as `I/N`.
impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no shard; write one as I/N, with I from 0 to N - 1");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let (index, count) = (index.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?);
        if index < count { Ok(Self { index, count }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// How a job is run. What changes results is part of what it was begun with.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// Tokens of a sequence at most, prompt and answer; `None`: what the model was made for.
    pub context: Option<usize>,
    /// Tokens of a chat's answer at most, where the request does not say.
    pub max_new_tokens: usize,
    /// What seeds of requests without one are made from: the line's number, counted from 0, is added.
    pub seed: u64,
    /// Take what vLLM takes and OpenAI refuses; see [`Rules::lenient`].
    pub lenient: bool,
    /// What of the engine changes bits of results, in words: [`aerostat::result_identity`] of its options.
    pub engine: String,
    /// Begin anew, whatever is there: results of an earlier job are overwritten.
    pub restart: bool,
    /// Try requests again that failed when they were run; lines that cannot be served stay failed.
    pub retry_errors: bool,
    /// The lines that are this job's.
    pub shard: Shard,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            context: None,
            max_new_tokens: 256,
            seed: 0,
            lenient: false,
            engine: String::new(),
            restart: false,
            retry_errors: false,
            shard: Shard::default(),
        }
    }
}

impl JobOptions {
    /// What of the options changes results, as the job's database keeps it. Jobs that were begun before an option was
    /// there have the words without it: it is named only where it is not what it was before.
    pub(crate) fn words(&self) -> String {
        let context = self.context.map_or_else(|| "the model's".to_owned(), |n| n.to_string());
        let lenient = if self.lenient { ", lenient" } else { "" };
        let shard = match self.shard.count {
            1 => String::new(),
            _ => format!("{SHARD_WORD}{}", self.shard),
        };
        let Self { max_new_tokens, seed, engine, .. } = self;
        format!("context {context}, {max_new_tokens} new tokens, seed {seed}, {engine}{lenient}{shard}")
    }
}

impl From<&JobOptions> for Rules {
    fn from(options: &JobOptions) -> Self {
        let JobOptions { context, max_new_tokens, seed, lenient, .. } = *options;
        Self { context, max_new_tokens, seed, lenient }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_the_output_are_named_after_it() {
        for (output, errors) in [
            ("a/out.jsonl", "a/out.errors.jsonl"),
            ("out.jsonl.gz", "out.errors.jsonl.gz"),
            ("out.v2.jsonl.zst", "out.v2.errors.jsonl.zst"),
            ("out", "out.errors.jsonl"),
        ] {
            let paths = JobPaths::beside(Path::new("in.jsonl"), Path::new(output));
            assert_eq!(paths.errors, Path::new(errors));
        }
        let paths = JobPaths::beside(Path::new("in.jsonl"), Path::new("a/out.jsonl.gz"));
        assert_eq!(paths.database(), Path::new("a/out.jsonl.gz.job"));
    }

    /// Two outputs whose names differ in such bytes alone once had one error file.
    #[cfg(unix)]
    #[test]
    fn names_that_are_not_text_are_kept() {
        use std::os::unix::ffi::OsStrExt;
        let path = |bytes: &'static [u8]| Path::new(std::ffi::OsStr::from_bytes(bytes));
        for (output, errors) in [
            (&b"caf\xe9/out\xff.jsonl"[..], &b"caf\xe9/out\xff.errors.jsonl"[..]),
            (b"out\xfe.jsonl.gz", b"out\xfe.errors.jsonl.gz"),
            (b"out\xfe", b"out\xfe.errors.jsonl"),
            (b"out.\xfe", b"out.errors.\xfe"),
        ] {
            assert_eq!(JobPaths::beside(Path::new("in"), path(output)).errors, path(errors));
        }
    }

    #[test]
    fn an_output_that_names_no_file_is_refused() {
        let paths = JobPaths::beside(Path::new("in.jsonl"), Path::new(".."));
        assert_eq!(paths.check(&[], &[]).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn shards_are_from_0_and_hold_every_line_once() {
        for text in ["", "1", "3/3", "1/0", "-1/3", "a/b", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        let shards: Vec<Shard> = (0..3).map(|i| format!("{i}/3").parse().unwrap()).collect();
        for number in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.holds(number)).count(), 1);
        }
        assert!((0..10).all(|number| Shard::default().holds(number)));
    }

    /// Running jobs must find the words that they were begun with.
    #[test]
    fn an_option_that_was_not_there_before_is_named_only_where_it_is_used() {
        let options = JobOptions { engine: "kv f16".to_owned(), ..JobOptions::default() };
        assert_eq!(options.words(), "context the model's, 256 new tokens, seed 0, kv f16");
        let sharded = JobOptions { shard: "1/3".parse().unwrap(), ..options.clone() };
        assert_eq!(sharded.words(), format!("{}, shard 1/3", options.words()));
        let lenient = JobOptions { lenient: true, context: Some(9), ..options };
        assert_eq!(lenient.words(), "context 9, 256 new tokens, seed 0, kv f16, lenient");
    }
}
