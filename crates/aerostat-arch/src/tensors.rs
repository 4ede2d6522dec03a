//! The tensors of a family in a catalogue.

use std::sync::Arc;

use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{Catalog, DType, Extent, Tensor};
use serde_json::Value;

use crate::attention::{AttentionSpec, Window};
use crate::codes;
use crate::error::{Error, ErrorKind};
use crate::family::{Bias, Family, Fused, HeadNorms, Names, PostNorms, Temperature, Windows};
use crate::keys::Keys;
use crate::rope::{Divisors, RopeConfig, RopeSpec, Scaling};
use crate::scales;
use crate::shape::{Norms, Shape};
use crate::spec::{Block, Joined, Linear, Matrix, Mixer, MlpSpec, Norm, Positions, RopeStyle, Runs, Vector};

/// Finds the tensors of a family in a catalogue.
pub(crate) struct Tensors<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) keys: &'a Keys<'a>,
    pub(crate) family: &'a Family,
    pub(crate) shape: &'a Shape,
    pub(crate) names: &'a Names,
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
    ) -> Result<Self, Error> {
        const PREFIXES: &[&str] = &[
            "model.",
            "",
            "language_model.model.",
            "model.language_model.",
            "model.text_model.",
            "transformer.",
            "gpt_neox.",
            "model.decoder.",
            "decoder.",
        ];
        let names = if keys.is_gguf() { &family.gguf_names } else { &family.names };
        let has = |prefix: &&&str| catalog.get(&format!("{prefix}{}.weight", names.embedding)).is_some();
        let prefix = match keys.is_gguf() {
            true => "",
            false => PREFIXES.iter().find(has).copied().unwrap_or("model."),
        };
        // As transformers saves the text tower of Kimi K2.5.
        let blocks = catalog.get(&format!("{prefix}blocks.0.self_attn.kv_a_layernorm.weight")).is_some();
        Ok(Self { catalog, keys, family, shape, names, prefix, blocks })
    }

    /// The name that is in the checkpoint, else the first.
    pub(crate) fn top(&self, names: &str) -> String {
        let full = |name: &str| match name.strip_prefix("layers.").filter(|_| self.blocks) {
            Some(rest) => format!("{}blocks.{rest}", self.prefix),
            None => format!("{}{name}", self.prefix),
        };
        let mut all = names.split('|').map(full);
        let first = all.next().unwrap_or_default();
        if self.has(&first) { first } else { all.find(|name| self.has(name)).unwrap_or(first) }
    }

    pub(crate) fn embedding(&self) -> Result<Matrix, Error> {
        let name = format!("{}.weight", self.top(self.names.embedding));
        let tensor = self.require(&name)?;
        let rows = usize::try_from(tensor.shape.first().copied().unwrap_or(0)).unwrap_or(0);
        if let Some(vocab) = self.keys.json("vocab_size").and_then(Value::as_u64)
            && vocab != rows as u64
        {
            return Err(self.bad(tensor, format!("`vocab_size` is {vocab}")));
        }
        self.matrix_of(
            self.expect(&name, &[rows, self.shape.embedding])?,
            Part::all(rows),
            self.shape.embedding,
        )
    }

    /// The stored head, whatever the configuration says, as transformers does; else the embedding, if the two are tied.
    pub(crate) fn head(&self, embedding: &Matrix) -> Result<(Matrix, Option<Vector>), Error> {
        // Some text towers have a head of their own.
        let mut names = self.names.head.split('|').chain(["language_model.lm_head"]);
        let stem = names.clone().find(|name| self.has(name)).or(names.next()).unwrap_or_default();
        let whole = self.keys.whole("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
        let own = self.keys.flag("tie_word_embeddings", self.family.defaults.tied)?;
        let tied = self.keys.is_gguf() || whole || own;
        let weight = match self.has(stem) {
            false if tied => embedding.clone(),
            _ => self.matrix(stem, Part::all(embedding.rows), self.shape.embedding)?,
        };
        Ok((weight, self.bias(stem, self.family.head_bias, Part::all(embedding.rows))?))
    }

    pub(crate) fn positions(&self) -> Result<Option<Positions>, Error> {
        let Some(offset) = self.family.positions else { return Ok(None) };
        let name = format!("{}.weight", self.top(self.names.positions));
        let rows = self.require(&name)?.shape.first().copied().unwrap_or(0) as usize;
        let table = self.vector(&name, &[rows, self.shape.hidden], 0.0)?;
        Ok(Some(Positions { table, rows, offset }))
    }

    pub(crate) fn embedding_norm(&self) -> Result<Option<Norm>, Error> {
        match self.family.embedding_norm {
            true => self.norm(&self.top(self.names.embedding_norm), self.shape.hidden).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn ropes(&self) -> Result<Vec<RopeSpec>, Error> {
        let rotate = |(i, rope): (usize, &RopeConfig)| {
            // Layers without a window come first.
            let wide = self.shape.wide.filter(|_| i == 0);
            let head_dim = wide.map_or(self.shape.head_dim, |(dim, ..)| dim);
            let part = self.shape.latent.as_ref().map(|latent| latent.rope as f64);
            let rotary = self.keys.gguf_number("rope.dimension_count");
            let rotary = rotary.or(self.keys.json("rotary_dim").and_then(Value::as_f64));
            let rotary = part.or(rotary).unwrap_or(head_dim as f64 * rope.rotary) as usize;
            if rotary == 0 || !rotary.is_multiple_of(2) || rotary > head_dim {
                let message = format!("{rotary} of {head_dim} dimensions of a head cannot be rotated");
                return Err(self.keys.config(message));
            }
            let RopeConfig { theta, scaling, .. } = *rope;
            let divisors = |given: &Option<Vec<f32>>| match given {
                None => Ok(None),
                Some(given) if given.len() == rotary / 2 => Ok(Some(Divisors::Given(given.clone()))),
                Some(given) => Err(self.keys.config(format!(
                    "{} divisors of rotation are given for {} pairs",
                    given.len(),
                    rotary / 2
                ))),
            };
            let style = match self.keys.is_gguf() {
                true => self.family.gguf_rope,
                false if !self.keys.flag("rope_interleave", true)? => RopeStyle::Half,
                false => self.family.rope,
            };
            let (divisors, long_divisors) = (divisors(&rope.divisors)?, divisors(&rope.long_divisors)?);
            let reversed = self.family.reversed;
            Ok(RopeSpec { theta, rotary, style, reversed, scaling, divisors, long_divisors })
        };
        let mut ropes = self.shape.ropes.iter().enumerate().map(rotate).collect::<Result<Vec<_>, _>>()?;
        if let Some(rope) = ropes.first_mut().filter(|_| self.keys.is_gguf()) {
            self.stored_divisors(rope)?;
        }
        Ok(ropes)
    }

    /// What GGUF stores as tensors: the divisors of Llama 3's scaling, or those of long and short sequences.
    fn stored_divisors(&self, rope: &mut RopeSpec) -> Result<(), Error> {
        let divisors = |name: &str| match self.has(name) {
            true => self
                .vector(&format!("{name}.weight"), &[rope.rotary / 2], 0.0)
                .map(Divisors::Stored)
                .map(Some),
            false => Ok(None),
        };
        let (all, short, long) =
            (divisors("rope_freqs")?, divisors("rope_factors_short")?, divisors("rope_factors_long")?);
        if long.is_some() {
            let original = self.keys.gguf_number("rope.scaling.original_context_length");
            let attention_factor = self.keys.gguf_number("rope.scaling.attn_factor").unwrap_or(1.0);
            let original = original.unwrap_or(self.shape.context as f64);
            rope.scaling =
                Scaling::Long { original, attention_factor, long_attention_factor: attention_factor };
        }
        rope.long_divisors = long;
        rope.divisors = all.or(short);
        Ok(())
    }

    pub(crate) fn block(&self, i: usize) -> Result<Block, Error> {
        let (n, f, s) = (self.names, self.family, self.shape);
        let name = |pattern: &str| self.top(&pattern.replace("{}", &i.to_string()));
        let norm = |pattern: &str, wanted: bool| match wanted {
            true => self.norm(&name(pattern), s.hidden).map(Some),
            false => Ok(None),
        };
        let mixer = match self.delta(i, &name)? {
            Some(delta) => Mixer::Delta(delta),
            None => Mixer::Attention(self.attention(i, &name)?),
        };
        let (mlp, experts) = match self.experts(i)? {
            Some((shared, experts)) => (shared, Some(experts)),
            None => (Some(self.mlp(&name)?), None),
        };
        let sums = s.stream_norms == Norms::Sums;
        // Of sums, the first norm comes after attention.
        let before_mlp = if sums { n.attention_norm } else { n.mlp_norm };
        let (attention_norm, mlp_norm) = (name(n.attention_norm), name(n.mlp_norm));
        let (project_in, project_out) = self.projections(i)?;
        let mlp_norm_stored = f.post_norms == PostNorms::StoredMlp && self.has(&name(n.mlp_post_norm));
        let own_norm = !s.parallel || mlp_norm != attention_norm && self.has(&mlp_norm);
        Ok(Block {
            project_in,
            attention_norm: norm(n.attention_norm, f.pre_norms && !sums)?,
            mixer,
            attention_post_norm: norm(n.attention_post_norm, s.post_norms)?,
            mlp_norm: norm(before_mlp, f.pre_norms && own_norm)?,
            mlp,
            experts,
            mlp_post_norm: norm(n.mlp_post_norm, s.post_norms || mlp_norm_stored)?,
            parallel: s.parallel,
            norms_replace: s.stream_norms != Norms::Kept,
            residual_scale: s.residual_scale,
            end_norm: norm(n.mlp_norm, sums)?,
            scale: match f.block_scale {
                "" => None,
                pattern => Some(self.vector(&name(pattern), &[1], 0.0)?),
            },
            project_out,
        })
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
        let last = i + 1 == self.shape.layers;
        Ok((project(project_in, i == 0, stream, embedding)?, project(project_out, last, embedding, stream)?))
    }

    /// The attention of a layer.
    fn attention(&self, i: usize, name: &dyn Fn(&str) -> String) -> Result<AttentionSpec, Error> {
        let (n, f, s) = (self.names, self.family, self.shape);
        let (([q, k, v], gate), latent) = match &s.latent {
            Some(latent) => {
                let (qkv, latent) = self.latent(latent, i, name)?;
                ((qkv, None), latent)
            }
            None => (self.queries_keys_values(i, name)?, None),
        };
        let (head_dim, kv_heads, _) = s.heads_of(i);
        let mixed = if latent.is_some() { v.weight.rows } else { s.heads * head_dim };
        let window = s.windows.get(i).copied().flatten();
        let chunks = matches!(f.windows, Windows::ChunksOfRotated);
        let rope = match s.rope_of.get(i) {
            Some(rope) => *rope,
            None => usize::from(window.is_some() && s.ropes.len() > 1),
        };
        let rope = Some(rope).filter(|_| s.rotated.get(i) == Some(&true));
        // Norms without weights come with rotation.
        let head_norm = |pattern: &str, heads: usize| match f.head_norms {
            HeadNorms::Bare(_) if rope.is_none() => Ok(None),
            _ => self.head_norm(&name(pattern), heads, head_dim),
        };
        Ok(AttentionSpec {
            q,
            k,
            v,
            joined: self.joined(name)?,
            o: self.linear(&name(n.o), f.output_bias, Part::all(s.hidden), mixed)?,
            gate,
            q_norm: head_norm(n.q_norm, s.heads)?,
            k_norm: head_norm(n.k_norm, kv_heads)?,
            v_norm: s.wide.map(|_| self.bare_norm(head_dim)),
            clip: s.clip,
            growth: s.growth.filter(|_| f.temperature != Temperature::Unrotated || rope.is_none()),
            heads: s.heads,
            kv_heads,
            head_dim,
            scale: if s.scale_by_layer { s.scale / (i + 1) as f32 } else { s.scale },
            softcap: s.attention_softcap,
            window: window.map(if chunks { Window::Chunk } else { Window::Last }),
            sinks: f.sinks.then(|| self.vector(&name(n.sinks), &[s.heads], 0.0)).transpose()?,
            norms_after_rope: f.norms_after_rope,
            alibi: s.alibi,
            rope,
            latent,
        })
    }

    /// q, k and v side by side, where that is how they are stored.
    fn joined(&self, name: &dyn Fn(&str) -> String) -> Result<Option<Linear>, Error> {
        let (s, bias) = (self.shape, self.family.qkv_bias);
        let all = Part::all((s.heads + 2 * s.kv_heads) * s.head_dim);
        let fused = self.names.qkv.filter(|fused| self.by_inputs() || self.joins_codes(*fused, name));
        fused.map(|(fused, _)| self.linear(&name(fused), bias, all, s.hidden)).transpose()
    }

    /// Whether q, k and v are codes side by side.
    fn joins_codes(&self, (fused, order): (&str, Fused), name: &dyn Fn(&str) -> String) -> bool {
        order == Fused::Stacked && codes::by_inputs(self, &name(fused))
    }

    fn by_inputs(&self) -> bool {
        self.family.by_inputs && !self.keys.is_gguf()
    }

    /// q, k and v, and the gate of attention's output: tensors of their own, or rows of one.
    fn queries_keys_values(
        &self,
        layer: usize,
        name: &dyn Fn(&str) -> String,
    ) -> Result<([Linear; 3], Option<Linear>), Error> {
        let (n, s) = (self.names, self.shape);
        let (head_dim, kv_heads, alike) = s.heads_of(layer);
        let (q, kv) = (s.heads * head_dim, kv_heads * head_dim);
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), self.family.qkv_bias, part, s.hidden);
        let Some((fused, order)) = n.qkv.filter(|(fused, _)| self.is_fused(&name(fused), &name(n.q))) else {
            let (q, gate) = match self.family.gated_attention {
                false => (linear(n.q, Part::all(q))?, None),
                true => {
                    let runs = Some(Runs { rows: head_dim, stride: 2 * head_dim });
                    let part = |first| linear(n.q, Part { first, rows: q, total: 2 * q, runs });
                    (part(0)?, Some(part(head_dim)?))
                }
            };
            let v = if alike { n.k } else { n.v };
            return Ok(([q, linear(n.k, Part::all(kv))?, linear(v, Part::all(kv))?], gate));
        };
        if let Some(all) = self.joined(name)?.filter(|_| self.joins_codes((fused, order), name)) {
            let part = |rows| Linear { weight: Matrix { rows, ..all.weight.clone() }, bias: None };
            return Ok(([part(q), part(kv), part(kv)], None));
        }
        let part = |first: usize, rows: usize, run: usize| {
            let stride = (s.heads / kv_heads + 2) * head_dim;
            let runs = (order == Fused::ByKvHead && kv_heads > 1).then_some(Runs { rows: run, stride });
            linear(fused, Part { first, rows, total: q + 2 * kv, runs })
        };
        let quarter = |first: usize| {
            let runs = Some(Runs { rows: q / 4, stride: 3 * (q / 4) });
            linear(fused, Part { first: first * (q / 4), rows: q, total: 3 * q, runs })
        };
        if order == Fused::Quarters && !(s.heads.is_multiple_of(4) && kv_heads == s.heads) {
            return Err(self.keys.config(format!("{} heads cannot lie in quarters", s.heads)));
        }
        let qkv = match order {
            Fused::Quarters => [quarter(0)?, quarter(2)?, quarter(1)?],
            Fused::Stacked => [part(0, q, q)?, part(q, kv, kv)?, part(q + kv, kv, kv)?],
            Fused::ByKvHead => {
                let group = q / kv_heads;
                [part(0, q, group)?, part(group, kv, head_dim)?, part(group + head_dim, kv, head_dim)?]
            }
        };
        Ok((qkv, None))
    }

    fn mlp(&self, name: &dyn Fn(&str) -> String) -> Result<MlpSpec, Error> {
        let (gate, up) = self.gate_and_up(name)?;
        let joined = self.family.gated && gate.is_none();
        let (hidden, width) = (self.shape.hidden, self.shape.intermediate);
        let down = self.linear(&name(self.names.down), self.family.mlp_bias, Part::all(hidden), width)?;
        let joined = joined.then_some(Joined::Halves);
        Ok(MlpSpec { gate, up, joined, down, activation: self.shape.activation })
    }

    /// The gate, if there is one, and up: tensors of their own, or rows of one. Of codes that are stored by inputs, up holds
    /// the gate too.
    fn gate_and_up(&self, name: &dyn Fn(&str) -> String) -> Result<(Option<Linear>, Linear), Error> {
        let (n, s) = (self.names, self.shape);
        let width = s.intermediate;
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), self.family.mlp_bias, part, s.hidden);
        if !self.family.gated {
            return Ok((None, linear(n.up, Part::all(width))?));
        }
        match n.gate_up.filter(|fused| self.is_fused(&name(fused), &name(n.gate))) {
            None => Ok((Some(linear(n.gate, Part::all(width))?), linear(n.up, Part::all(width))?)),
            Some(fused) if codes::by_inputs(self, &name(fused)) => {
                Ok((None, linear(fused, Part::all(2 * width))?))
            }
            Some(fused) => {
                let part = |first| linear(fused, Part { first, rows: width, total: 2 * width, runs: None });
                Ok((Some(part(0)?), part(width)?))
            }
        }
    }

    /// Whether to look for the tensor `fused` and not for `own`.
    fn is_fused(&self, fused: &str, own: &str) -> bool {
        !self.has(own) && (self.has(fused) || !self.keys.is_gguf())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.contains(&format!("{name}.weight")) || codes::has(self, name)
    }

    /// Whether the checkpoint has a tensor of exactly this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.catalog.get(name).is_some()
    }

    /// Rows (outputs) of the whole matrix of this name, of so many columns.
    pub(crate) fn outputs(&self, name: &str, cols: usize) -> Option<usize> {
        let rows = |t: &Tensor| usize::try_from(*t.shape.first()?).ok();
        codes::outputs(self, name, cols)
            .or_else(|| self.catalog.get(&format!("{name}.weight")).and_then(rows))
    }

    /// Rows of each matrix of a stack.
    pub(crate) fn rows_of_each(&self, name: &str) -> Option<usize> {
        self.catalog.get(name).and_then(|t| usize::try_from(*t.shape.get(1)?).ok())
    }

    pub(crate) fn linear(&self, name: &str, bias: Bias, part: Part, cols: usize) -> Result<Linear, Error> {
        let weight = match self.by_inputs() {
            true => self.matrix_by_inputs(&format!("{name}.weight"), part, cols)?,
            false => self.matrix(name, part, cols)?,
        };
        Ok(Linear { weight, bias: self.bias(name, bias, part)? })
    }

    fn bias(&self, name: &str, bias: Bias, part: Part) -> Result<Option<Vector>, Error> {
        let name = format!("{name}.bias");
        self.is_there(bias, &name)?.then(|| self.vector_part(&name, part)).transpose()
    }

    /// Whether the model has the tensor `name`.
    fn is_there(&self, bias: Bias, name: &str) -> Result<bool, Error> {
        match bias {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Key(..) if self.keys.is_gguf() => Ok(self.contains(name)),
            Bias::Key(keys, default) => {
                let key = keys.split('|').find(|key| self.keys.json(key).is_some()).unwrap_or(keys);
                self.keys.flag(key, default)
            }
        }
    }

    /// A norm of groups of `size` columns.
    pub(crate) fn norm(&self, name: &str, size: usize) -> Result<Norm, Error> {
        let (f, s) = (self.family, self.shape);
        let offset = if self.keys.is_gguf() { 0.0 } else { f.norm_offset };
        let weight = format!("{name}.weight");
        let weight = self.is_there(f.norm_weights, &weight)?.then(|| self.vector(&weight, &[size], offset));
        let bias = self.bias(name, f.norm_bias, Part::all(size))?;
        Ok(Norm { kind: f.norm, size, weight: weight.transpose()?, further: Vec::new(), bias, eps: s.eps })
    }

    /// The norm of queries or keys of `heads` heads.
    fn head_norm(&self, name: &str, heads: usize, head_dim: usize) -> Result<Option<Norm>, Error> {
        let (f, s) = (self.family, self.shape);
        let offset = if self.keys.is_gguf() { 0.0 } else { f.norm_offset };
        let (size, shape) = match f.head_norms {
            _ if !s.head_norms => return Ok(None),
            HeadNorms::Own(_) | HeadNorms::SharedIf(_) if self.keys.is_gguf() && !self.has(name) => {
                return Ok(None);
            }
            HeadNorms::Never => return Ok(None),
            HeadNorms::Bare(_) => {
                return Ok(Some(self.bare_norm(head_dim)));
            }
            HeadNorms::Shared | HeadNorms::SharedIf(_) => (head_dim, vec![head_dim]),
            HeadNorms::Own(_) => (head_dim, vec![heads, head_dim]),
            HeadNorms::Row => (heads * head_dim, vec![heads * head_dim]),
        };
        let bias = match f.head_norms {
            HeadNorms::Shared | HeadNorms::SharedIf(_) => self.bias(name, f.norm_bias, Part::all(size))?,
            _ => None,
        };
        let mut further = Vec::new();
        let weight = match name.contains("{h}") {
            false => self.vector(&format!("{name}.weight"), &shape, offset)?,
            true => {
                let of = |head: usize| format!("{}.weight", name.replace("{h}", &head.to_string()));
                let vectors = (0..heads).map(|head| self.vector(&of(head), &[size], offset));
                further = vectors.collect::<Result<Vec<_>, _>>()?;
                further.remove(0)
            }
        };
        Ok(Some(Norm { kind: f.norm, size, weight: Some(weight), further, bias, eps: s.eps }))
    }

    /// A norm without weights.
    fn bare_norm(&self, size: usize) -> Norm {
        let (kind, eps) = (self.family.norm, self.shape.eps);
        Norm { kind, size, weight: None, further: Vec::new(), bias: None, eps }
    }

    fn matrix(&self, name: &str, part: Part, cols: usize) -> Result<Matrix, Error> {
        if let Some(matrix) = codes::find(self, name, part, cols)? {
            return Ok(matrix);
        }
        self.matrix_of(self.expect_matrix(&format!("{name}.weight"), &[part.total, cols])?, part, cols)
    }

    pub(crate) fn matrix_of(&self, tensor: &Tensor, part: Part, cols: usize) -> Result<Matrix, Error> {
        if !cols.is_multiple_of(tensor.dtype.block_len()) {
            return Err(self.bad(tensor, format!("its rows are not whole blocks of {}", tensor.dtype.name())));
        }
        let tiles = self.catalog.tiles(&tensor.name).map(|tiles| part.tiles(tiles));
        let tiles = match tiles {
            None => None,
            Some(Some(tiles)) => Some(tiles),
            Some(None) => return Err(self.bad(tensor, "its packed tiles are cut at other rows".to_owned())),
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
            scales: scales::find(self, tensor, part, cols)?,
        })
    }

    /// A matrix stored `[cols, rows]`. Of a part that lies beside others the rows alone are told.
    fn matrix_by_inputs(&self, name: &str, part: Part, cols: usize) -> Result<Matrix, Error> {
        let whole = self.k_major(self.expect(name, &[cols, part.total])?, Part::all(cols), part.total)?;
        Ok(Matrix { rows: part.rows, ..whole })
    }

    /// Some rows of one matrix of a stack of matrices in one tensor.
    pub(crate) fn stacked_matrix(
        &self,
        name: &str,
        stack: Stack,
        part: Part,
        cols: usize,
    ) -> Result<Matrix, Error> {
        if name.ends_with("_blocks") {
            return codes::blocks(self, name, stack, part, cols);
        }
        let tensor = self.expect(name, &[stack.count, part.total, cols])?;
        self.matrix_of(tensor, stack.part(part), cols)
    }

    /// One matrix of a stack of matrices in one tensor, each stored `[cols, rows]`, unless it is packed: packed matrices are
    /// stored by outputs.
    pub(crate) fn stacked_k_major(
        &self,
        name: &str,
        stack: Stack,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, Error> {
        if self.catalog.tiles(name).is_some() {
            return self.stacked_matrix(name, stack, Part::all(rows), cols);
        }
        self.k_major(self.expect(name, &[stack.count, cols, rows])?, stack.part(Part::all(cols)), rows)
    }

    /// A part of a tensor, by its inputs.
    fn k_major(&self, tensor: &Tensor, inputs: Part, rows: usize) -> Result<Matrix, Error> {
        if tensor.dtype.block_len() != 1 {
            return Err(self.bad(tensor, format!("stored by inputs, it cannot be {}", tensor.dtype.name())));
        }
        let stored = self.matrix_of(tensor, inputs, rows)?;
        if stored.tiles.is_some() {
            return Err(self.bad(tensor, "stored by inputs, it cannot be packed".to_owned()));
        }
        Ok(Matrix { rows, cols: inputs.rows, k_major: true, ..stored })
    }

    /// Some elements of one vector of a stack of vectors in one tensor.
    pub(crate) fn stacked_vector(&self, name: &str, stack: Stack, part: Part) -> Result<Vector, Error> {
        let tensor = self.expect_plain(name, &[stack.count, part.total])?;
        self.vector_of(tensor, stack.part(part))
    }

    /// A matrix of one row, which may be stored as a vector.
    pub(crate) fn one_row(&self, name: &str, cols: usize) -> Result<Matrix, Error> {
        let tensor = match self.require(name)?.shape.len() {
            1 => self.expect(name, &[cols])?,
            _ => self.expect(name, &[1, cols])?,
        };
        self.matrix_of(tensor, Part::all(1), cols)
    }

    /// A vector, which may be stored as a matrix of one row.
    pub(crate) fn vector_or_row(&self, name: &str, len: usize) -> Result<Vector, Error> {
        let shape = [1, len];
        let row = self.require(name)?.shape.len() == 2;
        self.vector(name, &shape[usize::from(!row)..], 0.0)
    }

    pub(crate) fn vector(&self, name: &str, shape: &[usize], offset: f32) -> Result<Vector, Error> {
        let tensor = self.expect_plain(name, shape)?;
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
        self.vector_of(self.expect_plain(name, &[part.total])?, part)
    }

    fn vector_of(&self, tensor: &Tensor, part: Part) -> Result<Vector, Error> {
        if part.rows != part.total && tensor.dtype.block_len() != 1 {
            let message = format!("a part of it is needed, and {} has blocks", tensor.dtype.name());
            return Err(self.bad(tensor, message));
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

    /// The tensor, if it has this shape and a format that can be computed with.
    pub(crate) fn expect(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.expect_shape(name, shape)?;
        self.computable(tensor)
    }

    /// A matrix, which may be of codes where the configuration says how they are scaled.
    fn expect_matrix(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.expect_shape(name, shape)?;
        if scales::are_codes(self.keys, tensor) { Ok(tensor) } else { self.computable(tensor) }
    }

    pub(crate) fn expect_shape(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.require(name)?;
        if !tensor.shape.iter().copied().eq(shape.iter().map(|n| *n as u64)) {
            return Err(self.bad(tensor, format!("the configuration calls for {shape:?}")));
        }
        Ok(tensor)
    }

    fn computable<'t>(&self, tensor: &'t Tensor) -> Result<&'t Tensor, Error> {
        if !DType::COMPUTABLE.contains(&tensor.dtype) {
            let message = format!(
                "tensor `{}` is stored as {}, which is not supported yet",
                tensor.name,
                tensor.dtype.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, self.catalog.file_of(tensor), message));
        }
        Ok(tensor)
    }

    /// The same of what is read whole.
    fn expect_plain(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.expect(name, shape)?;
        match self.catalog.tiles(name) {
            None => Ok(tensor),
            Some(_) => Err(self.bad(tensor, "it is packed, which only matrices may be".to_owned())),
        }
    }

    pub(crate) fn require(&self, name: &str) -> Result<&'a Tensor, Error> {
        self.catalog.get(name).ok_or_else(|| {
            let message = format!(
                "the model `{}` needs a tensor `{name}`, which is not in the checkpoint",
                self.family.name
            );
            Error::new(ErrorKind::MissingTensor, self.keys.path(), message)
        })
    }

    pub(crate) fn bad(&self, tensor: &Tensor, why: String) -> Error {
        let message = format!("tensor `{}` has shape {:?}; {why}", tensor.name, tensor.shape);
        Error::new(ErrorKind::Tensor, self.catalog.file_of(tensor), message)
    }
}

/// Some rows of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) first: usize,
    pub(crate) rows: usize,
    /// Rows of the tensor.
    pub(crate) total: usize,
    pub(crate) runs: Option<Runs>,
}

/// One of several matrices of equal shape that lie one after the other in a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) count: usize,
    pub(crate) index: usize,
}

impl Stack {
    /// Some rows of this matrix among those of all.
    pub(crate) fn part(self, part: Part) -> Part {
        Part { first: self.index * part.total + part.first, total: self.count * part.total, ..part }
    }
}

impl Part {
    pub(crate) fn all(rows: usize) -> Self {
        Self { first: 0, rows, total: rows, runs: None }
    }

    /// The packed tiles of its rows, counted from its first; `None`: a tile crosses into other rows.
    fn tiles(self, tiles: &Arc<[TileRows]>) -> Option<Arc<[TileRows]>> {
        if self.rows == self.total {
            return Some(Arc::clone(tiles));
        }
        let run = self.runs.map_or(self.rows, |runs| runs.rows).max(1);
        let mut own = Vec::new();
        for start in (0..self.rows).step_by(run) {
            let place = self.first + self.runs.map_or(start, |runs| runs.place(start));
            let (mut row, end) = (start, self.rows.min(start + run));
            let of_run = tiles.get(tiles.partition_point(|t| t.start < place)..)?;
            for tile in of_run.iter().take_while(|t| t.start < place + (end - start)) {
                if tile.start != place + (row - start) {
                    return None;
                }
                own.push(TileRows { start: row, ..*tile });
                row += tile.rows;
            }
            if row != end {
                return None;
            }
        }
        Some(Arc::from(own))
    }

    /// The bytes of `rows` rows from the first.
    pub(crate) fn extent(self, tensor: &Tensor, rows: usize) -> Extent {
        let row = tensor.extent.bytes / self.total.max(1) as u64;
        let offset = tensor.extent.offset + self.first as u64 * row;
        Extent { file: tensor.extent.file, offset, bytes: rows as u64 * row }
    }
}
