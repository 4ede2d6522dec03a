//! Which experts each sweep uses, written down: what `bench experts` looks at.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// One line of a trace: what a sweep uses of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpertTraceLine {
    /// The sweep, counted from 0.
    pub sweep: u64,
    /// The block, counted from 0.
    pub layer: usize,
    /// Rows of the sweep.
    pub rows: usize,
    /// The experts that some row uses, each once, in the order of computing.
    pub experts: Vec<u32>,
}

/// The file that they are written to.
pub(crate) struct ExpertTrace {
    path: PathBuf,
    file: BufWriter<File>,
    /// Sweeps that have begun.
    begun: u64,
    rows: usize,
}

impl ExpertTrace {
    /// Begins a new file. What is there is written over only if it is such a trace: weights, inputs and results are none.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        if path.is_file() {
            let first = first_line(path).map_err(|e| failed("cannot be read", path, &e))?;
            if !first.is_empty() && serde_json::from_slice::<ExpertTraceLine>(&first).is_err() {
                let message = format!(
                    "{} is there and is no trace of experts: it is not written over; name another file",
                    path.display()
                );
                return Err(Error::new(ErrorKind::Usage, message));
            }
        }
        let file = File::create(path).map_err(|e| failed("cannot be written", path, &e))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), begun: 0, rows: 0 })
    }

    /// A sweep begins.
    pub(crate) fn begin(&mut self, rows: usize) {
        self.begun += 1;
        self.rows = rows;
    }

    /// It uses these experts of a block.
    pub(crate) fn write(&mut self, layer: usize, experts: &[u32]) -> Result<(), Error> {
        let sweep = self.begun.saturating_sub(1);
        let line = ExpertTraceLine { sweep, layer, rows: self.rows, experts: experts.to_vec() };
        let written = serde_json::to_writer(&mut self.file, &line).map_err(io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|e| failed("cannot be written", &self.path, &e))
    }
}

impl Drop for ExpertTrace {
    fn drop(&mut self) {
        // A line that a full disk has no room for is cut short, and said to be when it is read.
        let _ = self.file.flush();
    }
}

/// The first line of a file, as far as one of a trace could go.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    const LINE_BYTES_MAX: u64 = 1 << 20;
    let mut line = Vec::new();
    io::BufReader::new(File::open(path)?.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The lines of a trace.
///
/// # Errors
/// [`ErrorKind::Usage`]: the file cannot be read, or a line is none of a trace; the message names it.
pub(crate) fn read(path: &Path) -> Result<impl Iterator<Item = Result<ExpertTraceLine, Error>>, Error> {
    let file = File::open(path).map_err(|e| failed("cannot be read", path, &e))?;
    let path = path.to_owned();
    let lines = io::BufReader::new(file).lines().enumerate().map(move |(number, line)| {
        let line = line.map_err(|e| failed("cannot be read", &path, &e))?;
        serde_json::from_str(&line).map_err(|e| {
            let message =
                format!("{}: line {} is none of a trace of experts: {e}", path.display(), number + 1);
            Error::new(ErrorKind::Usage, message)
        })
    });
    Ok(lines)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Usage, format!("the trace of experts {} {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--expert-trace` that named the model's own weights once emptied them.
    #[test]
    fn only_a_trace_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        for other in [&b"\x40\0\0\0\0\0\0\0{\"a\":1}"[..], b"{\"text\": \"hello\"}\n", b"\n"] {
            std::fs::write(&path, other).unwrap();
            assert!(ExpertTrace::create(&path).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), other);
        }
        std::fs::write(&path, b"").unwrap();
        for _ in 0..2 {
            let mut trace = ExpertTrace::create(&path).unwrap();
            trace.begin(3);
            trace.write(1, &[4, 5]).unwrap();
            drop(trace);
            assert_eq!(read(&path).unwrap().count(), 1);
        }
    }
}
