//! The tensors of compressed keys and values.

use super::part::Part;
use super::tensors::Tensors;
use crate::config::{IndexShape, LatentShape, LayerShape};
use crate::error::Error;
use crate::family::{Bias, LatentNames};
use crate::spec::{Indexer, Latent, Linear, Norm, NormKind, Runs, Selection};

/// Of the norms between two matrices, whatever the configuration says of the others.
const EPS: f32 = 1e-6;

impl Tensors<'_> {
    /// Queries, keys and values of a layer, and how they are compressed.
    pub(super) fn latent(
        &self,
        shape: &LatentShape,
        layer: &LayerShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<([Linear; 3], Option<Latent>), Error> {
        let Some(family) = &self.family.latent else {
            return Err(self
                .stored
                .keys
                .defect("keys and values are compressed, but the family has no names"));
        };
        let n = if self.is_gguf() { &family.gguf_names } else { &family.names };
        let (hidden, bias) = (self.shape.hidden, self.family.qkv_bias);
        let q_rows = self.shape.heads * (shape.nope + shape.rope);
        let linear = |pattern: &str, bias: Bias, rows: usize, cols: usize| {
            self.linear(&name(pattern), bias, Part::all(rows), cols)
        };
        let (q, q_down) = match self.outputs(&name(n.q_down), hidden) {
            None => (linear(self.names.q, Bias::Never, q_rows, hidden)?, None),
            Some(rank) => {
                let down = linear(n.q_down, bias, rank, hidden)?;
                let norm = self.latent_norm(&name(n.q_norm), rank)?;
                (linear(n.q, Bias::Never, q_rows, rank)?, Some((down, norm)))
            }
        };
        let (k, v, k_by_rows) = self.up(shape, n, name)?;
        let latent = Latent {
            kv_down: linear(n.kv_down, bias, shape.rank + shape.rope, hidden)?,
            kv_norm: self.latent_norm(&name(n.kv_norm), shape.rank)?,
            rank: shape.rank,
            nope: shape.nope,
            rope: shape.rope,
            value_dim: shape.value_dim,
            k_by_rows,
            selection: match (&shape.index, &q_down) {
                (None, _) => Selection::All,
                (Some(index), Some((down, _))) if layer.has_indexer => {
                    let indexer = self.indexer(index, n, name, down.weight.rows)?;
                    Selection::Own { count: index.count, indexer: Box::new(indexer) }
                }
                (Some(index), Some(_)) => Selection::Previous { count: index.count },
                (Some(_), None) => {
                    return Err(self
                        .stored
                        .keys
                        .unsupported("an index without compressed queries is not supported"));
                }
            },
            q_down,
        };
        Ok(([q, k, v], Some(latent)))
    }

    /// What takes queries into the compressed space and values out of it, head by head, and whether the first has a row for
    /// each element of a query.
    fn up(
        &self,
        shape: &LatentShape,
        n: &LatentNames,
        name: &dyn Fn(&str) -> String,
    ) -> Result<(Linear, Linear, bool), Error> {
        let (heads, rank) = (self.shape.heads, shape.rank);
        let plain = |weight| Linear { weight, bias: None };
        if !n.k.is_empty() && self.has(&name(n.k)) {
            let stacked = |pattern: &str, rows: usize, cols: usize| {
                let tensor = self
                    .stored
                    .require_computable(&format!("{}.weight", name(pattern)), &[heads, rows, cols])?;
                let runs = Some(Runs { rows, stride: rows }).filter(|_| heads > 1);
                self.matrix_of(tensor, Part { runs, ..Part::all(heads * rows) }, cols).map(plain)
            };
            return Ok((stacked(n.k, rank, shape.nope)?, stacked(n.v, shape.value_dim, rank)?, false));
        }
        let stride = shape.nope + shape.value_dim;
        let part = |first: usize, rows: usize| {
            let part =
                Part { first, rows: heads * rows, total: heads * stride, runs: Some(Runs { rows, stride }) };
            self.linear(&name(n.kv), Bias::Never, part, rank)
        };
        Ok((part(0, shape.nope)?, part(shape.nope, shape.value_dim)?, true))
    }

    fn indexer(
        &self,
        shape: &IndexShape,
        n: &LatentNames,
        name: &dyn Fn(&str) -> String,
        q_rank: usize,
    ) -> Result<Indexer, Error> {
        let linear = |pattern: &str, rows: usize, cols: usize| {
            self.linear(&name(pattern), Bias::Never, Part::all(rows), cols)
        };
        let (IndexShape { heads, dim, style, .. }, hidden) = (shape, self.shape.hidden);
        let norm = name(n.index_norm);
        let vector = |suffix: &str| self.vector(&format!("{norm}.{suffix}"), &[*dim], 0.0).map(Some);
        Ok(Indexer {
            q: linear(n.index_q, heads * dim, q_rank)?,
            k: linear(n.index_k, *dim, hidden)?,
            k_norm: Norm {
                kind: NormKind::Layer,
                size: *dim,
                weight: vector("weight")?,
                further: Vec::new(),
                bias: vector("bias")?,
                eps: EPS,
            },
            weights: linear(n.index_weights, *heads, hidden)?,
            heads: *heads,
            dim: *dim,
            style: *style,
        })
    }

    fn latent_norm(&self, name: &str, size: usize) -> Result<Norm, Error> {
        Ok(Norm { eps: EPS, ..self.norm(name, size)? })
    }
}
