//! Packed tiles: some rows of a weight matrix, coded and guarded by checksums, byte by byte as `docs/format.md` says.
//!
//! A tile is a header, a table, and groups of rows. The table gives each group's end and its CRC-32C, so that threads
//! check and expand groups on their own. The groups of a *stored* tile are rows as their format has them; those of an
//! *exponent* tile are floating-point numbers whose exponents are coded ([`exponents`]), which loses nothing.

mod bytes;
pub mod exponents;

use aerostat_checkpoint::DType;
use bytes::{corrupt, put, word};
use exponents::Split;

use crate::{Error, ErrorKind, Tile};

/// Tiles begin and end at multiples of this, in files and in memory that was read from them.
pub const TILE_ALIGN_BYTES: usize = 4096;
/// Bytes before the table.
const HEADER_BYTES: usize = 64;
/// Bytes of the table for each group.
const ENTRY_BYTES: usize = 8;
/// What readers of streams may touch past the end of the last group's content, within the tile.
pub const SLACK_BYTES: usize = 64;
const VERSION: u8 = 1;
/// Elements of a group at most, unless one row has more.
pub const GROUP_ELEMENTS_MAX: usize = 128 << 10;
/// Rows of a group at most.
const GROUP_ROWS_STORED: usize = 16;
const GROUP_ROWS_EXPONENTS: usize = 8;

/// How the groups of rows of a packed tile are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFormat {
    /// Rows as their format has them.
    Stored,
    /// Exponents are coded: where they are in an element, and those of the symbols, the likeliest first; those past the
    /// thirteenth are 0.
    ExponentCoded(Split, [u8; 16]),
}

/// A tile whose header and table have been checked: every group lies within the bytes.
#[derive(Clone, Copy, Debug)]
pub struct PackedTile<'a> {
    bytes: &'a [u8],
    /// How its groups of rows are stored.
    pub format: GroupFormat,
    /// The format that groups expand to.
    pub dtype: DType,
    /// Rows of the tile.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Rows of each group but the last, a power of two.
    pub group_rows: usize,
    /// Groups.
    pub groups: usize,
}

impl<'a> PackedTile<'a> {
    /// Reads the header and the table of the tile that `bytes` begin with; gives the bytes after it, too.
    ///
    /// # Errors
    /// `Corrupt`: a checksum or a number does not fit.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let mut tile = Self::table(bytes, bytes.len())?;
        let end = tile.entry(tile.groups - 1).0;
        tile.bytes = &bytes[..end];
        Ok((tile, &bytes[end..]))
    }

    /// The same of a tile of at most `total` bytes of which only the first are there: as many as the table takes. Only
    /// what does not look at groups' own bytes may be asked of it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn table(bytes: &'a [u8], total: usize) -> Result<Self, Error> {
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("it ends within its header"))?;
        let number = |at: usize| word(header, at) as usize;
        let (rows, cols, groups) = (number(16), number(20), number(24));
        let start = groups
            .checked_mul(ENTRY_BYTES)
            .and_then(|n| n.checked_add(HEADER_BYTES))
            .filter(|&start| start <= bytes.len())
            .ok_or_else(|| corrupt("its table is longer than the tile"))?;
        if crc32c::crc32c(&bytes[4..start]) != word(header, 0) {
            return Err(corrupt("the checksum of its header does not fit"));
        }
        let name = header[8..16].split(|&b| b == 0).next().unwrap_or_default();
        let dtype = DType::PACKED.iter().copied().find(|d| d.name().as_bytes() == name);
        let dtype = dtype.ok_or_else(|| corrupt("its format is not known"))?;
        let mut palette = [0; 16];
        palette.copy_from_slice(&header[32..48]);
        let format = match (header[4], header[5], Split::of(dtype)) {
            (VERSION, 0, _) => GroupFormat::Stored,
            (VERSION, 1, Some(split)) => GroupFormat::ExponentCoded(split, palette),
            (VERSION, ..) => return Err(corrupt("how its groups are stored is not known")),
            _ => return Err(corrupt("it is of another version of the format")),
        };
        let group_rows = usize::from(header[6]);
        let whole = group_rows.is_power_of_two() && rows > 0 && rows.div_ceil(group_rows) == groups;
        if !whole || cols == 0 || !cols.is_multiple_of(dtype.block_len()) {
            return Err(corrupt("its rows, columns and groups do not fit each other"));
        }
        let tile = PackedTile { bytes, format, dtype, rows, cols, group_rows, groups };
        let mut end = start;
        for group in 0..groups {
            let next = tile.entry(group).0;
            let needed =
                if format == GroupFormat::Stored { tile.rows_of(group) * tile.row_bytes() } else { 0 };
            if next < end || next - end < needed || next > total {
                return Err(corrupt("its table does not run forwards within the tile"));
            }
            end = next;
        }
        if !end.is_multiple_of(TILE_ALIGN_BYTES) {
            return Err(corrupt("it does not end at a multiple of 4096 bytes"));
        }
        Ok(tile)
    }

    /// All its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of a row in the format that groups expand to.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// Rows of a group.
    pub fn rows_of(&self, group: usize) -> usize {
        self.group_rows.min(self.rows - group * self.group_rows)
    }

    /// Where a group's bytes lie in the tile, and their checksum; those of the last group run to the tile's end.
    pub fn place(&self, group: usize) -> (std::ops::Range<usize>, u32) {
        let start = match group {
            0 => HEADER_BYTES + self.groups * ENTRY_BYTES,
            _ => self.entry(group - 1).0,
        };
        let (end, crc) = self.entry(group);
        (start..end, crc)
    }

    /// The bytes of a group once their checksum has been checked.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn checked(&self, group: usize) -> Result<&'a [u8], Error> {
        let bytes = &self.bytes[self.place(group).0];
        self.check_group(group, bytes).map(|()| bytes)
    }

    /// Checks the bytes of a group.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn check_group(&self, group: usize, bytes: &[u8]) -> Result<(), Error> {
        if crc32c::crc32c(bytes) == self.place(group).1 {
            return Ok(());
        }
        Err(corrupt(&format!("the checksum of its row group {group} does not fit")))
    }

    /// Checks the checksums of all groups.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn check(&self) -> Result<(), Error> {
        (0..self.groups).try_for_each(|group| self.checked(group).map(|_| ()))
    }

    /// The rows of a stored tile, which lie end to end.
    pub fn stored(&self) -> Option<Tile<'a>> {
        if self.format != GroupFormat::Stored {
            return None;
        }
        let Self { dtype, rows, cols, .. } = *self;
        let bytes = &self.bytes[self.place(0).0.start..][..rows * self.row_bytes()];
        Some(Tile { dtype, rows, cols, bytes })
    }

    /// Appends the rows of a group to `out` in the format they expand to, from the group's bytes.
    ///
    /// # Errors
    /// `Corrupt`: the bytes are not those of a group.
    pub fn expand_group(&self, group: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let rows = self.rows_of(group);
        match &self.format {
            GroupFormat::Stored => {
                let len = rows * self.row_bytes();
                out.extend(bytes.get(..len).ok_or_else(|| corrupt("a group is too short"))?);
                Ok(())
            }
            GroupFormat::ExponentCoded(split, palette) => split.expand(palette, bytes, rows * self.cols, out),
        }
    }

    /// Appends all rows, every checksum checked.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn expand(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        (0..self.groups).try_for_each(|group| self.expand_group(group, self.checked(group)?, out))
    }

    fn entry(&self, group: usize) -> (usize, u32) {
        let at = HEADER_BYTES + group * ENTRY_BYTES;
        (word(self.bytes, at) as usize, word(self.bytes, at + 4))
    }
}

/// The packed tiles that make up `tile`, one after the other.
///
/// # Errors
/// `Corrupt`: they are not exactly its rows, or of another shape or format.
pub fn parts<'a>(tile: &Tile<'a>) -> impl Iterator<Item = Result<PackedTile<'a>, Error>> {
    let (Tile { dtype, rows, cols, bytes }, mut seen, mut rest) = (*tile, 0, tile.bytes);
    let _ = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            let missing = rows != seen;
            seen = rows;
            return missing.then(|| Err(corrupt("rows are missing after it")));
        }
        let part = PackedTile::parse(std::mem::take(&mut rest)).and_then(|(part, after)| {
            seen += part.rows;
            if part.cols != cols || part.dtype != dtype || seen > rows {
                return Err(corrupt("its shape or format is not what the catalogue says"));
            }
            rest = after;
            Ok(part)
        });
        if part.is_err() {
            seen = rows;
        }
        Some(part)
    })
}

/// The rows of `tile`, one packed tile that is stored, for what multiplies no other; every checksum is checked.
///
/// # Errors
/// `Corrupt`; `Shape`: it is coded, or more than one.
pub fn stored<'a>(tile: &Tile<'a>) -> Result<Tile<'a>, Error> {
    let mut parts = parts(tile);
    match (parts.next().transpose()?, parts.next()) {
        (Some(part), None) => {
            part.check()?;
            part.stored().ok_or_else(|| Error::shape("this matrix cannot be multiplied with coded exponents"))
        }
        (_, Some(Err(error))) => Err(error),
        _ => Err(Error::shape("this matrix is multiplied by one packed tile at a time")),
    }
}

/// Row `row` of packed tiles in the format they expand to; `buffer` is overwritten.
///
/// # Errors
/// `Corrupt`; `Shape`: there is no such row.
pub fn row<'b>(tile: &Tile<'_>, row: usize, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
    let mut first = 0;
    for part in parts(tile) {
        let part = part?;
        if row < first + part.rows {
            let group = (row - first) / part.group_rows;
            buffer.clear();
            part.expand_group(group, part.checked(group)?, buffer)?;
            let bytes = part.row_bytes();
            return Ok(&buffer[(row - first) % part.group_rows * bytes..][..bytes]);
        }
        first += part.rows;
    }
    Err(Error::shape(format!("packed tiles of {first} rows have no row {row}")))
}

/// Packs whole rows of a matrix of `tile.cols` columns: with coded exponents where the format has some ([`Split::of`]),
/// that is smaller and `lossless` asks for it, else as they are. The same input gives the same bytes everywhere.
///
/// # Errors
/// `Shape`: the tile does not have its bytes; `Unsupported`: packed tiles are not of its format.
pub fn pack(tile: &Tile<'_>, lossless: bool) -> Result<Vec<u8>, Error> {
    if !DType::PACKED.contains(&tile.dtype) {
        let message = format!("weights in {} cannot be packed", tile.dtype);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    crate::check::tile(tile)?;
    if tile.rows == 0 || tile.cols == 0 {
        return Err(Error::shape("a tile without elements cannot be packed"));
    }
    let stored = || build(tile, GroupFormat::Stored, GROUP_ROWS_STORED);
    let Some(split) = Split::of(tile.dtype).filter(|_| lossless) else { return Ok(stored()) };
    let coded =
        build(tile, GroupFormat::ExponentCoded(split, split.palette(tile.bytes)), GROUP_ROWS_EXPONENTS);
    let plain = stored();
    Ok(if coded.len() < plain.len() { coded } else { plain })
}

fn build(tile: &Tile<'_>, format: GroupFormat, group_rows_max: usize) -> Vec<u8> {
    let Tile { dtype, rows, cols, bytes } = *tile;
    let mut group_rows = group_rows_max;
    while group_rows > 1 && group_rows * cols > GROUP_ELEMENTS_MAX {
        group_rows /= 2;
    }
    let groups = rows.div_ceil(group_rows);
    let start = HEADER_BYTES + groups * ENTRY_BYTES;
    let mut out = Vec::with_capacity(start + bytes.len() + TILE_ALIGN_BYTES);
    out.resize(start, 0);
    let mut ends = Vec::with_capacity(groups);
    for group in bytes.chunks(group_rows * (bytes.len() / rows)) {
        match &format {
            GroupFormat::Stored => out.extend_from_slice(group),
            GroupFormat::ExponentCoded(split, palette) => split.code(palette, group, &mut out),
        }
        ends.push(out.len());
    }
    out.resize((out.len() + SLACK_BYTES).next_multiple_of(TILE_ALIGN_BYTES), 0);
    if let Some(last) = ends.last_mut() {
        *last = out.len();
    }
    let mut from = start;
    for (group, &end) in ends.iter().enumerate() {
        let crc = crc32c::crc32c(&out[from..end]);
        put(&mut out, HEADER_BYTES + group * ENTRY_BYTES, end as u32);
        put(&mut out, HEADER_BYTES + group * ENTRY_BYTES + 4, crc);
        from = end;
    }
    out[4] = VERSION;
    out[6] = group_rows as u8;
    out[8..][..dtype.name().len()].copy_from_slice(dtype.name().as_bytes());
    for (at, n) in [(16, rows), (20, cols), (24, groups)] {
        put(&mut out, at, n as u32);
    }
    if let GroupFormat::ExponentCoded(_, palette) = format {
        out[5] = 1;
        out[32..48].copy_from_slice(&palette);
    }
    let crc = crc32c::crc32c(&out[4..start]);
    put(&mut out, 0, crc);
    out
}
