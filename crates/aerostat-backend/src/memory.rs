//! Host memory: the buffers and the KV cache of a host device, and views into them.

use std::cell::Cell;

use aerostat_checkpoint::DType;

use crate::aligned::{Advise, Aligned};
use crate::numerics::LANES;
use crate::rows::Rows;
use crate::weights::Weights;
use crate::{
    Allocated, Attention, BufferId, Error, KvElement, KvLayout, Mat, Placement, RowPlace, check, defect,
    formats,
};

/// Everything that a host device keeps between ops.
#[derive(Default)]
pub struct HostMemory {
    pub(crate) buffers: Vec<Aligned<f32>>,
    pub(crate) weights: Weights,
    pub(crate) kv: Option<KvMemory>,
    pub(crate) rows: Rows,
    pub(crate) sums: PartialSums,
}

impl HostMemory {
    /// What is allocated here; `scratch_bytes` is what kernels have besides.
    pub(crate) fn allocated(&self, scratch_bytes: u64) -> Allocated {
        Allocated {
            buffers_bytes: self.buffers.iter().map(Aligned::bytes).sum(),
            weights_bytes: self.weights.resident_bytes(),
            kv_bytes: self.kv.as_ref().map_or(0, KvMemory::bytes),
            scratch_bytes: scratch_bytes + self.rows.bytes() + self.sums.bytes(),
        }
    }
}

/// The partial sums of the matrix stored by inputs that is being multiplied, `[rows, 16 * outputs]`: lane `k % 16` of
/// output `n` is column `k % 16 * outputs + n`.
#[derive(Default)]
pub(crate) struct PartialSums {
    lanes: Option<Aligned<f32>>,
    /// Rows and outputs of the matrix, and the first input of its next tile.
    next: Option<(usize, usize, usize)>,
}

impl PartialSums {
    /// Room for so many rows and outputs.
    pub(crate) fn reserve(&mut self, rows: usize, outputs: usize, advise: Advise<'_>) -> Result<(), Error> {
        let len = lanes_of(outputs).and_then(|lanes| lanes.checked_mul(rows)).ok_or_else(|| {
            Error::shape(format!("the partial sums of {rows} rows and {outputs} outputs overflow"))
        })?;
        if self.lanes.as_ref().map_or(0, |lanes| lanes.as_slice().len()) < len {
            self.lanes = None;
            self.lanes = Some(Aligned::zeroed(len, "partial sums", advise)?);
            self.next = None;
        }
        Ok(())
    }

    /// The lanes that a tile of `inputs` inputs from `k0` on is added to. They go on where the last tile ended, and from
    /// `k0 = 0` on with anything.
    pub(crate) fn of_tile(
        &mut self,
        (rows, outputs): (usize, usize),
        (k0, inputs): (usize, usize),
    ) -> Result<View<'_>, Error> {
        if k0 > 0 && self.next != Some((rows, outputs, k0)) {
            return Err(Error::shape(format!(
                "a tile of {rows} rows and {outputs} outputs from input {k0} on does not follow the last one: (rows, \
                 outputs, next input) is {:?}",
                self.next
            )));
        }
        let cols = lanes_of(outputs).unwrap_or(usize::MAX);
        let len = rows.saturating_mul(cols);
        let room = self.lanes.as_mut().map_or(&mut [][..], Aligned::as_mut_slice);
        if room.len() < len {
            return Err(Error::shape(format!(
                "partial sums of {rows} rows and {outputs} outputs take {len} values where {} are reserved",
                room.len()
            )));
        }
        self.next = Some((rows, outputs, k0 + inputs));
        Ok(View { cells: Cell::from_mut(room).as_slice_of_cells(), rows, cols, stride: cols })
    }

    /// No further tile of the matrix follows.
    pub(crate) fn finish(&mut self) {
        self.next = None;
    }

    fn bytes(&self) -> u64 {
        self.lanes.as_ref().map_or(0, Aligned::bytes)
    }
}

/// Partial sums of so many outputs.
fn lanes_of(outputs: usize) -> Option<usize> {
    outputs.checked_mul(LANES)
}

/// Some rows and columns of a buffer, which other views may share.
#[derive(Clone, Copy)]
pub struct View<'a> {
    cells: &'a [Cell<f32>],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> View<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between rows in elements; 0 where all rows are the same one.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// One row.
    ///
    /// # Panics
    /// When `row` is not below [`rows`](Self::rows).
    pub fn row(&self, row: usize) -> &'a [Cell<f32>] {
        assert!(row < self.rows);
        &self.cells[row * self.stride..][..self.cols]
    }

    /// Its columns `start .. start + cols`.
    ///
    /// # Panics
    /// When they are not among its columns.
    pub fn col_range(self, start: usize, cols: usize) -> Self {
        assert!(start <= self.cols && cols <= self.cols - start);
        Self { cells: self.cells.get(start..).unwrap_or_default(), cols, ..self }
    }

    /// Element (0, 0); row `r` starts `r * stride` elements further. All elements lie in one allocation.
    pub fn as_ptr(&self) -> *mut f32 {
        self.cells.as_ptr().cast_mut().cast()
    }

    /// This view's only row, `rows` times.
    pub(crate) fn repeated(self, rows: usize) -> Self {
        Self { rows, stride: 0, ..self }
    }
}

/// One layer of the KV cache.
#[derive(Clone, Copy)]
pub struct KvView<'a> {
    /// How keys are stored, little-endian.
    pub key_type: KvElement,
    /// How values are stored; where values are the first elements of keys, as those are.
    pub value_type: KvElement,
    /// `[pages, heads, page_tokens, key size]`, dense: the keys of a head in a page lie together.
    pub keys: &'a [u8],
    /// `[pages, heads, page_tokens, value size]`, dense: the values of a head in a page lie together.
    pub values: &'a [u8],
    /// KV heads of the layer.
    pub heads: usize,
    /// Elements of a slot's keys, of all heads.
    pub key_width: usize,
    /// Elements of a slot's values, of all heads; where values are the first elements of keys, that of a key.
    pub value_width: usize,
    /// Positions in a page.
    pub page_tokens: usize,
}

impl KvView<'_> {
    /// With the values that an attention reads.
    pub(crate) fn for_attention(self, shape: &Attention) -> Self {
        match shape.values_in_keys {
            true => {
                Self { values: self.keys, value_width: self.key_width, value_type: self.key_type, ..self }
            }
            false => self,
        }
    }

    /// The slot of `position` in the sequence of `place`.
    #[inline]
    pub fn slot(&self, places: &Placement<'_>, place: RowPlace, position: usize) -> usize {
        slot(self.page_tokens, places, place, position)
    }

    /// Where in `keys` the key of `head` in `slot` starts. The next slot of a page follows directly.
    #[inline]
    pub fn key_at(&self, slot: usize, head: usize) -> usize {
        line((self.heads, self.page_tokens), slot, head) * self.key_bytes()
    }

    /// Where in `values` the value of `head` in `slot` starts. The next slot of a page follows directly.
    #[inline]
    pub fn value_at(&self, slot: usize, head: usize) -> usize {
        line((self.heads, self.page_tokens), slot, head) * self.value_bytes()
    }

    /// Bytes of a key.
    #[inline]
    pub fn key_bytes(&self) -> usize {
        self.key_type.row_bytes(self.key_width / self.heads)
    }

    /// Bytes of a value; where values are the first elements of keys, of a key.
    #[inline]
    pub fn value_bytes(&self) -> usize {
        self.value_type.row_bytes(self.value_width / self.heads)
    }
}

/// The KV cache: keys and values of each layer apart.
pub(crate) struct KvMemory {
    pub(crate) layout: KvLayout,
    keys: Vec<Aligned<u8>>,
    values: Vec<Aligned<u8>>,
}

impl KvMemory {
    pub(crate) fn new(layout: &KvLayout, advise: Advise<'_>) -> Result<Self, Error> {
        let slots = check::kv_layout(layout)?;
        let allocate = |of: KvElement, widths: &[usize]| -> Result<Vec<Aligned<u8>>, Error> {
            let bytes = |(width, heads): (&usize, &usize)| {
                let row = of.row_bytes(width / heads);
                let bytes = slots.checked_mul(*heads).and_then(|rows| rows.checked_mul(row));
                let bytes =
                    bytes.ok_or_else(|| Error::shape("the KV cache has more bytes than fit a usize"))?;
                Aligned::zeroed(bytes, "the KV cache", advise)
            };
            widths.iter().zip(&layout.heads).map(bytes).collect()
        };
        Ok(Self {
            layout: layout.clone(),
            keys: allocate(layout.keys, &layout.key_widths)?,
            values: allocate(layout.values, &layout.value_widths)?,
        })
    }

    /// `layer` must have been checked.
    pub(crate) fn view(&self, layer: usize) -> KvView<'_> {
        KvView {
            key_type: self.layout.keys,
            value_type: self.layout.values,
            keys: self.keys[layer].as_slice(),
            values: self.values[layer].as_slice(),
            heads: self.layout.heads[layer],
            key_width: self.layout.key_widths[layer],
            value_width: self.layout.value_widths[layer],
            page_tokens: self.layout.page_tokens,
        }
    }

    /// What it takes.
    fn bytes(&self) -> u64 {
        self.keys.iter().chain(&self.values).map(Aligned::bytes).sum()
    }

    /// Whether a page exists.
    pub(crate) fn check_page(&self, page: u32) -> Result<usize, Error> {
        let pages = self.layout.pages;
        if (page as usize) < pages {
            return Ok(page as usize);
        }
        Err(Error::shape(format!("there is no page {page}; the KV cache has {pages}")))
    }

    /// Gives the bytes of a page that exists to `take`, layer by layer.
    pub(crate) fn save(&self, page: usize, take: &mut dyn FnMut(&[u8])) {
        for memory in self.keys.iter().zip(&self.values).flat_map(|(keys, values)| [keys, values]) {
            let memory = memory.as_slice();
            let bytes = memory.len() / self.layout.pages;
            take(&memory[page * bytes..][..bytes]);
        }
    }

    /// Has `visit` write the bytes of a page that exists, layer by layer.
    pub(crate) fn load(&mut self, page: usize, visit: &mut dyn FnMut(&mut [u8])) {
        for (keys, values) in self.keys.iter_mut().zip(&mut self.values) {
            for memory in [keys, values] {
                let memory = memory.as_mut_slice();
                let bytes = memory.len() / self.layout.pages;
                visit(&mut memory[page * bytes..][..bytes]);
            }
        }
    }

    /// Copies the keys and values of slots, `(from, to)`, all of them checked, in all layers.
    pub(crate) fn copy(&mut self, slots: &[(u32, u32)]) {
        let KvLayout { keys, values, page_tokens, .. } = self.layout;
        for layer in 0..self.layout.heads.len() {
            let heads = self.layout.heads[layer];
            let widths = (self.layout.key_widths[layer], self.layout.value_widths[layer]);
            for (element, width, memory) in
                [(keys, widths.0, &mut self.keys[layer]), (values, widths.1, &mut self.values[layer])]
            {
                let bytes = element.row_bytes(width / heads.max(1));
                let at = |slot: u32, head| line((heads, page_tokens), slot as usize, head) * bytes;
                for (&(from, to), head) in slots.iter().flat_map(|pair| (0..heads).map(move |h| (pair, h))) {
                    let from = at(from, head);
                    memory.as_mut_slice().copy_within(from..from + bytes, at(to, head));
                }
            }
        }
    }

    /// Stores the rows `k` and `v`, all of them checked.
    pub(crate) fn store(&mut self, layer: usize, k: View<'_>, v: View<'_>, places: Placement<'_>) {
        let KvLayout { keys, values, page_tokens, .. } = self.layout;
        let heads = self.layout.heads[layer];
        for (row, &place) in places.rows.iter().enumerate() {
            let slot = slot(page_tokens, &places, place, place.position as usize);
            for (element, from, to) in
                [(keys, k, &mut self.keys[layer]), (values, v, &mut self.values[layer])]
            {
                let (width, to) = (from.cols(), to.as_mut_slice());
                for (head, from) in from.row(row).chunks((width / heads).max(1)).enumerate() {
                    let bytes = element.row_bytes(from.len());
                    let start = line((heads, page_tokens), slot, head) * bytes;
                    encode(element, from, &mut to[start..][..bytes]);
                }
            }
        }
    }
}

/// A zeroed buffer of f32.
pub(crate) fn buffer(len: usize, advise: Advise<'_>) -> Result<Aligned<f32>, Error> {
    Aligned::zeroed(len, "a buffer", advise)
}

/// The buffer `id`.
pub(crate) fn find(buffers: &mut [Aligned<f32>], id: BufferId) -> Result<&mut [f32], Error> {
    let count = buffers.len();
    match buffers.get_mut(id.0 as usize) {
        Some(buffer) => Ok(buffer.as_mut_slice()),
        None => Err(Error::shape(format!("there is no buffer {}; {count} are allocated", id.0))),
    }
}

/// Views of matrices, each checked against its buffer.
pub(crate) fn views<const N: usize>(
    buffers: &mut [Aligned<f32>],
    mats: [Mat; N],
) -> Result<[View<'_>; N], Error> {
    for mat in &mats {
        let len = find(buffers, mat.buffer)?.len();
        check::mat(mat, len)?;
    }
    let mut views = mats.map(|mat| View { cells: &[], rows: mat.rows, cols: mat.cols, stride: mat.stride });
    // By ascending buffer, so that each is split off what is left, however many there are.
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_unstable_by_key(|&i| mats[i].buffer.0);
    let (mut rest, mut first) = (buffers, 0);
    let (mut buffer, mut cells): (_, &[Cell<f32>]) = (None, &[]);
    for i in order {
        let Mat { buffer: BufferId(id), offset, .. } = mats[i];
        if buffer != Some(id) {
            let (_, from) = rest.split_at_mut(id as usize - first);
            let Some((found, after)) = from.split_first_mut() else {
                return Err(defect!("buffer {id} was found before"));
            };
            cells = Cell::from_mut(found.as_mut_slice()).as_slice_of_cells();
            (buffer, rest, first) = (Some(id), after, id as usize + 1);
        }
        views[i].cells = cells.get(offset..).unwrap_or_default();
    }
    Ok(views)
}

#[inline]
fn slot(page_tokens: usize, places: &Placement<'_>, place: RowPlace, position: usize) -> usize {
    if let Some(branch) = place.branch
        && let Some(after) = position.checked_sub(branch.from as usize)
    {
        return places.slots[branch.slots as usize + after] as usize;
    }
    let page = places.pages[place.table as usize + position / page_tokens];
    page as usize * page_tokens + position % page_tokens
}

/// The number of a head of a slot in `[pages, heads, page_tokens]`.
#[inline]
fn line((heads, page_tokens): (usize, usize), slot: usize, head: usize) -> usize {
    let (page, token) = (slot / page_tokens, slot % page_tokens);
    (page * heads + head) * page_tokens + token
}

fn encode(element: KvElement, from: &[Cell<f32>], to: &mut [u8]) {
    let mut from = from.iter().map(Cell::get);
    match element {
        KvElement::F16 => put(from.map(|v| half::f16::from_f32(v).to_le_bytes()), to),
        KvElement::BF16 => put(from.map(|v| half::bf16::from_f32(v).to_le_bytes()), to),
        KvElement::F32 => put(from.map(f32::to_le_bytes), to),
        KvElement::Q8 => {
            for block in to.chunks_exact_mut(DType::Q8_0.block_bytes()) {
                let mut run = [0.0; DType::Q8_0.block_len()];
                for (element, value) in run.iter_mut().zip(&mut from) {
                    *element = value;
                }
                formats::q8_0(&run, block);
            }
        }
    }
}

fn put<const N: usize>(from: impl Iterator<Item = [u8; N]>, to: &mut [u8]) {
    for (to, bytes) in to.chunks_exact_mut(N).zip(from) {
        to.copy_from_slice(&bytes);
    }
}
