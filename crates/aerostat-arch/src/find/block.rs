//! The tensors of a block, and those before the first block and after the last.

use serde_json::Value;

use super::codes;
use super::part::Part;
use super::tensors::{Tensors, first_name};
use crate::config::{CLASSIFIES, LayerShape, Norms};
use crate::error::Error;
use crate::family::{Bias, MixerKind, Mixers, PostNorms};
use crate::spec::{Block, Joined, Linear, Matrix, Mixer, MlpSpec, Norm, Positions, Vector};

impl Tensors<'_> {
    pub(crate) fn embedding(&self) -> Result<Matrix, Error> {
        let name = format!("{}.weight", self.top(self.names.embedding));
        let tensor = self.stored.require(&name)?;
        let rows = self.stored.sizes(tensor).map_or(0, |[rows, _]| rows);
        if let Some(vocab) = self.stored.keys.json("vocab_size").and_then(Value::as_u64)
            && vocab != rows as u64
        {
            return Err(self.stored.bad(tensor, format!("`vocab_size` is {vocab}")));
        }
        if rows == 0 {
            return Err(self.stored.bad(tensor, "it has no rows".to_owned()));
        }
        self.matrix_of(
            self.stored.require_computable(&name, &[rows, self.shape.embedding])?,
            Part::all(rows),
            self.shape.embedding,
        )
    }

    /// The stored head, whatever the configuration says, as transformers does; else the embedding, if the two are tied, or if
    /// the checkpoint is of a model without a head, which is told.
    pub(crate) fn head(&self, embedding: &Matrix) -> Result<(Matrix, Option<Vector>, bool), Error> {
        // Some text towers have a head of their own.
        let keys = self.stored.keys;
        let mut names = self.names.head.split('|').chain(["language_model.lm_head"]);
        let stem = names.find(|name| self.has(name)).unwrap_or(first_name(self.names.head));
        let whole = keys.whole("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
        let tied = self.is_gguf() || whole || keys.flag("tie_word_embeddings", false)?;
        let architecture = keys.whole("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let is_bare = architecture.is_some_and(|name| name.ends_with("Model"));
        let classifies = architecture.is_some_and(|name| name.contains(CLASSIFIES));
        if self.family.encoder.is_some() || classifies || !self.has(stem) && !tied && is_bare {
            return Ok((embedding.clone(), None, true));
        }
        let weight = match self.has(stem) {
            false if tied => embedding.clone(),
            _ => self.matrix(stem, Part::all(embedding.rows), self.shape.embedding)?,
        };
        Ok((weight, self.bias(stem, self.family.head_bias, Part::all(embedding.rows))?, false))
    }

    pub(crate) fn positions(&self) -> Result<Option<Positions>, Error> {
        let Some(offset) = self.family.positions else { return Ok(None) };
        let name = format!("{}.weight", self.top(self.names.positions));
        let tensor = self.stored.require(&name)?;
        let rows = self.stored.sizes(tensor).map_or(0, |[rows, _]| rows);
        let table = self.vector(&name, &[rows, self.shape.hidden], 0.0)?;
        let offset = self.first_position(offset)?;
        if offset >= rows {
            return Err(self.stored.bad(tensor, format!("position 0 is row {offset}, and it has {rows}")));
        }
        Ok(Some(Positions { table, rows, offset }))
    }

    pub(crate) fn embedding_norm(&self) -> Result<Option<Norm>, Error> {
        match self.family.embedding_norm {
            true => self.norm(&self.top(self.names.embedding_norm), self.shape.hidden).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn final_norm(&self) -> Result<Option<Norm>, Error> {
        match self.shape.final_norm {
            true => self.norm(&self.top(self.names.final_norm), self.shape.hidden).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn block(&self, layer: &LayerShape) -> Result<Block, Error> {
        let (n, f, s) = (self.names, self.family, self.shape);
        let name = |pattern: &str| self.top(&pattern.replace("{}", &layer.index.to_string()));
        let norm = |pattern: &str, wanted: bool| match wanted {
            true => self.norm(&name(pattern), s.hidden).map(Some),
            false => Ok(None),
        };
        let mixer = self.mixer(layer, &name)?;
        // Where a layer is one part, it has the norm of that part alone.
        let mixes = !matches!(mixer, Mixer::Nothing);
        let feeds = !(matches!(f.mixers, Mixers::Spaces) || f.one_part && mixes);
        let (mlp, experts) = match if feeds { self.experts(layer.index)? } else { None } {
            Some((shared, experts)) => (shared, Some(experts)),
            None if feeds => (Some(self.mlp(layer, &name)?), None),
            None => (None, None),
        };
        let sums = s.stream_norms == Norms::Sums;
        // Of sums, the first norm comes after attention.
        let before_mlp = if sums { n.attention_norm } else { n.mlp_norm };
        let (attention_norm, mlp_norm) = (name(n.attention_norm), name(n.mlp_norm));
        let (project_in, project_out) = self.projections(layer.index)?;
        let (streams_in, streams_out) = self.stream_projections(layer.index)?;
        let bare_first = layer.index == 0 && f.encoder.is_some_and(|encoder| encoder.bare_first);
        let mlp_norm_stored = f.post_norms == PostNorms::StoredMlp && self.has(&name(n.mlp_post_norm));
        let own_norm = !s.parallel || mlp_norm != attention_norm && self.has(&mlp_norm);
        Ok(Block {
            project_in,
            layer_inputs: self.layer_inputs_projection(layer.index)?,
            streams_in,
            mixing: self.mixing(&name)?,
            shortcut: self.shortcut(&name)?,
            attention_norm: norm(n.attention_norm, f.pre_norms && !sums && !bare_first && mixes)?,
            mixer,
            attention_post_norm: norm(n.attention_post_norm, s.post_norms)?,
            mlp_norm: norm(before_mlp, f.pre_norms && own_norm && feeds)?,
            mlp,
            experts,
            mlp_post_norm: norm(n.mlp_post_norm, s.post_norms || mlp_norm_stored)?,
            parallel: s.parallel,
            norms_replace: s.stream_norms != Norms::Kept,
            residual_scale: s.residual_scale,
            stream_scales: s.stream_scales.map(|own| {
                let mixer = if layer.mixer == MixerKind::Lightning { own.lightning } else { own.attention };
                [mixer, own.mlp]
            }),
            layer_input: self.layer_input(&name)?,
            end_norm: norm(n.mlp_norm, sums)?,
            scale: self.block_scale(&name)?,
            streams_out,
            project_out,
        })
    }

    /// What the stream is multiplied by after a block.
    fn block_scale(&self, name: &dyn Fn(&str) -> String) -> Result<Option<Vector>, Error> {
        const GGUF: &str = "blk.{}.layer_output_scale.weight";
        let pattern = if self.is_gguf() { GGUF } else { self.family.block_scale };
        let absent =
            self.family.block_scale.is_empty() || self.is_gguf() && !self.stored.contains(&name(GGUF));
        (!absent).then(|| self.vector(&name(pattern), &[1], 0.0)).transpose()
    }

    /// What makes the stream of the embeddings in the first layer, and what the head reads of the stream in the last one.
    fn projections(&self, i: usize) -> Result<(Option<Linear>, Option<Linear>), Error> {
        let (stream, embedding) = (self.shape.hidden, self.shape.embedding);
        let Some((project_in, project_out)) = self.family.projections.filter(|_| stream != embedding) else {
            return Ok((None, None));
        };
        let project = |name: &str, wanted: bool, outputs, inputs| {
            let linear = || self.linear(&self.top(name), Bias::Never, Part::all(outputs), inputs);
            wanted.then(linear).transpose()
        };
        let last = i + 1 == self.shape.layers.len();
        Ok((project(project_in, i == 0, stream, embedding)?, project(project_out, last, embedding, stream)?))
    }

    fn mlp(&self, layer: &LayerShape, name: &dyn Fn(&str) -> String) -> Result<MlpSpec, Error> {
        let width = layer.intermediate;
        let (gate, up) = self.gate_and_up(width, name)?;
        let joined = self.family.gated && gate.is_none();
        let hidden = self.shape.hidden;
        let bias = match self.family.encoder {
            Some(encoder) if encoder.down_bias => Bias::Always,
            _ => self.family.mlp_bias,
        };
        let down = self.linear(&name(self.names.down), bias, Part::all(hidden), width)?;
        let joined = joined.then_some(Joined::Halves);
        Ok(MlpSpec {
            gate,
            up,
            joined,
            down,
            activation: self.shape.activation,
            cut: layer.cut,
            factors: self.shape.half_factors.mlp,
        })
    }

    /// The gate, if there is one, and up: tensors of their own, or rows of one. Of codes that are stored by inputs, up holds
    /// the gate too.
    fn gate_and_up(
        &self,
        width: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<(Option<Linear>, Linear), Error> {
        let (n, s) = (self.names, self.shape);
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), self.family.mlp_bias, part, s.hidden);
        if !self.family.gated {
            return Ok((None, linear(n.up, Part::all(width))?));
        }
        match n.gate_up.filter(|fused| self.is_fused(&name(fused), &name(n.gate))) {
            None => Ok((Some(linear(n.gate, Part::all(width))?), linear(n.up, Part::all(width))?)),
            Some(fused) if codes::by_inputs(self.stored, &name(fused)) => {
                Ok((None, linear(fused, Part::all(2 * width))?))
            }
            Some(fused) => {
                let part = |first| linear(fused, Part { first, rows: width, total: 2 * width, runs: None });
                let up_first = self.family.encoder.is_some_and(|encoder| encoder.up_first);
                let (gate, up) = if up_first { (width, 0) } else { (0, width) };
                Ok((Some(part(gate)?), part(up)?))
            }
        }
    }
}
