//! What packed folders ask of the engine: small tensors whose checksums are checked, and single rows out of tiles.

use std::collections::BTreeSet;

use aerostat_arch::{Matrix, ModelSpec, Vector};
use aerostat_backend::packed::PackedTile;
use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{Catalog, Extent};
use aerostat_stream::Ring;

use crate::{Error, ErrorKind};

/// Bytes that hold the header and the table of nearly every tile.
const TABLE_BYTES: usize = 4096;
/// Packed bytes of rows that are read at once, unless one group has more.
const READ_BYTES: u64 = 1 << 20;

/// Reads small tensors; those of a packed folder are checked.
pub(crate) struct Vectors<'a> {
    catalog: &'a Catalog,
    /// The last tensor of which a part was read, whole: others of its parts mostly follow.
    held: (String, Vec<u8>),
}

impl<'a> Vectors<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, held: Default::default() }
    }

    /// The bytes of `vector`.
    pub(crate) fn read(&mut self, vector: &Vector, ring: &mut Ring) -> Result<Vec<u8>, Error> {
        let name = vector.name.as_str();
        let Some((tensor, crc)) = self.catalog.get(name).zip(self.catalog.checksum(name)) else {
            let mut bytes = vec![0; vector.extent.bytes as usize];
            ring.read_now(vector.extent, &mut bytes)?;
            return Ok(bytes);
        };
        if self.held.0 != name {
            self.held = (String::new(), vec![0; tensor.extent.bytes as usize]);
            ring.read_now(tensor.extent, &mut self.held.1)?;
            if crc32c::crc32c(&self.held.1) != crc {
                return Err(damaged(name, "the checksum of its bytes does not fit"));
            }
            name.clone_into(&mut self.held.0);
        }
        let start = (vector.extent.offset - tensor.extent.offset) as usize;
        Ok(self.held.1[start..][..vector.extent.bytes as usize].to_vec())
    }
}

/// Checks matrices of a packed folder that are not packed: once, since what is read of them later has no checksum.
pub(crate) fn check_matrices(catalog: &Catalog, spec: &ModelSpec, ring: &mut Ring) -> Result<(), Error> {
    let plain = spec.matrices().chain(spec.tables()).filter(|matrix| matrix.tiles.is_none());
    let names: BTreeSet<&str> = plain.map(|matrix| matrix.name.as_str()).collect();
    for name in names {
        let Some((tensor, crc)) = catalog.get(name).zip(catalog.checksum(name)) else { continue };
        let (mut at, end) = (tensor.extent.offset, tensor.extent.offset + tensor.extent.bytes);
        let (mut found, mut bytes) = (0, Vec::new());
        while at < end {
            let extent = Extent { offset: at, bytes: READ_BYTES.min(end - at), ..tensor.extent };
            bytes.resize(extent.bytes as usize, 0);
            ring.read_now(extent, &mut bytes)?;
            found = crc32c::crc32c_append(found, &bytes);
            at += extent.bytes;
        }
        if found != crc {
            return Err(damaged(name, "the checksum of its bytes does not fit"));
        }
    }
    Ok(())
}

/// The tables of a packed matrix, by which its rows are found on disk.
#[derive(Debug)]
pub(crate) struct PackedRows {
    name: String,
    row_bytes: usize,
    tiles: Vec<(TileRows, Vec<u8>)>,
}

impl PackedRows {
    /// Reads the tables of `matrix`, if it is packed.
    pub(crate) fn open(matrix: &Matrix, ring: &mut Ring) -> Result<Option<Self>, Error> {
        let Some(rows) = &matrix.tiles else { return Ok(None) };
        let mut tiles = Vec::new();
        for tile in rows.iter() {
            let total = tile.extent.bytes as usize;
            let mut bytes = vec![0; TABLE_BYTES.min(total)];
            ring.read_now(Extent { bytes: bytes.len() as u64, ..tile.extent }, &mut bytes)?;
            if PackedTile::table(&bytes, total).is_err() {
                // The rare table that is longer, or damage.
                bytes = vec![0; total];
                ring.read_now(tile.extent, &mut bytes)?;
            }
            let table =
                PackedTile::table(&bytes, total).map_err(|e| damaged(&matrix.name, &e.to_string()))?;
            if table.rows != tile.rows || table.cols != matrix.cols || table.dtype != matrix.dtype {
                return Err(damaged(&matrix.name, "a tile is not the one that the sidecar describes"));
            }
            bytes.truncate(table.place(0).0.start);
            bytes.shrink_to_fit();
            tiles.push((*tile, bytes));
        }
        Ok(Some(Self { name: matrix.name.clone(), row_bytes: matrix.row_bytes() as usize, tiles }))
    }

    /// Reads the rows `rows` and puts them into `out` one after the other, as they were before they were packed.
    pub(crate) fn read(&self, ring: &mut Ring, rows: &[u32], out: &mut [u8]) -> Result<(), Error> {
        let fail = |error: aerostat_backend::Error| damaged(&self.name, &error.to_string());
        let places = rows.iter().map(|&row| self.place(row as usize)).collect::<Result<Vec<_>, Error>>()?;
        let (mut done, mut unpacked) = (0, Vec::new());
        while done < places.len() {
            let mut bytes = 0;
            let count = places[done..].iter().take_while(|place| {
                let first = bytes == 0;
                bytes += place.extent.bytes;
                first || bytes <= READ_BYTES
            });
            let batch = &places[done..done + count.count()];
            let extents: Vec<Extent> = batch.iter().map(|place| place.extent).collect();
            let mut packed = vec![0; extents.iter().map(|e| e.bytes as usize).sum()];
            ring.read_many_now(&extents, &mut packed)?;
            let mut rest = packed.as_slice();
            for (place, out) in batch.iter().zip(out[done * self.row_bytes..].chunks_mut(self.row_bytes)) {
                let (group, after) = rest.split_at(place.extent.bytes as usize);
                rest = after;
                let tile = PackedTile::table(place.table, place.total).map_err(fail)?;
                tile.check_group(place.group, group).map_err(fail)?;
                unpacked.clear();
                tile.expand_group(place.group, group, &mut unpacked).map_err(fail)?;
                out.copy_from_slice(&unpacked[place.row * self.row_bytes..][..self.row_bytes]);
            }
            done += batch.len();
        }
        Ok(())
    }

    fn place(&self, row: usize) -> Result<Place<'_>, Error> {
        let after = self.tiles.partition_point(|(tile, _)| tile.start <= row);
        let Some((tile, table)) = self.tiles.get(after.wrapping_sub(1)) else {
            return Err(damaged(&self.name, "it lacks a row that is asked for"));
        };
        let total = tile.extent.bytes as usize;
        let parsed = PackedTile::table(table, total).map_err(|e| damaged(&self.name, &e.to_string()))?;
        let (within, group_rows) = (row - tile.start, parsed.group_rows);
        let range = parsed.place(within / group_rows).0;
        let (offset, bytes) = (tile.extent.offset + range.start as u64, range.len() as u64);
        Ok(Place {
            extent: Extent { offset, bytes, ..tile.extent },
            table,
            total,
            group: within / group_rows,
            row: within % group_rows,
        })
    }
}

/// Where a row lies.
struct Place<'a> {
    extent: Extent,
    table: &'a [u8],
    total: usize,
    group: usize,
    /// Row within the group.
    row: usize,
}

fn damaged(name: &str, what: &str) -> Error {
    let message = format!("tensor {name:?} of the packed model is damaged: {what}; pack the model again");
    Error::new(ErrorKind::Io, message)
}
