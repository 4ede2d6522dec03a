//! The crate from outside: every kind of source behind the ring.

mod faults;
mod files;
mod order;
mod ring;

use std::path::Path;
use std::time::Duration;

use aerostat_checkpoint::{Extent, File, FileId};
use aerostat_stream::simulated::{self, Contents, Script};
use aerostat_stream::{IoChoice, Source, SourceOptions, open};

/// Lengths of the files of most tests: odd, whole pages, a little over, one byte, none.
const LENGTHS: [usize; 5] = [300_001, 8192, 65_537, 1, 0];

/// Every kind of source there is to test.
const KINDS: [Kind; 7] = [
    Kind::Auto,
    Kind::Direct,
    Kind::Buffered,
    Kind::Simulated,
    Kind::SimulatedOnDisk,
    Kind::Pooled,
    Kind::Overlapped,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Auto,
    /// Where the system can.
    Direct,
    Buffered,
    Simulated,
    SimulatedOnDisk,
    Pooled,
    Overlapped,
}

/// Bytes that differ from place to place and from file to file.
fn contents() -> Vec<Vec<u8>> {
    let byte = |file: usize, at: usize| ((at * 31 + at / 251 * 7 + at / 65_521) ^ (file * 89)) as u8;
    LENGTHS.iter().enumerate().map(|(file, &bytes)| (0..bytes).map(|at| byte(file, at)).collect()).collect()
}

/// Writes the contents into a folder as files that a catalogue would name.
fn write(folder: &Path, contents: &[Vec<u8>]) -> Vec<File> {
    let write = |(index, bytes): (usize, &Vec<u8>)| {
        let path = folder.join(format!("shard-{index}"));
        std::fs::write(&path, bytes).unwrap();
        File { path, bytes: bytes.len() as u64 }
    };
    contents.iter().enumerate().map(write).collect()
}

/// A source of the kind over the files, unruly if it is simulated.
fn source(kind: Kind, files: &[File], seed: u64) -> Box<dyn Source> {
    let script = Script {
        seed,
        alignment: [1, 512, 4096][seed as usize % 3],
        depth: 1 + seed as usize % 5,
        devices: vec![3, seed % 2, 3, seed % 3],
        latency_ticks_max: seed % 20,
        sleep_max: Duration::from_micros(seed % 3 * 50),
        interrupted_percent: 20,
        short_percent: 30,
        ..Script::default()
    };
    let memory = || files.iter().map(|file| Contents::Memory(std::fs::read(&file.path).unwrap())).collect();
    let real = |io| open(files, SourceOptions { io, depth: None });
    match kind {
        Kind::Auto => real(IoChoice::Auto).unwrap(),
        Kind::Direct => real(IoChoice::Direct).or_else(|_| real(IoChoice::Auto)).unwrap(),
        Kind::Buffered => real(IoChoice::Buffered).unwrap(),
        Kind::Simulated => simulated::open(memory(), script).unwrap(),
        Kind::Pooled => simulated::open_pooled(memory(), script).unwrap(),
        Kind::Overlapped => simulated::open_overlapped(memory(), script).unwrap(),
        Kind::SimulatedOnDisk => {
            let disk = files.iter().map(|file| Contents::Disk(file.path.clone())).collect();
            simulated::open(disk, Script { alignment: 1, ..script }).unwrap()
        }
    }
}

fn extent(file: u32, offset: u64, bytes: u64) -> Extent {
    Extent { file: FileId(file), offset, bytes }
}

/// What the extent must read as.
fn expected(contents: &[Vec<u8>], extent: Extent) -> &[u8] {
    &contents[extent.file.0 as usize][extent.offset as usize..(extent.offset + extent.bytes) as usize]
}
