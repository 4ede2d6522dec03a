//! The layout of a packed copy, decided before anything is written: which tensor goes where, in which format, cut at
//! which rows. It is kept in the folder until packing is finished, so that going on needs no header of files that may
//! have been deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aerostat_arch::{Block, Matrix, ModelSpec};
use aerostat_checkpoint::packed::{Beside, TileRows};
use aerostat_checkpoint::{Catalog, DType, Extent, File, FileId, Tensor};
use serde::{Deserialize, Serialize};

use crate::codec::{Place, Use, lossless_ratio, matrices, refusal};
use crate::{Codec, Error, ErrorKind, Options};

/// Rows of a tile are a multiple of this, unless fewer fit or a cut comes before.
const TILE_ROWS_UNIT: u64 = 16;
/// Bytes of a piece of a tensor that is copied as it is.
const PIECE_BYTES: u64 = 1 << 20;

/// The whole plan of a packing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) codec: String,
    pub(crate) parameters: BTreeMap<String, u64>,
    /// Files of the original, and their bytes.
    pub(crate) sources: Vec<(PathBuf, u64)>,
    /// What is copied beside the weights and used.
    pub(crate) files: Vec<Beside>,
    pub(crate) shards: Vec<ShardLayout>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShardLayout {
    pub(crate) file: String,
    pub(crate) tensors: Vec<Job>,
}

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) name: String,
    /// Names of formats: as it is, and as it becomes.
    pub(crate) from: String,
    pub(crate) to: String,
    /// As it becomes.
    pub(crate) shape: Vec<u64>,
    /// The last two dimensions are exchanged.
    pub(crate) transposed: bool,
    /// Exponents are coded where that saves bytes; by its first name in journals that were begun.
    #[serde(rename = "coded")]
    pub(crate) exponent_coded: bool,
    pub(crate) file: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Rows of each tile; none: it is copied as it is.
    pub(crate) tiles: Vec<u64>,
}

impl Layout {
    /// Decides what becomes of a model.
    pub(crate) fn of(catalog: &Catalog, spec: &ModelSpec, options: &Options) -> Result<Self, Error> {
        if catalog.codec().is_some() {
            return Err(Error::new(ErrorKind::Usage, "this model is packed already; pack the original"));
        }
        if let Some(message) = refusal(spec, options.codec) {
            return Err(Error::new(ErrorKind::Source, message));
        }
        let (order, uses) = matrices(spec);
        let cuts = cuts(spec, catalog);
        let rest = catalog.tensors().filter(|tensor| !uses.contains_key(tensor.name.as_str()));
        let all = order.iter().filter_map(|name| catalog.get(name)).chain(rest);
        let mut groups: Vec<Vec<Job>> = Vec::new();
        let mut held = u64::MAX;
        for tensor in all {
            let used = uses.get(tensor.name.as_str()).copied();
            if held.saturating_add(tensor.extent.bytes) > options.shard_bytes && held > 0 {
                groups.push(Vec::new());
                held = 0;
            }
            held += tensor.extent.bytes;
            if let Some(group) = groups.last_mut() {
                group.push(job(tensor, used, cuts.get(tensor.name.as_str()), options));
            }
        }
        let count = groups.len();
        let name = |i: usize| match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let shards = groups.into_iter().enumerate();
        let shards = shards.map(|(i, tensors)| ShardLayout { file: name(i), tensors }).collect();
        let sources = catalog.files().iter().map(|file| (file.path.clone(), file.bytes)).collect();
        let parameters = [("tile_bytes", options.tile_bytes), ("shard_bytes", options.shard_bytes)];
        Ok(Self {
            codec: options.codec.name().to_owned(),
            parameters: parameters.map(|(name, n)| (name.to_owned(), n)).into(),
            sources,
            files: Vec::new(),
            shards,
        })
    }

    /// It is what these options ask for.
    pub(crate) fn fits(&self, options: &Options) -> bool {
        let is = |name: &str, value: u64| self.parameters.get(name) == Some(&value);
        self.codec == options.codec.name()
            && is("tile_bytes", options.tile_bytes)
            && is("shard_bytes", options.shard_bytes)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.tensors).map(|job| job.bytes).sum()
    }

    pub(crate) fn files(&self) -> Vec<File> {
        self.sources.iter().map(|(path, bytes)| File { path: path.clone(), bytes: *bytes }).collect()
    }
}

impl Job {
    /// The format it has, and the one it becomes.
    pub(crate) fn formats(&self) -> Result<(DType, DType), Error> {
        let find = |name: &str| DType::PACKED.iter().copied().find(|dtype| dtype.name() == name);
        find(&self.from).zip(find(&self.to)).ok_or_else(|| {
            Error::new(ErrorKind::Source, format!("tensor {:?}: {} is not packed", self.name, self.from))
        })
    }

    pub(crate) fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0) as usize
    }

    /// Rows, all dimensions but the last together.
    pub(crate) fn rows(&self) -> u64 {
        self.shape.split_last().map_or(0, |(_, rows)| rows.iter().product())
    }

    /// Rows of each matrix of a stack, or all.
    pub(crate) fn matrix_rows(&self) -> u64 {
        self.shape.iter().rev().nth(1).copied().unwrap_or(1)
    }

    /// What is read at a time, in order: tiles, or pieces of what is not in tiles or whose matrices are transposed whole.
    pub(crate) fn pieces(&self) -> Vec<Extent> {
        let row = self.bytes / self.rows().max(1);
        let mut offset = self.offset;
        let file = FileId(self.file);
        let mut piece = |bytes: u64| {
            offset += bytes;
            Extent { file, offset: offset - bytes, bytes }
        };
        if !self.tiles.is_empty() && !self.transposed {
            return self.tiles.iter().map(|rows| piece(rows * row)).collect();
        }
        let whole = if self.transposed { row * self.matrix_rows() } else { self.bytes }.max(1);
        let sizes = (0..whole).step_by(PIECE_BYTES as usize).map(|at| PIECE_BYTES.min(whole - at));
        let sizes: Vec<u64> = sizes.collect();
        (0..self.bytes / whole).flat_map(|_| &sizes).map(|&bytes| piece(bytes)).collect()
    }
}

fn job(tensor: &Tensor, used: Option<Use>, cuts: Option<&BTreeSet<u64>>, options: &Options) -> Job {
    let mut shape = tensor.shape.clone();
    let transposed = used.is_some_and(|used| used.k_major) && shape.len() > 1;
    if let Some([.., a, b]) = Some(shape.as_mut_slice()).filter(|_| transposed) {
        std::mem::swap(a, b);
    }
    let (rows, cols) = match shape.split_last() {
        Some((&cols, rows)) => (rows.iter().product(), cols),
        None => (0, 0),
    };
    let is_matrix = DType::PACKED.contains(&tensor.dtype) && rows > 0 && cols > 0;
    let used = used.filter(|_| is_matrix);
    let to = used.map_or(tensor.dtype, |used| options.codec.target(used.place, tensor.dtype, cols));
    let tiles = used.map(|_| tile_rows(rows, cols, to, cuts, options.tile_bytes));
    Job {
        name: tensor.name.clone(),
        from: tensor.dtype.name().to_owned(),
        to: to.name().to_owned(),
        shape: if used.is_some() { shape } else { tensor.shape.clone() },
        transposed: transposed && used.is_some(),
        exponent_coded: used.is_some_and(|used| used.place != Place::ByHead),
        file: tensor.extent.file.0,
        offset: tensor.extent.offset,
        bytes: tensor.extent.bytes,
        tiles: tiles.unwrap_or_default(),
    }
}

/// Rows of each tile: as many as fit, in whole units, and no tile crosses a cut.
fn tile_rows(rows: u64, cols: u64, to: DType, cuts: Option<&BTreeSet<u64>>, tile_bytes: u64) -> Vec<u64> {
    let row_bytes = to.bytes_for(cols).unwrap_or(1).max(1);
    let fit = (tile_bytes / row_bytes).max(1);
    let most = if fit > TILE_ROWS_UNIT { fit / TILE_ROWS_UNIT * TILE_ROWS_UNIT } else { fit };
    let mut tiles = Vec::new();
    let mut start = 0;
    while start < rows {
        let cut = cuts.and_then(|cuts| cuts.range(start + 1..).next()).map_or(rows, |&cut| cut.min(rows));
        let run = cut - start;
        let count = run.div_ceil(most);
        // Nearly even, so that no small rest remains.
        let even = run.div_ceil(count).next_multiple_of(TILE_ROWS_UNIT.min(most)).min(most).min(run);
        tiles.push(even);
        start += even;
    }
    tiles
}

/// Where matrices that share a tensor begin and end, in its rows.
fn cuts<'a>(spec: &'a ModelSpec, catalog: &Catalog) -> BTreeMap<&'a str, BTreeSet<u64>> {
    let mut cuts: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for matrix in spec.matrices().chain(spec.tables()) {
        let Some(tensor) = catalog.get(&matrix.name) else { continue };
        let set = cuts.entry(&matrix.name).or_default();
        set.extend(borders(matrix, tensor));
    }
    cuts
}

fn borders(matrix: &Matrix, tensor: &Tensor) -> Vec<u64> {
    let first = (matrix.extent.offset - tensor.extent.offset) / matrix.row_bytes().max(1);
    if matrix.k_major {
        // By outputs, as they will be; the first half may be a matrix of its own then.
        let start = first / matrix.cols.max(1) as u64 * matrix.rows as u64;
        return [0, matrix.rows / 2, matrix.rows].map(|rows| start + rows as u64).into();
    }
    let run = matrix.run_rows().max(1);
    let places = (0..matrix.rows).step_by(run).map(|start| {
        let place = first + matrix.runs.map_or(start, |runs| runs.place(start)) as u64;
        [place, place + run.min(matrix.rows - start) as u64]
    });
    places.flatten().collect()
}

/// A model as it would be after packing, its tiles as large as those of usual weights: for plans.
///
/// # Errors
/// [`ErrorKind::Usage`]: it is packed already.
pub fn packed_spec(catalog: &Catalog, spec: &ModelSpec, codec: Codec) -> Result<ModelSpec, Error> {
    let layout = Layout::of(catalog, spec, &Options::new(codec, 1))?;
    let jobs = layout.shards.iter().flat_map(|shard| &shard.tensors);
    let jobs: BTreeMap<&str, &Job> = jobs.map(|job| (job.name.as_str(), job)).collect();
    let pack = |matrix: &mut Matrix| {
        let Some(job) = jobs.get(matrix.name.as_str()).filter(|job| !job.tiles.is_empty()) else { return };
        let Ok((from, to)) = job.formats() else { return };
        let row = to.bytes_for(matrix.cols as u64).unwrap_or(0) as f64;
        let row = if job.exponent_coded && from == to { row * lossless_ratio(to) } else { row };
        let rows_max = job.tiles.iter().copied().max().unwrap_or(1).max(1) as usize;
        let mut offset = matrix.extent.offset;
        let tile = |start: usize| {
            let rows = rows_max.min(matrix.rows - start);
            let bytes = (row * rows as f64) as u64;
            offset += bytes;
            TileRows { start, rows, extent: Extent { offset: offset - bytes, bytes, ..matrix.extent } }
        };
        let tiles: Vec<TileRows> = (0..matrix.rows).step_by(rows_max).map(tile).collect();
        matrix.extent.bytes = tiles.iter().map(|t| t.extent.bytes).sum();
        (matrix.dtype, matrix.runs, matrix.k_major) = (to, None, false);
        matrix.tiles = Some(tiles.into());
    };
    let mut spec = spec.clone();
    spec.blocks.iter_mut().flat_map(Block::linears_mut).for_each(|linear| pack(&mut linear.weight));
    spec.tables_mut().for_each(pack);
    pack(&mut spec.head.weight);
    Ok(spec)
}

/// A codec by the name that a layout has.
pub(crate) fn codec(layout: &Layout) -> Result<Codec, Error> {
    layout.codec.parse()
}
