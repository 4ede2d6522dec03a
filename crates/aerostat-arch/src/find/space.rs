//! The tensors of state spaces and gated convolutions.

use super::part::Part;
use super::tensors::Tensors;
use crate::config::{LayerShape, MixerKind};
use crate::error::Error;
use crate::family::Bias;
use crate::spec::{GatedConvolution, Linear, Mixer, Norm, NormKind, SpaceShape, StateSpace, Vector};

impl Tensors<'_> {
    /// The token mixer of a layer.
    pub(super) fn mixer(&self, layer: &LayerShape, name: &dyn Fn(&str) -> String) -> Result<Mixer, Error> {
        Ok(match self.mixer_kind(layer.mixer, name) {
            MixerKind::Delta => Mixer::Delta(self.delta(name)?),
            MixerKind::Space => Mixer::Space(self.space(name)?),
            MixerKind::Convolution => Mixer::Convolution(self.gated_convolution(name)?),
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
        let delta = self.family.delta.as_ref();
        let rate = delta.map(|delta| if self.is_gguf() { delta.gguf_names.rate } else { delta.names.rate });
        match kind {
            MixerKind::Stored if rate.is_some_and(|rate| self.stored.contains(&name(rate))) => {
                MixerKind::Delta
            }
            MixerKind::Stored => MixerKind::Attention,
            known => known,
        }
    }

    fn space(&self, name: &dyn Fn(&str) -> String) -> Result<StateSpace, Error> {
        let Some((family, s)) = self.family.space.as_ref().zip(self.shape.spaces.shape) else {
            return Err(self.stored.keys.defect("a layer is a state space, but the family has none"));
        };
        let n = &family.names;
        let (hidden, inner, channels) = (self.shape.hidden, s.inner(), s.channels());
        let total = inner + channels + s.heads;
        let part = |first, rows| {
            self.linear(&name(n.inputs), family.input_bias, Part { first, rows, total, runs: None }, hidden)
        };
        let per_head = |pattern: &str| self.vector(&name(pattern), &[s.heads], 0.0);
        let bias = format!("{}.bias", name(n.convolution));
        Ok(StateSpace {
            gate: part(0, inner)?,
            inputs: part(inner, channels)?,
            step: part(inner + channels, s.heads)?,
            o: self.linear(&name(n.o), family.output_bias, Part::all(hidden), inner)?,
            convolution: self.convolution(&name(n.convolution), (channels, s.kernel))?,
            convolution_bias: self.vector_if(family.convolution_bias, &bias, channels)?,
            rate: per_head(n.rate)?,
            step_bias: per_head(n.step_bias)?,
            skip: per_head(n.skip)?,
            norm: self.space_norm(&name(n.norm), family.norm, s)?,
            norm_first: self.shape.spaces.norm_first,
            factors: self.shape.spaces.factors,
            shape: s,
        })
    }

    /// The norm of outputs, over each group of heads.
    fn space_norm(&self, name: &str, wanted: Bias, s: SpaceShape) -> Result<Option<Norm>, Error> {
        let size = s.inner() / s.groups;
        let weight = self.vector_if(wanted, name, s.inner())?;
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
        let Some((n, kernel)) = self.family.convolution.as_ref().zip(self.shape.spaces.kernel) else {
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
