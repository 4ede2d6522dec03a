//! Reading back what was written, past the page cache where the system can.

use aerostat_backend::packed::PackedTile;
use aerostat_checkpoint::{Extent, File, FileId};
use aerostat_stream::{Ring, SourceOptions};

use crate::journal::Done;
use crate::layout::{Job, ShardLayout};
use crate::{Error, ErrorKind};

const SLOTS: usize = 4;
const PIECE_BYTES: u64 = 1 << 20;

/// Checks all tensors of a shard: checksums, and that what is lossless is what it was made of.
pub(crate) fn shard(
    file: File,
    header_bytes: u64,
    layout: &ShardLayout,
    done: &[Done],
    observe: &mut dyn FnMut(u64) -> bool,
) -> Result<(), Error> {
    let largest = done.iter().flat_map(|done| &done.tiles).copied().max().unwrap_or(0).max(PIECE_BYTES);
    let path = file.path.clone();
    let source = aerostat_stream::open(&[file], SourceOptions::default())?;
    let mut ring = Ring::new(source, SLOTS, largest as usize)?;
    let mut offset = header_bytes;
    for (job, done) in layout.tensors.iter().zip(done) {
        let damaged = |what: &str| {
            let message = format!("{}: tensor {:?} read back is {what}", path.display(), job.name);
            Error::new(ErrorKind::Corrupt, format!("{message}; is the disk failing?"))
        };
        let pieces: Vec<Extent> = pieces(done, &mut offset);
        ring.request(&pieces)?;
        let (mut crc, mut unpacked) = (0, Vec::new());
        for piece in &pieces {
            let bytes = ring.next()?;
            unpacked.clear();
            match done.tiles.is_empty() {
                true => unpacked.extend_from_slice(&bytes),
                false => unpack(job, &bytes, &mut unpacked).map_err(|e| damaged(&e.to_string()))?,
            }
            crc = crc32c::crc32c_append(crc, &unpacked);
            if observe(piece.bytes) {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
        }
        if job.from == job.to && crc != done.crc32c {
            return Err(damaged("not what was packed"));
        }
    }
    Ok(())
}

fn unpack(job: &Job, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let (tile, rest) = PackedTile::parse(bytes)?;
    if !rest.is_empty() || tile.cols != job.cols() {
        return Err(Error::new(ErrorKind::Corrupt, "a tile of another shape"));
    }
    Ok(tile.expand(out)?)
}

fn pieces(done: &Done, offset: &mut u64) -> Vec<Extent> {
    let mut piece = |bytes: u64| {
        *offset += bytes;
        Extent { file: FileId(0), offset: *offset - bytes, bytes }
    };
    if !done.tiles.is_empty() {
        return done.tiles.iter().map(|&bytes| piece(bytes)).collect();
    }
    let rest = done.bytes % PIECE_BYTES;
    let whole = (0..done.bytes / PIECE_BYTES).map(|_| PIECE_BYTES);
    whole.chain((rest > 0).then_some(rest)).map(piece).collect()
}
