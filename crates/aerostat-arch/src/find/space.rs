//! The tensors of state spaces, lightning attention and gated convolutions.

use super::part::Part;
use super::tensors::Tensors;
use crate::config::{LayerShape, SelectiveShape};
use crate::error::Error;
use crate::family::{Bias, ConvolutionNames, MixerKind, SelectiveFamily, SelectiveNorms, SpaceFamily};
use crate::spec::{
    GatedConvolution, Lightning, Linear, Mixer, Norm, NormKind, Runs, Selective, SpaceShape, StateSpace,
    Vector,
};

impl Tensors<'_> {
    /// The token mixer of a layer.
    pub(super) fn mixer(&self, layer: &LayerShape, name: &dyn Fn(&str) -> String) -> Result<Mixer, Error> {
        Ok(match self.mixer_kind(layer.mixer, name) {
            MixerKind::Delta => Mixer::Delta(self.delta(name)?),
            MixerKind::Space => Mixer::Space(self.space(name)?),
            MixerKind::Convolution => Mixer::Convolution(self.gated_convolution(name)?),
            MixerKind::Lightning => Mixer::Lightning(self.lightning(layer, name)?),
            MixerKind::Beside => Mixer::Beside {
                attention: self.attention(layer, name)?,
                attention_factor: self.shape.half_factors.attention,
                space: self.space(name)?,
            },
            MixerKind::Nothing => Mixer::Nothing,
            MixerKind::Attention | MixerKind::Stored => Mixer::Attention(self.attention(layer, name)?),
        })
    }

    /// What a layer's tensors say where the configuration leaves it open.
    fn mixer_kind(&self, kind: MixerKind, name: &dyn Fn(&str) -> String) -> MixerKind {
        let f = self.family;
        let holds = |rate: Option<&str>| rate.is_some_and(|rate| self.stored.contains(&name(rate)));
        let delta = f.delta.as_ref();
        let delta = delta.map(|delta| if self.is_gguf() { delta.gguf_names.rate } else { delta.names.rate });
        match kind {
            MixerKind::Stored if holds(delta) => MixerKind::Delta,
            MixerKind::Stored if holds(f.space.as_ref().map(|space| space.gguf_names.rate)) => {
                MixerKind::Space
            }
            MixerKind::Stored
                if f.convolution.is_some() && self.has(&name(ConvolutionNames::GGUF.inputs)) =>
            {
                MixerKind::Convolution
            }
            MixerKind::Stored if f.one_part && !self.has(&name(self.names.q)) => MixerKind::Nothing,
            MixerKind::Stored => MixerKind::Attention,
            known => known,
        }
    }

    fn space(&self, name: &dyn Fn(&str) -> String) -> Result<StateSpace, Error> {
        let Some((family, s)) = self.family.space.as_ref().zip(self.shape.spaces.shape) else {
            return Err(self.stored.keys.defect("a layer is a state space, but the family has none"));
        };
        if let Some(selective) = &family.selective {
            return self.selective_space(family, selective, s, name);
        }
        let n = if self.is_gguf() { &family.gguf_names } else { &family.names };
        let (hidden, inner, channels) = (self.shape.hidden, s.inner(), s.channels());
        let total = inner + channels + s.heads;
        let part = |first, rows| {
            self.linear(&name(n.inputs), family.input_bias, Part { first, rows, total, runs: None }, hidden)
        };
        let per_head = |pattern: &str| self.flat_vector(&name(pattern), s.heads);
        let bias = format!("{}.bias", name(n.convolution));
        Ok(StateSpace {
            gate: part(0, inner)?,
            inputs: part(inner, channels)?,
            step: part(inner + channels, s.heads)?,
            o: self.linear(&name(n.o), family.output_bias, Part::all(hidden), inner)?,
            convolution: self.convolution(&name(n.convolution), (channels, s.kernel))?,
            convolution_bias: self.vector_if(family.convolution_bias, &bias, channels)?,
            selective: None,
            rate: per_head(n.rate)?,
            rate_is_log: !self.is_gguf(),
            step_bias: Some(per_head(n.step_bias)?),
            skip: per_head(n.skip)?,
            norm: self.space_norm(&name(n.norm), family.norm, s)?,
            norm_first: self.shape.spaces.norm_first,
            factors: self.shape.spaces.factors,
            shape: s,
        })
    }

    /// A state space of the first Mamba.
    fn selective_space(
        &self,
        family: &SpaceFamily,
        own: &SelectiveFamily,
        s: SpaceShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<StateSpace, Error> {
        let (n, own) = match self.is_gguf() {
            true => (&family.gguf_names, &SelectiveFamily::GGUF),
            false => (&family.names, own),
        };
        let (hidden, inner, states) = (self.shape.hidden, s.inner(), s.state_dim);
        let SelectiveShape { rank, bare, eps } = self.shape.spaces.selective;
        let half = |first: usize| {
            // What passes the convolution comes before the gate.
            let part = Part { first, rows: inner, total: 2 * inner, runs: None };
            self.linear(&name(n.inputs), family.input_bias, part, hidden)
        };
        let selected = |first: usize, rows: usize| {
            let part = Part { first, rows, total: rank + 2 * states, runs: None };
            self.linear(&name(own.selected), Bias::Never, part, inner)
        };
        let sizes = [rank, states, states];
        let norms = match own.norms {
            SelectiveNorms::Named([steps, ..]) if self.is_gguf() && !bare && !self.has(&name(steps)) => None,
            SelectiveNorms::Never => None,
            SelectiveNorms::Named([steps, write, read]) if !bare => {
                let norm = |pattern: &str, size: usize| self.norm(&name(pattern), size);
                Some([norm(steps, rank)?, norm(write, states)?, norm(read, states)?])
            }
            SelectiveNorms::Named(_) | SelectiveNorms::Bare(_) => {
                Some(sizes.map(|size| Norm { eps: eps.unwrap_or(self.shape.eps), ..self.bare_norm(size) }))
            }
        };
        let bias = format!("{}.bias", name(n.convolution));
        Ok(StateSpace {
            gate: half(inner)?,
            inputs: half(0)?,
            step: self.linear(&name(own.step), Bias::Always, Part::all(inner), rank)?,
            selective: Some(Selective {
                step_down: selected(0, rank)?,
                read_write: selected(rank, 2 * states)?,
                norms,
            }),
            o: self.linear(&name(n.o), family.output_bias, Part::all(hidden), inner)?,
            convolution: self.convolution(&name(n.convolution), (inner, s.kernel))?,
            convolution_bias: self.vector_if(family.convolution_bias, &bias, inner)?,
            rate: self.vector(&name(n.rate), &[inner, states], 0.0)?,
            rate_is_log: !self.is_gguf(),
            step_bias: None,
            skip: self.vector(&name(n.skip), &[inner], 0.0)?,
            norm: None,
            norm_first: false,
            factors: None,
            shape: s,
        })
    }

    /// Lightning attention of a layer.
    fn lightning(&self, layer: &LayerShape, name: &dyn Fn(&str) -> String) -> Result<Lightning, Error> {
        let Some(own) = &self.family.lightning else {
            return Err(self.stored.keys.defect("a layer is lightning attention, but the family has none"));
        };
        let (s, hidden) = (self.shape, self.shape.hidden);
        let (heads, head_dim) = (s.heads, s.head_dim);
        let width = heads * head_dim;
        let runs = (heads > 1).then_some(Runs { rows: head_dim, stride: 3 * head_dim });
        let part = |i: usize| {
            let part = Part { first: i * head_dim, rows: width, total: 3 * width, runs };
            self.linear(&name(own.qkv), Bias::Never, part, hidden)
        };
        let whole =
            |pattern: &str, rows, cols| self.linear(&name(pattern), Bias::Never, Part::all(rows), cols);
        Ok(Lightning {
            q: part(0)?,
            k: part(1)?,
            v: part(2)?,
            gate: whole(own.gate, width, hidden)?,
            o: whole(own.o, hidden, width)?,
            // Whatever the configuration says of the others.
            norm: Norm { eps: 1e-6, ..self.norm(&name(own.norm), width)? },
            activation: s.activation,
            slopes: slopes(heads, layer.index, s.layers.len()),
            head_dim,
        })
    }

    /// The norm of outputs, over each group of heads.
    fn space_norm(&self, name: &str, wanted: Bias, s: SpaceShape) -> Result<Option<Norm>, Error> {
        let size = s.inner() / s.groups;
        let weight = self.is_there(wanted, name)?.then(|| self.flat_vector(name, s.inner())).transpose()?;
        let norm = |weight| Norm {
            kind: NormKind::Rms,
            size,
            weight: Some(weight),
            further: Vec::new(),
            bias: None,
            eps: self.shape.eps,
        };
        Ok(weight.map(norm))
    }

    fn gated_convolution(&self, name: &dyn Fn(&str) -> String) -> Result<GatedConvolution, Error> {
        let names = self.family.convolution.as_ref();
        let names = if self.is_gguf() { names.map(|_| &ConvolutionNames::GGUF) } else { names };
        let Some((n, kernel)) = names.zip(self.shape.spaces.kernel) else {
            return Err(self.stored.keys.defect("a layer is a convolution, but the family has none"));
        };
        let (hidden, bias) = (self.shape.hidden, Bias::Key("conv_bias", false));
        let part = |first| -> Result<Linear, Error> {
            let part = Part { first, rows: hidden, total: 3 * hidden, runs: None };
            self.linear(&name(n.inputs), bias, part, hidden)
        };
        Ok(GatedConvolution {
            before: part(0)?,
            after: part(hidden)?,
            x: part(2 * hidden)?,
            o: self.linear(&name(n.o), bias, Part::all(hidden), hidden)?,
            convolution: self.convolution(&name(n.convolution), (hidden, kernel))?,
            bias: self.vector_if(bias, &format!("{}.bias", name(n.convolution)), hidden)?,
            kernel,
        })
    }

    fn vector_if(&self, wanted: Bias, name: &str, len: usize) -> Result<Option<Vector>, Error> {
        self.is_there(wanted, name)?.then(|| self.vector(name, &[len], 0.0)).transpose()
    }

    /// The weights of a convolution, stored `[channels, 1, kernel]`, or without the middle.
    pub(super) fn convolution(
        &self,
        stem: &str,
        (channels, kernel): (usize, usize),
    ) -> Result<Vector, Error> {
        let name = format!("{stem}.weight");
        match self.stored.get(&name).is_some_and(|tensor| self.stored.sizes::<2>(tensor).is_some()) {
            true => self.vector(&name, &[channels, kernel], 0.0),
            false => self.vector(&name, &[channels, 1, kernel], 0.0),
        }
    }
}

/// How fast the heads of lightning attention forget: powers of `2^(-8 / heads)`, the more slowly the later the layer.
fn slopes(heads: usize, layer: usize, layers: usize) -> Vec<f32> {
    let base = (-8.0 / heads as f64).exp2();
    let factor = 1.0 - layer as f64 / ((layers - 1) as f64 + 1e-5) + 1e-5;
    (1..=heads).map(|head| (base.powi(head as i32) * factor) as f32).collect()
}
