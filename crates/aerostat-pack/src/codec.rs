//! What a codec makes of which tensor, and what that saves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use aerostat_arch::{Experts, Matrix, ModelSpec, Role};
use aerostat_checkpoint::{Catalog, Code, DType};

use crate::{Error, ErrorKind};

/// What to make of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Floating-point numbers with coded exponents: the same weights.
    Lossless,
    /// Eight bits: `Q8_0`.
    Q8,
    /// Four bits: `Q4_K`, and more for the matrices that matter more.
    Q4,
}

/// What is left of trained weights whose exponents are coded; of Gaussian ones it is 0.01 less.
pub(crate) fn lossless_ratio(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 0.675,
        DType::F16 => 0.862,
        DType::F8_E4M3 => 0.85,
        DType::F8_E5M2 => 0.725,
        _ => 1.0,
    }
}

/// What packing would make of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// All tensors.
    pub bytes: u64,
    /// What a sweep reads.
    pub sweep_bytes: u64,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 3] = [Codec::Lossless, Codec::Q8, Codec::Q4];

    /// The name, as users type it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The format that a matrix of `cols` columns in this place becomes.
    pub(crate) fn target(self, place: Place, dtype: DType, cols: u64) -> DType {
        let plain = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        let wanted = match (self, place) {
            (Self::Lossless, _) | (_, Place::Router | Place::ByHead) => return dtype,
            _ if !plain => return dtype,
            (Self::Q8, _) => [DType::Q8_0; 2],
            (Self::Q4, Place::Head | Place::Values) => [DType::Q6_K, DType::Q8_0],
            (Self::Q4, Place::Embedding) => [DType::Q5_K, DType::Q8_0],
            (Self::Q4, Place::Other) => [DType::Q4_K, DType::Q5_0],
        };
        wanted.into_iter().find(|d| cols.is_multiple_of(d.block_len() as u64)).unwrap_or(dtype)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("there is no codec `{name}`; there are lossless, q8 and q4"))
        })
    }
}

/// What a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The LM head, and the embedding if the two are one.
    Head,
    Embedding,
    /// Of attention.
    Values,
    /// Says which experts a row uses, or how much of them.
    Router,
    /// Of compressed attention: used head by head, in part by its inputs.
    ByHead,
    Other,
}

/// A tensor that holds a matrix, or several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) place: Place,
    /// Its matrices are stored by inputs.
    pub(crate) k_major: bool,
}

/// The tensors that hold the matrices of the model, each with what it is for: in the order of use, the embedding first
/// unless it is the head.
pub(crate) fn matrices<'a>(spec: &'a ModelSpec) -> (Vec<&'a str>, BTreeMap<&'a str, Use>) {
    let vectors: BTreeSet<&str> = spec.vectors().map(|vector| vector.name.as_str()).collect();
    let (mut order, mut uses) = (Vec::new(), BTreeMap::new());
    let mut add = |place: Place, matrix: &'a Matrix| {
        let name = matrix.name.as_str();
        // Blocks that are scaled are not exchanged with those of a transposed matrix, which stays as it is.
        if matrix.k_major && matrix.scales.is_some() {
            return;
        }
        if !vectors.contains(name) && !uses.contains_key(name) {
            uses.insert(name, Use { place, k_major: matrix.k_major });
            order.push(name);
        }
    };
    for table in spec.tables().skip(usize::from(spec.tied())) {
        add(Place::Embedding, table);
    }
    for block in &spec.blocks {
        let is_latent = block.latent().is_some();
        for (role, linear) in block.linears() {
            // What is stored by inputs, and no expert's, stays as it is.
            if linear.weight.k_major {
                continue;
            }
            // Where queries, keys and values are one tensor, queries have named it already.
            let place = match role {
                Role::K | Role::V if is_latent => Place::ByHead,
                Role::V => Place::Values,
                Role::Router | Role::SharedGate => Place::Router,
                _ => Place::Other,
            };
            add(place, &linear.weight);
        }
        for (_, linear) in block.experts.iter().flat_map(Experts::linears) {
            add(Place::Other, &linear.weight);
        }
    }
    add(Place::Head, &spec.head.weight);
    (order, uses)
}

/// Why a codec makes nothing of a model, if it does not.
pub(crate) fn refusal(spec: &ModelSpec, codec: Codec) -> Option<String> {
    spec.matrices().filter_map(|matrix| matrix.scales.as_ref()).find_map(|scales| {
        let code = scales.code;
        let is_fp8 = matches!(code, Code::E4M3 | Code::E5M2) && scales.companions.is_empty();
        match codec {
            Codec::Lossless if is_fp8 => None,
            _ if is_fp8 => Some(format!(
                "weights in {code} are packed by --codec lossless alone; for {codec}, pack the model that they were made of"
            )),
            _ => Some(format!(
                "weights in {code} are not packed: they are quantised already; run the model as it is, or pack the one that \
                 it was made of"
            )),
        }
    })
}

/// About what packing would make of a model that is not packed, without reading its weights; of one that a codec refuses, as
/// it is.
pub fn estimate(catalog: &Catalog, spec: &ModelSpec, codec: Codec) -> Estimate {
    let (_, uses) = matrices(spec);
    let refused = refusal(spec, codec).is_some();
    let size = |name: &str| {
        let Some(tensor) = catalog.get(name) else { return 0 };
        if refused {
            return tensor.extent.bytes;
        }
        let Some(Use { place, k_major }) = uses.get(name).copied() else { return tensor.extent.bytes };
        let cols = tensor.shape.iter().rev().nth(usize::from(k_major)).copied().unwrap_or(0);
        let target = codec.target(place, tensor.dtype, cols);
        let bytes = target.bytes_for(tensor.elements()).unwrap_or(tensor.extent.bytes);
        if place == Place::ByHead { bytes } else { (bytes as f64 * lossless_ratio(target)) as u64 }
    };
    let bytes = catalog.tensors().map(|tensor| size(&tensor.name)).sum();
    let tables: Vec<&str> = spec.tables().skip(usize::from(spec.tied())).map(|t| t.name.as_str()).collect();
    let sweep_bytes = uses.keys().filter(|name| !tables.contains(name)).map(|name| size(name)).sum();
    Estimate { bytes, sweep_bytes }
}
