//! Where a job's files are, and how it is run.

use std::path::{Path, PathBuf};

use aerostat_openai::Rules;

use crate::apart::{Named, keep_apart};
use crate::error::{Error, ErrorKind};

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
        let read = [&[Named::new("the input", &self.input)], read].concat();
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
    let Some(name) = output.file_name() else { return output.to_owned() };
    let name = name.to_string_lossy();
    let packed = [".gz", ".zst"].into_iter().find(|e| name.ends_with(e)).unwrap_or("");
    let stem = name.strip_suffix(packed).unwrap_or(&name);
    let (stem, extension) = match stem.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, extension),
        _ => (stem, "jsonl"),
    };
    output.with_file_name(format!("{stem}.errors.{extension}{packed}"))
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
        }
    }
}

impl JobOptions {
    /// What of the options changes results, as the job's database keeps it. Jobs that were begun before an option was
    /// there have the words without it: it is named only where it is not what it was before.
    pub(crate) fn words(&self) -> String {
        let context = self.context.map_or_else(|| "the model's".to_owned(), |n| n.to_string());
        let lenient = if self.lenient { ", lenient" } else { "" };
        let Self { max_new_tokens, seed, engine, .. } = self;
        format!("context {context}, {max_new_tokens} new tokens, seed {seed}, {engine}{lenient}")
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

    #[test]
    fn an_output_that_names_no_file_is_refused() {
        let paths = JobPaths::beside(Path::new("in.jsonl"), Path::new(".."));
        assert_eq!(paths.check(&[], &[]).unwrap_err().kind(), ErrorKind::Usage);
    }

    /// Running jobs must find the words that they were begun with.
    #[test]
    fn an_option_that_was_not_there_before_is_named_only_where_it_is_used() {
        let options = JobOptions { engine: "kv f16".to_owned(), ..JobOptions::default() };
        assert_eq!(options.words(), "context the model's, 256 new tokens, seed 0, kv f16");
        let lenient = JobOptions { lenient: true, context: Some(9), ..options };
        assert_eq!(lenient.words(), "context 9, 256 new tokens, seed 0, kv f16, lenient");
    }
}
