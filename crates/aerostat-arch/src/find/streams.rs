//! The tensors of several residual streams, and of shortcuts beside attention.

use super::part::{Part, Stack};
use super::tensors::Tensors;
use crate::error::Error;
use crate::family::Bias;
use crate::spec::{Linear, Mixing, Shortcut, Streams};

/// Names of tensors; `{i}` stands for a stream's number, less one.
struct StreamNames {
    project: &'static str,
    unproject: &'static str,
    norm: &'static str,
    router: &'static str,
    predict: &'static str,
    correct: &'static str,
    scale: &'static str,
    shortcut_down: &'static str,
    shortcut_up: &'static str,
    shortcut_norm: &'static str,
}

const HUGGING_FACE: StreamNames = StreamNames {
    project: "altup_projections.{i}",
    unproject: "altup_unembed_projections.{i}",
    norm: "layers.{}.altup.router_norm",
    router: "layers.{}.altup.modality_router.weight",
    predict: "layers.{}.altup.prediction_coefs.weight",
    correct: "layers.{}.altup.correction_coefs.weight",
    scale: "layers.{}.altup.correct_output_scale",
    shortcut_down: "layers.{}.laurel.linear_left",
    shortcut_up: "layers.{}.laurel.linear_right",
    shortcut_norm: "layers.{}.laurel.post_laurel_norm",
};

const GGUF: StreamNames = StreamNames {
    project: "altup_proj",
    unproject: "altup_unembd_proj",
    norm: "blk.{}.altup_router_norm",
    router: "blk.{}.altup_router.weight",
    predict: "blk.{}.altup_predict_coef.weight",
    correct: "blk.{}.altup_correct_coef.weight",
    scale: "blk.{}.altup_correct_scale.weight",
    shortcut_down: "blk.{}.laurel_l",
    shortcut_up: "blk.{}.laurel_r",
    shortcut_norm: "blk.{}.laurel_post_norm",
};

impl Tensors<'_> {
    fn stream_names(&self) -> &'static StreamNames {
        if self.is_gguf() { &GGUF } else { &HUGGING_FACE }
    }

    /// How many residual streams there are, if there are several.
    pub(crate) fn streams(&self) -> Option<Streams> {
        self.shape.streams.map(|own| Streams { count: own.count, active: own.active })
    }

    /// What makes further streams in the first layer, and what is made of them in the last one.
    pub(super) fn stream_projections(&self, i: usize) -> Result<(Vec<Linear>, Vec<Linear>), Error> {
        let Some(streams) = self.shape.streams else { return Ok((Vec::new(), Vec::new())) };
        let (hidden, further) = (self.shape.hidden, streams.count.saturating_sub(1));
        let project = |pattern: &str, index: usize| match pattern.contains("{i}") {
            true => {
                let name = self.top(&pattern.replace("{i}", &index.to_string()));
                self.linear(&name, Bias::Never, Part::all(hidden), hidden)
            }
            false => {
                let (name, stack) =
                    (format!("{}.weight", self.top(pattern)), Stack { count: further, index });
                let weight = self.stacked_matrix(&name, stack, Part::all(hidden), hidden)?;
                Ok(Linear { weight, bias: None })
            }
        };
        let all = |pattern: &str, wanted: bool| {
            (0..if wanted { further } else { 0 })
                .map(|index| project(pattern, index))
                .collect::<Result<Vec<_>, Error>>()
        };
        let (names, last) = (self.stream_names(), i + 1 == self.shape.layers.len());
        Ok((all(names.project, i == 0)?, all(names.unproject, last)?))
    }

    /// How a layer mixes streams.
    pub(super) fn mixing(&self, name: &dyn Fn(&str) -> String) -> Result<Option<Mixing>, Error> {
        let Some(streams) = self.shape.streams else { return Ok(None) };
        let (names, hidden, count) = (self.stream_names(), self.shape.hidden, streams.count);
        let small = |pattern: &str, rows, cols| self.vector(&name(pattern), &[rows, cols], 0.0);
        Ok(Some(Mixing {
            norm: self.norm(&name(names.norm), hidden)?,
            factor: 1.0 / hidden as f32,
            router: small(names.router, count, hidden)?,
            predict: small(names.predict, count * count, count)?,
            correct: small(names.correct, count, count)?,
            scale: streams.scaled.then(|| self.vector(&name(names.scale), &[hidden], 0.0)).transpose()?,
        }))
    }

    /// A layer's shortcut beside attention.
    pub(super) fn shortcut(&self, name: &dyn Fn(&str) -> String) -> Result<Option<Shortcut>, Error> {
        if self.shape.streams.is_none() {
            return Ok(None);
        }
        let (names, hidden) = (self.stream_names(), self.shape.hidden);
        let down = name(names.shortcut_down);
        let rank = self.outputs(&down, hidden).unwrap_or(hidden);
        let linear = |name: &str, rows, cols| self.linear(name, Bias::Never, Part::all(rows), cols);
        Ok(Some(Shortcut {
            down: linear(&down, rank, hidden)?,
            up: linear(&name(names.shortcut_up), hidden, rank)?,
            norm: self.norm(&name(names.shortcut_norm), hidden)?,
        }))
    }
}
