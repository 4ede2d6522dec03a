//! The tensors of a family in a catalogue: matrices, norms and vectors by the names that the family has for them.

use aerostat_checkpoint::{Catalog, Extent, Tensor};

use super::codes;
use super::part::{Part, Stack};
use super::scales;
use super::stored::Stored;
use crate::config::{Keys, Shape};
use crate::error::Error;
use crate::family::{Bias, Family, Names};
use crate::spec::{Linear, Matrix, Norm, Vector};

/// Finds the tensors of a family in a catalogue.
pub(crate) struct Tensors<'a> {
    pub(super) stored: Stored<'a>,
    pub(super) family: &'a Family,
    pub(super) shape: &'a Shape,
    pub(super) names: &'a Names,
    prefix: &'static str,
    /// Layers are called blocks.
    blocks: bool,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(
        catalog: &'a Catalog,
        keys: &'a Keys<'a>,
        family: &'a Family,
        shape: &'a Shape,
    ) -> Self {
        const PREFIXES: &[&str] = &[
            "model.",
            "",
            "language_model.model.",
            "model.language_model.",
            "model.text_model.",
            "transformer.",
            "backbone.",
            "gpt_neox.",
            "model.decoder.",
            "decoder.",
            "bert.",
            "roberta.",
            "distilbert.",
            "mpnet.",
            "gte.",
            "new.",
            "nomic_bert.",
            "ernie.",
        ];
        let names = if keys.is_gguf() { &family.gguf_names } else { &family.names };
        let stored = Stored { catalog, keys, model: family.name };
        let has = |prefix: &&&str| stored.contains(&format!("{prefix}{}.weight", names.embedding));
        let prefix = match keys.is_gguf() {
            true => "",
            false => PREFIXES.iter().find(has).copied().unwrap_or("model."),
        };
        // As transformers saves the text tower of Kimi K2.5.
        let blocks = catalog.get(&format!("{prefix}blocks.0.self_attn.kv_a_layernorm.weight")).is_some();
        Self { stored, family, shape, names, prefix, blocks }
    }

    /// Whether a tensor lies in one of the blocks, and is none of those that only say what is known: masks, frequencies of
    /// rotation, and scales of activations and of caches, which are not rounded here.
    pub(crate) fn is_in_block(&self, tensor: &Tensor) -> bool {
        const KNOWN: &[&str] = &[
            "rotary_emb.inv_freq",
            ".attn.bias",
            ".attention.bias",
            ".masked_bias",
            ".causal_mask",
            "input_scale",
            "input_global_scale",
            "input_activation_scale",
            ".q_scale",
            ".k_scale",
            ".v_scale",
            ".kv_scale",
            "weight_shape",
            ".g_idx",
            ".quant_map",
            ".nested_quant_map",
            "quant_state.bitsandbytes__nf4",
            "quant_state.bitsandbytes__fp4",
            ".weight_format",
            // What lightning attention computes anew.
            ".slope_rate",
            ".query_decay",
            ".key_decay",
            ".diagonal_decay",
            // Factors of Gemma 3n that are there whether or not the configuration asks for them.
            ".altup.correct_output_scale",
        ];
        let Some((before, _)) = self.names.attention_norm.split_once("{}") else { return false };
        let rest = tensor.name.strip_prefix(&self.top(before));
        let layer = rest.and_then(|rest| rest.split_once('.')).and_then(|(layer, _)| layer.parse().ok());
        layer.is_some_and(|layer: usize| layer < self.shape.layers.len())
            && !KNOWN.iter().any(|suffix| tensor.name.ends_with(suffix))
    }

    pub(super) fn is_gguf(&self) -> bool {
        self.stored.keys.is_gguf()
    }

    /// The name that is in the checkpoint, else the first.
    pub(super) fn top(&self, names: &str) -> String {
        let full = |name: &str| match name.strip_prefix("layers.").filter(|_| self.blocks) {
            Some(rest) => format!("{}blocks.{rest}", self.prefix),
            None => format!("{}{name}", self.prefix),
        };
        let held = names.split('|').map(full).find(|name| self.has(name));
        held.unwrap_or_else(|| full(first_name(names)))
    }

    pub(super) fn by_inputs(&self) -> bool {
        self.family.by_inputs && !self.is_gguf()
    }

    /// Whether to look for the tensor `fused` and not for `own`.
    pub(super) fn is_fused(&self, fused: &str, own: &str) -> bool {
        !self.has(own) && (self.has(fused) || !self.is_gguf())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.stored.contains(&format!("{name}.weight")) || codes::has(self.stored, name)
    }

    /// Rows (outputs) of the whole matrix of this name, of so many columns.
    pub(super) fn outputs(&self, name: &str, cols: usize) -> Option<usize> {
        let rows = |t: &Tensor| self.stored.sizes::<2>(t).map(|[rows, _]| rows);
        codes::outputs(self.stored, name, cols)
            .or_else(|| self.stored.get(&format!("{name}.weight")).and_then(rows))
    }

    /// Rows of each matrix of a stack.
    pub(super) fn rows_of_each(&self, name: &str) -> Option<usize> {
        self.stored.get(name).and_then(|t| self.stored.sizes::<3>(t)).map(|[_, rows, _]| rows)
    }

    pub(super) fn linear(&self, name: &str, bias: Bias, part: Part, cols: usize) -> Result<Linear, Error> {
        let weight = match self.by_inputs() {
            true => self.matrix_by_inputs(&format!("{name}.weight"), part, cols)?,
            false => self.matrix(name, part, cols)?,
        };
        Ok(Linear { weight, bias: self.bias(name, bias, part)? })
    }

    pub(super) fn bias(&self, name: &str, bias: Bias, part: Part) -> Result<Option<Vector>, Error> {
        let name = format!("{name}.bias");
        self.is_there(bias, &name)?.then(|| self.vector_part(&name, part)).transpose()
    }

    /// Whether the model has the tensor `name`.
    pub(super) fn is_there(&self, bias: Bias, name: &str) -> Result<bool, Error> {
        match bias {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Key(..) if self.is_gguf() => Ok(self.stored.contains(name)),
            Bias::Key(keys, default) => {
                let key = keys.split('|').find(|key| self.stored.keys.json(key).is_some());
                let key = key.unwrap_or(first_name(keys));
                self.stored.keys.flag(key, default)
            }
        }
    }

    /// A norm of groups of `size` columns.
    pub(super) fn norm(&self, name: &str, size: usize) -> Result<Norm, Error> {
        let (f, s) = (self.family, self.shape);
        let offset = if self.is_gguf() { 0.0 } else { f.norm_offset };
        let weight = format!("{name}.weight");
        let weight = self.is_there(f.norm_weights, &weight)?.then(|| self.vector(&weight, &[size], offset));
        let bias = self.bias(name, f.norm_bias, Part::all(size))?;
        Ok(Norm { kind: f.norm, size, weight: weight.transpose()?, further: Vec::new(), bias, eps: s.eps })
    }

    /// A norm without weights.
    pub(super) fn bare_norm(&self, size: usize) -> Norm {
        let (kind, eps) = (self.family.norm, self.shape.eps);
        Norm { kind, size, weight: None, further: Vec::new(), bias: None, eps }
    }

    pub(super) fn matrix(&self, name: &str, part: Part, cols: usize) -> Result<Matrix, Error> {
        if let Some(matrix) = codes::find(self.stored, name, part, cols)? {
            return Ok(matrix);
        }
        self.matrix_of(self.require_matrix(&format!("{name}.weight"), &[part.total, cols])?, part, cols)
    }

    pub(super) fn matrix_of(&self, tensor: &Tensor, part: Part, cols: usize) -> Result<Matrix, Error> {
        if !cols.is_multiple_of(tensor.dtype.block_len()) {
            return Err(self
                .stored
                .bad(tensor, format!("its rows are not whole blocks of {}", tensor.dtype.name())));
        }
        let tiles = self.stored.catalog.tiles(&tensor.name).map(|tiles| part.tiles(tiles));
        let tiles = match tiles {
            None => None,
            Some(Some(tiles)) => Some(tiles),
            Some(None) => {
                return Err(self.stored.bad(tensor, "its packed tiles are cut at other rows".to_owned()));
            }
        };
        let extent = match &tiles {
            None => part.extent(tensor, part.rows),
            Some(tiles) => Extent {
                offset: tiles.first().map_or(tensor.extent.offset, |t| t.extent.offset),
                bytes: tiles.iter().map(|t| t.extent.bytes).sum(),
                ..tensor.extent
            },
        };
        Ok(Matrix {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            rows: part.rows,
            cols,
            extent,
            runs: part.runs,
            tiles,
            k_major: false,
            scales: scales::find(self.stored, tensor, part, cols)?,
        })
    }

    /// A matrix stored `[cols, rows]`. Of a part that lies beside others the rows alone are told.
    fn matrix_by_inputs(&self, name: &str, part: Part, cols: usize) -> Result<Matrix, Error> {
        let whole = self.k_major(
            self.stored.require_computable(name, &[cols, part.total])?,
            Part::all(cols),
            part.total,
        )?;
        Ok(Matrix { rows: part.rows, ..whole })
    }

    /// Some rows of one matrix of a stack of matrices in one tensor.
    pub(super) fn stacked_matrix(
        &self,
        name: &str,
        stack: Stack,
        part: Part,
        cols: usize,
    ) -> Result<Matrix, Error> {
        if let Some(stem) = name.strip_suffix("_blocks") {
            return codes::blocks(self.stored, stem, stack, part, cols);
        }
        let tensor = self.stored.require_computable(name, &[stack.count, part.total, cols])?;
        self.matrix_of(tensor, stack.part(part), cols)
    }

    /// One matrix of a stack of matrices in one tensor, each stored `[cols, rows]`, unless it is packed: packed matrices are
    /// stored by outputs.
    pub(super) fn stacked_k_major(
        &self,
        name: &str,
        stack: Stack,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, Error> {
        if self.stored.catalog.tiles(name).is_some() {
            return self.stacked_matrix(name, stack, Part::all(rows), cols);
        }
        self.k_major(
            self.stored.require_computable(name, &[stack.count, cols, rows])?,
            stack.part(Part::all(cols)),
            rows,
        )
    }

    /// A part of a tensor, by its inputs.
    fn k_major(&self, tensor: &Tensor, inputs: Part, rows: usize) -> Result<Matrix, Error> {
        if tensor.dtype.block_len() != 1 {
            return Err(self
                .stored
                .bad(tensor, format!("stored by inputs, it cannot be {}", tensor.dtype.name())));
        }
        let stored = self.matrix_of(tensor, inputs, rows)?;
        if stored.tiles.is_some() {
            return Err(self.stored.bad(tensor, "stored by inputs, it cannot be packed".to_owned()));
        }
        Ok(Matrix { rows, cols: inputs.rows, k_major: true, ..stored })
    }

    /// Some elements of one vector of a stack of vectors in one tensor.
    pub(super) fn stacked_vector(&self, name: &str, stack: Stack, part: Part) -> Result<Vector, Error> {
        let tensor = self.stored.require_plain(name, &[stack.count, part.total])?;
        self.vector_of(tensor, stack.part(part))
    }

    /// A matrix of one row, which may be stored as a vector.
    pub(super) fn one_row(&self, name: &str, cols: usize) -> Result<Matrix, Error> {
        let tensor = match self.stored.require(name)?.shape.len() {
            1 => self.stored.require_computable(name, &[cols])?,
            _ => self.stored.require_computable(name, &[1, cols])?,
        };
        self.matrix_of(tensor, Part::all(1), cols)
    }

    /// A vector of so many elements, whatever the shape it is stored in.
    pub(super) fn flat_vector(&self, name: &str, len: usize) -> Result<Vector, Error> {
        let shape = &self.stored.require(name)?.shape;
        let shape: Vec<usize> = shape.iter().filter_map(|n| usize::try_from(*n).ok()).collect();
        let whole = shape.iter().try_fold(1, |product: usize, n| product.checked_mul(*n)) == Some(len);
        self.vector(name, if whole { &shape } else { std::slice::from_ref(&len) }, 0.0)
    }

    /// A vector, which may be stored as a matrix of one row.
    pub(super) fn vector_or_row(&self, name: &str, len: usize) -> Result<Vector, Error> {
        let shape = [1, len];
        let row = self.stored.require(name)?.shape.len() == 2;
        self.vector(name, &shape[usize::from(!row)..], 0.0)
    }

    pub(super) fn vector(&self, name: &str, shape: &[usize], offset: f32) -> Result<Vector, Error> {
        let tensor = self.stored.require_plain(name, shape)?;
        let len = shape.iter().product();
        Ok(Vector {
            name: name.to_owned(),
            dtype: tensor.dtype,
            len,
            extent: tensor.extent,
            runs: None,
            offset,
        })
    }

    fn vector_part(&self, name: &str, part: Part) -> Result<Vector, Error> {
        self.vector_of(self.stored.require_plain(name, &[part.total])?, part)
    }

    fn vector_of(&self, tensor: &Tensor, part: Part) -> Result<Vector, Error> {
        if part.rows != part.total && tensor.dtype.block_len() != 1 {
            let message = format!("a part of it is needed, and {} has blocks", tensor.dtype.name());
            return Err(self.stored.bad(tensor, message));
        }
        let stored = part.runs.map_or(part.rows, |runs| runs.place(part.rows.saturating_sub(1)) + 1);
        Ok(Vector {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            len: part.rows,
            extent: part.extent(tensor, stored),
            runs: part.runs,
            offset: 0.0,
        })
    }

    /// A matrix, which may be of codes where the configuration says how they are scaled.
    fn require_matrix(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.stored.require_shape(name, shape)?;
        if scales::are_codes(self.stored.keys, tensor) { Ok(tensor) } else { self.stored.computable(tensor) }
    }
}

/// The first of several names, which `|` separates.
pub(super) fn first_name(names: &str) -> &str {
    names.split_once('|').map_or(names, |(first, _)| first)
}
