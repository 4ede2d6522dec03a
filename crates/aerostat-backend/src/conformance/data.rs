//! The data of cases: random values, weights and caches.

use std::ops::Deref;

use aerostat_checkpoint::DType;

use super::case::{Case, Keep, Values};
use crate::{
    Attention, Backend, Branch, BufferId, Error, Home, HostBytes, KvLayout, KvType, Mat, Placement, RowPlace,
    StateRow, SweepRows, TileShape, Weight,
};

/// Sets the places of rows without states.
fn set_places(
    device: &mut dyn Backend,
    (rows, pages, slots): (&[RowPlace], &[u32], &[u32]),
) -> Result<(), Error> {
    device.set_rows(SweepRows { places: Placement { rows, pages, slots }, states: &[] })
}

/// Sets the states of rows, which have places of no cache.
pub(super) fn set_states(device: &mut dyn Backend, states: &[StateRow]) -> Result<(), Error> {
    let rows: Vec<RowPlace> = states.iter().map(|state| RowPlace::new(state.position, 0)).collect();
    device.set_rows(SweepRows { places: Placement { rows: &rows, pages: &[0; 8], slots: &[] }, states })
}

/// The rows of two sweeps, the first and the second part of each sequence; slots in descending order, the last unused.
pub(super) fn sweeps(lengths: &[(usize, usize)]) -> [Vec<StateRow>; 2] {
    [0, 1].map(|sweep| {
        let rows = lengths.iter().enumerate().flat_map(|(i, &(first, second))| {
            let positions = if sweep == 0 { 0..first } else { first..first + second };
            let slot = (lengths.len() - i) as u32;
            positions.map(move |position| StateRow { slot, position: position as u32 })
        });
        rows.collect()
    })
}

/// All rows at once, or one by one, each with its place.
pub(super) fn portions(rows: &[StateRow], one_by_one: bool) -> impl Iterator<Item = (usize, &[StateRow])> {
    let size = if one_by_one { 1 } else { rows.len().max(1) };
    rows.chunks(size).enumerate().map(move |(i, rows)| (i * size, rows))
}

/// Sequences in shuffled pages of a device's cache, and the rows that ask for them.
pub(super) struct Cache {
    /// Every fifth and the last position of each sequence.
    asked: Vec<RowPlace>,
    pages: Vec<u32>,
    slots: Vec<u32>,
    page_tokens: usize,
}

impl Cache {
    /// Sequences of the given lengths.
    pub(super) fn new(
        device: &mut dyn Backend,
        random: &mut Random,
        (kv_type, page_tokens, values): (KvType, usize, Values),
        shape: &Attention,
        value_width: usize,
        lengths: &[usize],
    ) -> Result<Self, Error> {
        let key_width = shape.kv_heads * shape.key_dim;
        let pages: usize = lengths.iter().map(|length| length.div_ceil(page_tokens)).sum();
        // Positions run up to the longest sequence; a spare page and a spare layer show wrong strides.
        device.kv_allocate(&KvLayout {
            keys: kv_type.keys(),
            values: kv_type.values(),
            key_widths: vec![key_width; 2],
            value_widths: vec![value_width; 2],
            heads: vec![shape.kv_heads; 2],
            page_tokens,
            pages: pages + 1,
        })?;
        let mut order: Vec<u32> = (0..=pages as u32).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        let (mut all, mut asked, mut table) = (Vec::new(), Vec::new(), 0);
        for &length in lengths {
            let last = if shape.ahead { length as u32 - 1 } else { 0 };
            let place = |position| RowPlace { last: last.max(position), ..RowPlace::new(position, table) };
            let places = (0..length as u32).map(place);
            let picked =
                |place: &RowPlace| place.position.is_multiple_of(5) || place.position as usize == length - 1;
            asked.extend(places.clone().filter(picked));
            all.extend(places);
            table += length.div_ceil(page_tokens) as u32;
        }
        let k = matrix(device, random, all.len(), key_width, values)?;
        let v = matrix(device, random, all.len(), value_width, values)?;
        set_places(device, (&all, &order, &[]))?;
        device.kv_write(1, k, v)?;
        Ok(Self { asked, pages: order, slots: Vec::new(), page_tokens })
    }

    /// Rows that are asked for.
    pub(super) fn rows(&self) -> usize {
        self.asked.len()
    }

    /// Makes the rows that are asked for those of the sweep.
    pub(super) fn ask(&self, device: &mut dyn Backend) -> Result<(), Error> {
        set_places(device, (&self.asked, &self.pages, &self.slots))
    }

    /// Takes the end of the last sequence to slots of the page that is spare, and overwrites where it was.
    pub(super) fn branch(&mut self, device: &mut dyn Backend) -> Result<(), Error> {
        let Some(&RowPlace { position: last, table, .. }) = self.asked.last() else { return Ok(()) };
        let page_tokens = self.page_tokens as u32;
        let page = |at: u32| self.pages[at as usize] * page_tokens;
        let slot = |position: u32| page(table + position / page_tokens) + position % page_tokens;
        let spare = page(self.pages.len() as u32 - 1);
        let from = (last + 1).saturating_sub(page_tokens.min(7));
        let moved: Vec<(u32, u32)> = (from..=last).zip(spare..).map(|(p, to)| (slot(p), to)).collect();
        device.kv_copy(&moved)?;
        let other = self.pages[0] * page_tokens;
        device.kv_copy(&moved.iter().map(|(from, _)| (other, *from)).collect::<Vec<_>>())?;
        // Those of others in between.
        self.slots.extend([u32::MAX].into_iter().chain(moved.iter().map(|(_, to)| *to)));
        for place in &mut self.asked {
            if place.table == table && place.position >= from {
                place.branch = Some(Branch { from, slots: 1 });
            }
        }
        Ok(())
    }

    /// Takes the first sequence's first page to the one that is spare.
    pub(super) fn move_first_page(&mut self, device: &mut dyn Backend) -> Result<(), Error> {
        let (mut saved, mut pieces) = (Vec::new(), Vec::new());
        device.kv_save(self.pages[0], &mut |bytes| {
            saved.extend_from_slice(bytes);
            pieces.push(bytes.len());
        })?;
        let last = self.pages.len() - 1;
        self.pages.swap(0, last);
        let (mut rest, mut filled) = (saved.as_slice(), Vec::new());
        device.kv_load(self.pages[0], &mut |bytes| {
            let (now, later) = rest.split_at(bytes.len().min(rest.len()));
            bytes[..now.len()].copy_from_slice(now);
            (rest, filled) = (later, [filled.as_slice(), &[bytes.len()]].concat());
        })?;
        if pieces == filled {
            Ok(())
        } else {
            Err(Error::shape("pages are loaded in other pieces than saved"))
        }
    }
}

/// A matrix of random values, somewhere in a buffer of random values.
pub(super) fn matrix(
    device: &mut dyn Backend,
    random: &mut Random,
    rows: usize,
    cols: usize,
    values: Values,
) -> Result<Mat, Error> {
    let (offset, stride) = (random.below(20), cols + random.below(3) * 3);
    let len = offset + rows * stride;
    let buffer = device.allocate(len)?;
    let data: Vec<f32> = (0..len).map(|_| random.value(values)).collect();
    device.write(Mat::new(buffer, 1, len), &data)?;
    Ok(Mat { buffer, offset, rows, cols, stride })
}

/// The buffer of a matrix up to its end.
pub(super) fn everything(device: &mut dyn Backend, mat: Mat) -> Result<Vec<f32>, Error> {
    let Mat { buffer: BufferId(id), offset, rows, stride, .. } = mat;
    Ok(device.read(Mat::new(BufferId(id), 1, offset + rows * stride))?.to_vec())
}

/// Does an op with a plain tile.
pub(super) fn with_weight(
    device: &mut dyn Backend,
    dtype: DType,
    (rows, cols): (usize, usize),
    bytes: &[u8],
    kept: Keep,
    op: impl FnOnce(&mut dyn Backend, Weight) -> Result<(), Error>,
) -> Result<(), Error> {
    keep(device, TileShape { dtype, rows, cols, packed: false }, bytes, kept, op)
}

/// Does an op with a tile, which is released after it.
pub(super) fn keep(
    device: &mut dyn Backend,
    shape: TileShape,
    bytes: &[u8],
    kept: Keep,
    op: impl FnOnce(&mut dyn Backend, Weight) -> Result<(), Error>,
) -> Result<(), Error> {
    match kept {
        Keep::Arriving(shift) => {
            let id = device.upload(shape, shifted(bytes, shift))?;
            let done = op(device, Weight::Arriving(id));
            device.release(id);
            done
        }
        Keep::Resident => {
            let id = device.pin(shape, Box::new(bytes.to_vec()), Home::Host)?;
            op(device, Weight::Resident(id))
        }
    }
}

/// Bytes from an address on that is so many bytes past an even one.
pub(super) fn shifted(bytes: &[u8], shift: usize) -> HostBytes {
    Box::new(Shifted { bytes: [vec![0xa5; shift].as_slice(), bytes].concat(), shift })
}

struct Shifted {
    bytes: Vec<u8>,
    shift: usize,
}

impl Deref for Shifted {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.shift..]
    }
}

/// Random weights: plain formats hold values, blocks hold random bits and scales of 0.05 or so.
pub(super) fn tile_bytes(random: &mut Random, dtype: DType, len: usize, values: Values) -> Vec<u8> {
    let scales: &[usize] = match dtype {
        DType::F32 => return (0..len).flat_map(|_| random.value(values).to_le_bytes()).collect(),
        DType::F16 => {
            return (0..len).flat_map(|_| half::f16::from_f32(random.value(values)).to_le_bytes()).collect();
        }
        DType::BF16 => {
            return (0..len).flat_map(|_| half::bf16::from_f32(random.value(values)).to_le_bytes()).collect();
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::MXFP4 => &[],
        _ => &[0],
    };
    let mut bytes: Vec<u8> =
        (0..len / dtype.block_len() * dtype.block_bytes()).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scales {
            let scale = half::f16::from_f32(random.value(values) * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if dtype == DType::MXFP4 && values == Values::Plain {
            block[0] = 110 + block[0] % 16;
        }
    }
    bytes
}

/// The transpose of a plain matrix of this shape.
pub(super) fn transposed(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let element = bytes.len() / (rows * cols);
    let at = |i: usize| (i % rows * cols + i / rows) * element;
    (0..rows * cols).flat_map(|i| &bytes[at(i)..][..element]).copied().collect()
}

/// A small generator (splitmix64), the same on every machine.
pub(super) struct Random(u64);

impl Random {
    /// Seeded by the text of a case (FNV-1a).
    pub(super) fn new(case: &Case) -> Self {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(format!("{case:?}").bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn value(&mut self, values: Values) -> f32 {
        const SPECIAL: [f32; 10] =
            [0.0, -0.0, 1e-40, -1e-45, -1e-30, 3e38, -65_504.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        // Most rows of a special case stay finite, so that the other lanes are compared too.
        if values == Values::Special && self.below(40) == 0 {
            let end = if self.below(4) == 0 { SPECIAL.len() } else { 5 };
            return SPECIAL[self.below(end)];
        }
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
