//! The outputs of shards, put together: what one job over the whole input would have written, in the input's order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::apart::{Named, keep_apart};
use crate::database::{Database, State};
use crate::disk::{System, is_locked, sync_folder_of};
use crate::error::{Error, ErrorKind};
use crate::input::Packing;
use crate::job::TABLE;
use crate::line;
use crate::options::{JobPaths, SHARD_WORD, Shard, added};
use crate::output::Appender;

/// Lines are handed to the disk in pieces of about this size.
const PIECE_BYTES: usize = 4 << 20;

/// What was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Lines of results.
    pub done: u64,
    /// Lines of the error file.
    pub failed: u64,
    /// The error file, beside the output.
    pub errors: PathBuf,
}

/// The output of a job over one shard, complete.
struct Part {
    output: PathBuf,
    errors: PathBuf,
    shard: Shard,
    /// Input, model and options, without the shard.
    identity: [String; 3],
    /// Bytes of both files.
    bytes: [u64; 2],
}

/// Where a line is: the file, and its place there.
struct Place {
    file: usize,
    offset: u64,
    bytes: u64,
}

/// The files, opened, and where each line of the input has its line in them.
type Gathered = (Vec<BufReader<File>>, BTreeMap<u64, Place>);

/// Puts the outputs of all shards of one batch file together, in the order of the input, and their error files beside it.
/// Both are whole or absent.
///
/// # Errors
/// [`ErrorKind::Usage`] if shards are missing, given twice or not finished, or belong to different jobs, or the output is
/// there; [`ErrorKind::Input`], [`ErrorKind::Disk`], [`ErrorKind::Database`].
pub fn merge(output: &Path, parts: &[PathBuf]) -> Result<Merged, Error> {
    let parts = parts.iter().map(|path| part(path)).collect::<Result<Vec<_>, _>>()?;
    complete(&parts)?;
    let errors = JobPaths::beside(Path::new(""), output).errors;
    let read: Vec<Named> = parts
        .iter()
        .flat_map(|part| [&part.output, &part.errors])
        .map(|path| Named::new("a part", path))
        .collect();
    let written = [output, &errors].map(|path| Named::new("what is put together", path));
    keep_apart(&read, &written)?;
    for path in [output, &errors] {
        if path.metadata().is_ok_and(|m| m.len() > 0) {
            let message = format!("{} is not empty; name another output, or remove it", path.display());
            return Err(Error::new(ErrorKind::Usage, message));
        }
    }
    let files = |of: fn(&Part) -> (&PathBuf, u64)| parts.iter().map(of).collect::<Vec<_>>();
    let failed = join(&files(|part| (&part.errors, part.bytes[1])), &errors)?;
    let done = join(&files(|part| (&part.output, part.bytes[0])), output)?;
    Ok(Merged { done, failed, errors })
}

/// What the database beside an output says of it.
fn part(output: &Path) -> Result<Part, Error> {
    let refused = |what: &str| Error::new(ErrorKind::Usage, format!("{}: {what}", output.display()));
    let path = JobPaths::beside(Path::new(""), output).database();
    if !path.exists() {
        return Err(refused(&format!("no job's output: there is no {}", path.display())));
    }
    if is_locked(output) {
        return Err(refused("a process is working on it; wait for it"));
    }
    let database = Database::look(&path)?;
    if database.number(TABLE)? == Some(1) {
        return Err(refused("the job works through a table; only batches are put together"));
    }
    let left = database.count(State::ToDo)?;
    if left > 0 || database.fact("state")?.as_deref() != Some("finished") {
        return Err(refused(&format!("not finished: {left} requests are left; give its command again")));
    }
    let options = database.must_fact("options")?;
    let (options, shard) = options.rsplit_once(SHARD_WORD).unwrap_or((&options, "0/1"));
    let shard = shard.parse().map_err(|why: String| refused(&why))?;
    let identity =
        [database.must_fact("input_digest")?, database.must_fact("model_digest")?, options.to_owned()];
    let errors = PathBuf::from(database.must_fact("errors")?);
    let bytes = [database.must_number("output_bytes")?, database.must_number("errors_bytes")?];
    Ok(Part { output: output.to_owned(), errors, shard, identity, bytes })
}

/// Refuses parts that are not all shards of one job, each once.
fn complete(parts: &[Part]) -> Result<(), Error> {
    let refused = |message: String| Err(Error::new(ErrorKind::Usage, message));
    let Some(first) = parts.first() else { return refused("there is nothing to put together".to_owned()) };
    let mut seen = BTreeMap::new();
    for part in parts {
        let (name, count) = (part.output.display(), first.shard.count);
        for (what, (own, other)) in
            ["input", "model", "options"].into_iter().zip(part.identity.iter().zip(&first.identity))
        {
            if own != other {
                let of = first.output.display();
                return refused(format!("{name} was made with another {what} than {of}"));
            }
        }
        if part.shard.count != count {
            return refused(format!("{name} is shard {}; the first one is one of {count}", part.shard));
        }
        if let Some(before) = seen.insert(part.shard.index, &part.output) {
            return refused(format!("{name} and {} are the same shard, {}", before.display(), part.shard));
        }
    }
    let missing = (0..first.shard.count).filter(|index| !seen.contains_key(index));
    let missing: Vec<String> = missing.map(|index| format!("{index}/{}", first.shard.count)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        _ => refused(format!("shards are missing: {}", missing.join(", "))),
    }
}

/// Writes the lines of files in the order of the input; how many there are.
fn join(files: &[(&PathBuf, u64)], output: &Path) -> Result<u64, Error> {
    let drafts: Vec<PathBuf> = (0..files.len()).map(|i| added(output, &format!("part{i}"))).collect();
    let draft = added(output, "part");
    let joined = gather(files, &drafts).and_then(|(mut opened, places)| {
        let mut out = Appender::packed(&System, &draft, Packing::of(output))?;
        out.cut(0)?;
        let mut held = 0;
        for place in places.values() {
            let mut line = vec![0; place.bytes as usize];
            let file = &mut opened[place.file];
            let read = file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut line));
            read.map_err(|e| Error::file(ErrorKind::Input, "read", files[place.file].0, &e))?;
            out.push(&line)?;
            held += line.len();
            if held > PIECE_BYTES {
                out.commit()?;
                held = 0;
            }
        }
        out.commit()?;
        let renamed = fs::rename(&draft, output).and_then(|()| sync_folder_of(output));
        renamed.map_err(|e| Error::file(ErrorKind::Disk, "write", output, &e))?;
        Ok(places.len() as u64)
    });
    for path in drafts.iter().chain(joined.is_err().then_some(&draft)) {
        // What is left of it is no result.
        let _ = fs::remove_file(path);
    }
    joined
}

/// Finds all lines by the numbers in their ids. Packed files are unpacked into drafts first.
fn gather(files: &[(&PathBuf, u64)], drafts: &[PathBuf]) -> Result<Gathered, Error> {
    let (mut opened, mut places) = (Vec::new(), BTreeMap::new());
    for (index, ((path, bytes), draft)) in files.iter().zip(drafts).enumerate() {
        let failed = |e: io::Error| Error::file(ErrorKind::Input, "read", path, &e);
        let changed = || {
            let message = format!("{} is not what its job wrote", path.display());
            Error::new(ErrorKind::Changed, message)
        };
        if path.metadata().map_err(failed)?.len() != *bytes {
            return Err(changed());
        }
        // Of no lines nothing is packed.
        let packing = if *bytes == 0 { Packing::Plain } else { Packing::of(path) };
        let mut reader = packing.reader(File::open(path).map_err(failed)?).map_err(failed)?;
        let unpacked = |e: io::Error| Error::file(ErrorKind::Disk, "write", draft, &e);
        let mut copy = match packing {
            Packing::Plain => None,
            _ => Some(io::BufWriter::new(File::create(draft).map_err(unpacked)?)),
        };
        let (mut line, mut offset) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
            if read == 0 {
                break;
            }
            let number = serde_json::from_slice::<Head>(&line).ok().and_then(|head| line::number(&head.id));
            let number = number.ok_or_else(changed)?;
            if places.insert(number, Place { file: index, offset, bytes: read }).is_some() {
                return Err(changed());
            }
            if let Some(copy) = &mut copy {
                copy.write_all(&line).map_err(unpacked)?;
            }
            offset += read;
        }
        let plain: &Path = if copy.is_some() { draft } else { path };
        copy.map_or(Ok(()), |mut copy| copy.flush()).map_err(unpacked)?;
        opened.push(BufReader::new(File::open(plain).map_err(failed)?));
    }
    Ok((opened, places))
}

/// What is read of a line.
#[derive(serde::Deserialize)]
struct Head {
    id: String,
}
