//! The small tensors of a model on a device: norms and biases.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aerostat_arch::{
    Block, Latent, Linear, Matrix, MlpSpec, ModelSpec, Norm, NormKind, Role, Scales, Vector,
};
use aerostat_backend::coded::{Coding, Rounding};
use aerostat_backend::{Backend, BufferId, Error, ErrorKind, Mat, Scaling, Tile, Weight};
use aerostat_checkpoint::{DType, Extent};

/// Gives a vector's stored bytes.
pub(crate) type Read<'a, E> = &'a mut dyn FnMut(&Vector) -> Result<Vec<u8>, E>;

/// A block's norms and biases.
#[derive(Debug)]
pub(crate) struct BlockVectors {
    pub(crate) attention_norm: Option<NormVectors>,
    pub(crate) attention_post_norm: Option<NormVectors>,
    pub(crate) mlp_norm: Option<NormVectors>,
    pub(crate) mlp_post_norm: Option<NormVectors>,
    pub(crate) q_norm: Option<NormVectors>,
    pub(crate) k_norm: Option<NormVectors>,
    pub(crate) v_norm: Option<NormVectors>,
    /// What the stream is multiplied by in the end.
    pub(crate) scale: Option<f32>,
    pub(crate) sinks: Option<BufferId>,
    pub(crate) latent: Option<LatentVectors>,
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
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        block: &Block,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let a = &block.attention;
        let hidden = a.o.weight.rows;
        let mut norm = |norm: &Option<Norm>, width: usize| {
            norm.as_ref().map(|norm| NormVectors::load(b, norm, width, read)).transpose()
        };
        let mut vectors = Self {
            attention_norm: norm(&block.attention_norm, hidden)?,
            attention_post_norm: norm(&block.attention_post_norm, hidden)?,
            mlp_norm: norm(&block.mlp_norm, hidden)?,
            mlp_post_norm: norm(&block.mlp_post_norm, hidden)?,
            q_norm: norm(&a.q_norm, a.q.weight.rows)?,
            k_norm: norm(&a.k_norm, a.k.weight.rows)?,
            v_norm: norm(&a.v_norm, a.v.weight.rows)?,
            scale: None,
            sinks: a.sinks.as_ref().map(|v| load_vector(b, v, v.len, read)).transpose()?,
            latent: None,
            biases: biases(b, block.linears(), read)?,
            expert_biases: Vec::new(),
            correction: None,
        };
        if let Some(v) = &block.scale {
            let id = load_vector(b, v, v.len, read)?;
            vectors.scale = b.read(Mat::new(id, 1, 1))?.first().copied();
        }
        if let Some(latent) = &a.latent {
            vectors.latent = Some(LatentVectors::load(b, latent, read)?);
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

/// The scales of all matrices of codes, one after the other.
#[derive(Debug)]
pub(crate) struct ScaleTable {
    buffer: BufferId,
    /// Where those of a tensor begin.
    places: HashMap<Extent, usize>,
}

impl ScaleTable {
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        spec: &ModelSpec,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let (mut len, mut places, mut vectors) = (0, HashMap::new(), Vec::new());
        for scales in spec.matrices().filter_map(|matrix| matrix.scales.as_ref()) {
            // Parts of one tensor share its scales.
            if let Entry::Vacant(place) = places.entry(scales.values.extent) {
                place.insert(len);
                vectors.push((len, &scales.values));
                len += scales.values.len;
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
        Ok(Self { buffer, places })
    }

    /// How a tile of a matrix of codes is scaled that begins with row `start`.
    pub(crate) fn scaling(&self, matrix: &Matrix, scales: &Scales, start: usize) -> Result<Scaling, Error> {
        let Scales { block_rows, block_cols, first_row, .. } = *scales;
        let rounding = match scales.rounding {
            DType::BF16 => Rounding::BF16,
            DType::F16 => Rounding::F16,
            _ => Rounding::F32,
        };
        let coding = Coding::of(matrix.dtype, rounding).ok_or_else(|| {
            let message = format!("tensor `{}` of {} is not one of codes", matrix.name, matrix.dtype);
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let groups = matrix.cols.div_ceil(block_cols.max(1)).max(1);
        let offset = self.places.get(&scales.values.extent).copied().unwrap_or(0);
        let scales = Mat { offset, ..Mat::new(self.buffer, scales.values.len / groups, groups) };
        Ok(Scaling { coding, scales, block_rows, block_cols, first_row: first_row + start })
    }
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
