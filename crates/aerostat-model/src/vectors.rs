//! The small tensors of a model on a device: norms and biases.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aerostat_arch::{
    AttentionSpec, Beside, Block, Companion, Latent, Linear, Matrix, MlpSpec, ModelSpec, Norm, NormKind,
    Role, Scales, State, Vector,
};
use aerostat_backend::coded::{Coding, Rounding};
use aerostat_backend::{Backend, BufferId, Error, ErrorKind, Mat, Nested, Scaling, Tile, Weight};
use aerostat_checkpoint::{DType, Extent};
use aerostat_plan::Step;

use crate::delta::DeltaVectors;

/// Gives a vector's stored bytes.
pub(crate) type Read<'a, E> = &'a mut dyn FnMut(&Vector) -> Result<Vec<u8>, E>;

/// A block's norms and biases.
#[derive(Debug)]
pub(crate) struct BlockVectors {
    pub(crate) attention_norm: Option<NormVectors>,
    pub(crate) attention_post_norm: Option<NormVectors>,
    pub(crate) mlp_norm: Option<NormVectors>,
    pub(crate) mlp_post_norm: Option<NormVectors>,
    pub(crate) end_norm: Option<NormVectors>,
    pub(crate) q_norm: Option<NormVectors>,
    pub(crate) k_norm: Option<NormVectors>,
    pub(crate) v_norm: Option<NormVectors>,
    /// What the stream is multiplied by in the end.
    pub(crate) scale: Option<f32>,
    pub(crate) sinks: Option<BufferId>,
    pub(crate) latent: Option<LatentVectors>,
    pub(crate) delta: Option<DeltaVectors>,
    /// By role.
    pub(crate) biases: Biases,
    /// Of experts, by index; none at all if none has one.
    pub(crate) expert_biases: Vec<Biases>,
    /// What the router's scores are corrected by.
    pub(crate) correction: Option<Vec<f32>>,
}

/// One for each role that has a bias.
pub(crate) type Biases = [Option<BufferId>; Role::Head as usize];

impl BlockVectors {
    /// With room for the recurrent states of `slots` sequences.
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        block: &Block,
        slots: usize,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let a = block.attention();
        let mut heads = |norm: fn(&AttentionSpec) -> &Option<Norm>, x: fn(&AttentionSpec) -> &Linear| {
            let norm = a.and_then(|a| Some((norm(a).as_ref()?, x(a).weight.rows)));
            norm.map(|(norm, width)| NormVectors::load(b, norm, width, read)).transpose()
        };
        let (q_norm, k_norm) = (heads(|a| &a.q_norm, |a| &a.q)?, heads(|a| &a.k_norm, |a| &a.k)?);
        let v_norm = heads(|a| &a.v_norm, |a| &a.v)?;
        let mut norm = |norm: &Option<Norm>| {
            norm.as_ref().map(|norm| NormVectors::load(b, norm, norm.size, read)).transpose()
        };
        let mut vectors = Self {
            attention_norm: norm(&block.attention_norm)?,
            attention_post_norm: norm(&block.attention_post_norm)?,
            mlp_norm: norm(&block.mlp_norm)?,
            mlp_post_norm: norm(&block.mlp_post_norm)?,
            end_norm: norm(&block.end_norm)?,
            q_norm,
            k_norm,
            v_norm,
            scale: None,
            sinks: None,
            latent: None,
            delta: None,
            biases: biases(b, block.linears(), read)?,
            expert_biases: Vec::new(),
            correction: None,
        };
        if let Some(v) = a.and_then(|a| a.sinks.as_ref()) {
            vectors.sinks = Some(load_vector(b, v, v.len, read)?);
        }
        if let Some(v) = &block.scale {
            let id = load_vector(b, v, v.len, read)?;
            vectors.scale = b.read(Mat::new(id, 1, 1))?.first().copied();
        }
        if let Some(latent) = block.latent() {
            vectors.latent = Some(LatentVectors::load(b, latent, read)?);
        }
        if let Some(delta) = block.delta() {
            vectors.delta = Some(DeltaVectors::load(b, delta, slots, read)?);
        }
        if let Some(experts) = &block.experts {
            if let Some(v) = &experts.routing.correction {
                let id = load_vector(b, v, v.len, read)?;
                vectors.correction = Some(b.read(Mat::new(id, 1, v.len))?.to_vec());
            }
            let biased = |mlp: &MlpSpec| mlp.linears().any(|(_, linear)| linear.bias.is_some());
            for mlp in experts.mlps.iter().filter(|mlp| biased(mlp)) {
                vectors.expert_biases.push(biases(b, mlp.linears(), read)?);
            }
        }
        Ok(vectors)
    }
}

/// The norms of compressed keys and values.
#[derive(Debug)]
pub(crate) struct LatentVectors {
    pub(crate) q: Option<NormVectors>,
    pub(crate) kv: NormVectors,
    pub(crate) index: Option<NormVectors>,
}

impl LatentVectors {
    fn load<E: From<Error>>(b: &mut dyn Backend, latent: &Latent, read: Read<'_, E>) -> Result<Self, E> {
        let mut load = |norm: &Norm| NormVectors::load(b, norm, norm.size, read);
        let q = latent.q_down.as_ref().map(|(_, norm)| load(norm)).transpose()?;
        let kv = load(&latent.kv_norm)?;
        let index = latent.indexer().map(|indexer| load(&indexer.k_norm)).transpose()?;
        Ok(Self { q, kv, index })
    }
}

fn biases<'a, E: From<Error>>(
    b: &mut dyn Backend,
    linears: impl Iterator<Item = (Role, &'a Linear)>,
    read: Read<'_, E>,
) -> Result<Biases, E> {
    let mut biases = Biases::default();
    for (role, linear) in linears {
        let bias = linear.bias.as_ref();
        biases[role as usize] = bias.map(|v| load_vector(b, v, v.len, read)).transpose()?;
    }
    Ok(biases)
}

/// The tensors of a norm.
#[derive(Debug)]
pub(crate) struct NormVectors {
    weight: Option<(BufferId, usize)>,
    bias: Option<(BufferId, usize)>,
}

impl NormVectors {
    /// For rows of `width` columns.
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        norm: &Norm,
        width: usize,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        // The op of root-mean-square norms repeats the weights of a group by itself.
        let weight_width = if norm.kind == NormKind::Rms { norm.size } else { width };
        let mut vector = |v: &Option<Vector>, width: usize| {
            let row = |v: &Vector| Ok::<_, E>((load_vector(b, v, width, read)?, width));
            v.as_ref().map(row).transpose()
        };
        let (mut weight, bias) = (vector(&norm.weight, weight_width)?, vector(&norm.bias, width)?);
        if let Some((first, ..)) = weight.filter(|_| !norm.further.is_empty()) {
            weight = Some((append(b, (first, norm.size), &norm.further, width, read)?, width));
        }
        if norm.kind == NormKind::Rms && weight.is_none() {
            let id = b.allocate(weight_width)?;
            b.write(Mat::new(id, 1, weight_width), &vec![1.0; weight_width])?;
            weight = Some((id, weight_width));
        }
        Ok(Self { weight, bias })
    }

    /// `out` may be `x`.
    pub(crate) fn apply(&self, b: &mut dyn Backend, x: Mat, norm: &Norm, out: Mat) -> Result<(), Error> {
        let row = |(buffer, width)| Mat::new(buffer, 1, width);
        match (norm.kind, self.weight) {
            (NormKind::Rms, Some(weight)) => b.rms_norm(x, row(weight), norm.eps, out)?,
            (NormKind::Rms, None) => {
                return Err(Error::shape("a root-mean-square norm has no weights"));
            }
            (NormKind::Layer, weight) => {
                b.layer_norm(x, norm.size, norm.eps, out)?;
                weight.map_or(Ok(()), |weight| b.mul_columns(out, row(weight)))?;
            }
        }
        self.bias.map_or(Ok(()), |bias| b.add_bias(out, row(bias)))
    }
}

/// A vector's first elements, and after them all of others.
fn append<E: From<Error>>(
    b: &mut dyn Backend,
    (first, len): (BufferId, usize),
    further: &[Vector],
    width: usize,
    read: Read<'_, E>,
) -> Result<BufferId, E> {
    let mut values = b.read(Mat::new(first, 1, len))?.to_vec();
    for vector in further {
        let id = load_vector(b, vector, vector.len, read)?;
        values.extend_from_slice(b.read(Mat::new(id, 1, vector.len))?);
    }
    let id = b.allocate(width)?;
    b.write(Mat::new(id, 1, width), &values)?;
    Ok(id)
}

/// The scales of all matrices of codes that are kept, one after the other, and room for what lies beside the matrix at hand.
#[derive(Debug)]
pub(crate) struct ScaleTable {
    buffer: BufferId,
    /// Where those of a tensor begin.
    places: HashMap<Extent, usize>,
    /// By [`Beside`].
    beside: [BufferId; 3],
    /// What tensors beside matrices say of them.
    states: HashMap<Extent, State>,
}

impl ScaleTable {
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        spec: &ModelSpec,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let (mut len, mut places, mut vectors) = (0, HashMap::new(), Vec::new());
        for vector in spec.scales() {
            // Parts of one tensor share its scales.
            if let Entry::Vacant(place) = places.entry(vector.extent) {
                place.insert(len);
                vectors.push((len, vector));
                len += vector.len;
            }
        }
        let cols = spec.matrices().filter(|matrix| matrix.scales.is_some()).map(|matrix| matrix.cols).max();
        cols.map_or(Ok(()), |cols| b.scaled_reserve(cols))?;
        let buffer = b.allocate(len)?;
        for (offset, vector) in vectors {
            let bytes = read(vector)?;
            let tile = Tile { dtype: vector.dtype, rows: 1, cols: vector.len, bytes: &bytes };
            let place = Mat { offset, ..Mat::new(buffer, 1, vector.len) };
            b.expand_rows(Weight::Streamed(tile), &[0], place)?;
        }
        let [scales, zeros, groups] = spec.beside();
        let beside = [b.allocate(scales)?, b.allocate(zeros)?, b.allocate(groups)?];
        Ok(Self { buffer, places, beside, states: states(spec, read)? })
    }

    /// Takes what is read before a matrix: a tile of a companion.
    pub(crate) fn take(
        &self,
        b: &mut dyn Backend,
        matrix: &Matrix,
        companion: &Companion,
        step: &Step,
        weight: Weight<'_>,
    ) -> Result<(), Error> {
        let (first, rows) = companion.rows_of(step.start, step.rows);
        let scales = matrix.scales.as_ref();
        let state = scales.and_then(|scales| self.state(scales));
        let nested = scales.and_then(|scales| scales.nested.as_ref());
        let nested = nested.map(|nested| Nested {
            values: self.kept(&nested.values),
            scales: self.kept(&nested.scales),
            len: nested.len,
            first: nested.first + first * companion.shape.1,
            offset: state.map_or(0.0, |state| state.offset),
        });
        let out = self.numbers(companion).row_range(first, rows);
        b.expand_numbers(weight, companion.stored, nested, out)
    }

    /// How a tile of a matrix of codes is scaled that begins with stored row `start`.
    pub(crate) fn scaling(&self, matrix: &Matrix, scales: &Scales, start: usize) -> Scaling {
        let Scales { code, block_rows, block_cols, first_row, .. } = *scales;
        let rounding = match self.state(scales).map_or(scales.rounding, |state| state.rounding) {
            DType::BF16 => Rounding::BF16,
            DType::F16 => Rounding::F16,
            _ => Rounding::F32,
        };
        let beside = |what: Beside| {
            let companion = scales.companions.iter().find(|companion| companion.what == what);
            companion.map(|companion| self.numbers(companion))
        };
        let kept = scales.kept.as_ref().map(|kept| {
            let groups = matrix.cols.div_ceil(block_cols.max(1)).max(1);
            Mat { rows: kept.len / groups, cols: groups, stride: groups, ..self.kept(kept) }
        });
        let row = matrix.runs.map_or(start, |runs| runs.place(start));
        Scaling {
            coding: Coding::new(code, rounding),
            scales: kept.or(beside(Beside::Scales)).unwrap_or(Mat::new(self.buffer, 0, 0)),
            zeros: beside(Beside::Zeros),
            groups: beside(Beside::Groups),
            block_rows,
            block_cols,
            first_row: first_row + matrix.rows_before(row),
        }
    }

    fn state(&self, scales: &Scales) -> Option<&State> {
        self.states.get(&scales.state.as_ref()?.extent)
    }

    /// What is kept of a tensor, as one row.
    fn kept(&self, vector: &Vector) -> Mat {
        let offset = self.places.get(&vector.extent).copied().unwrap_or(0);
        Mat { offset, ..Mat::new(self.buffer, 1, vector.len) }
    }

    /// Where a companion's numbers are.
    fn numbers(&self, companion: &Companion) -> Mat {
        Mat::new(self.beside[companion.what as usize], companion.shape.0, companion.shape.1)
    }
}

/// Reads what tensors say of the matrices beside them.
fn states<E: From<Error>>(spec: &ModelSpec, read: Read<'_, E>) -> Result<HashMap<Extent, State>, E> {
    const BYTES_MAX: u64 = 1 << 16;
    let mut states = HashMap::new();
    for scales in spec.matrices().filter_map(|matrix| matrix.scales.as_ref()) {
        let Some(stored) = &scales.state else { continue };
        if let Entry::Vacant(state) = states.entry(stored.extent) {
            let found = match stored.extent.bytes {
                0..=BYTES_MAX => scales.read_state(&read(stored)?),
                bytes => Err(format!("{bytes} bytes are too many")),
            };
            let bad = |why| Error::new(ErrorKind::Unsupported, format!("tensor `{}`: {why}", stored.name));
            state.insert(found.map_err(bad)?);
        }
    }
    Ok(states)
}

/// Expands a small tensor into a buffer of its own, repeated to `width` elements.
pub(crate) fn load_vector<E: From<Error>>(
    b: &mut dyn Backend,
    v: &Vector,
    width: usize,
    read: Read<'_, E>,
) -> Result<BufferId, E> {
    let bytes = read(v)?;
    let stored = bytes.len() / v.dtype.block_bytes().max(1) * v.dtype.block_len();
    let tile = Tile { dtype: v.dtype, rows: 1, cols: stored, bytes: &bytes };
    let id = b.allocate(width.max(stored))?;
    let all = Mat::new(id, 1, stored);
    b.expand_rows(Weight::Streamed(tile), &[0], all)?;
    if v.offset != 0.0 || v.runs.is_some() || width != stored {
        let values = b.read(all)?;
        let place = |i: usize| v.runs.map_or(i, |runs| runs.place(i));
        let value = |i: usize| values.get(place(i % v.len.max(1))).map_or(f32::NAN, |w| w + v.offset);
        let values: Vec<f32> = (0..width).map(value).collect();
        b.write(Mat::new(id, 1, width), &values)?;
    }
    Ok(id)
}
