//! The tensors of a second embedding of each token, of which every layer reads a part.

use super::part::Part;
use super::tensors::Tensors;
use crate::error::Error;
use crate::family::Bias;
use crate::spec::{LayerInput, LayerInputs, Linear};

/// Names of tensors.
struct LayerNames {
    table: &'static str,
    project: &'static str,
    project_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    norm: &'static str,
}

const HUGGING_FACE: LayerNames = LayerNames {
    table: "embed_tokens_per_layer",
    project: "per_layer_model_projection",
    project_norm: "per_layer_projection_norm",
    gate: "layers.{}.per_layer_input_gate",
    up: "layers.{}.per_layer_projection",
    norm: "layers.{}.post_per_layer_input_norm",
};

const GGUF: LayerNames = LayerNames {
    table: "per_layer_token_embd",
    project: "per_layer_model_proj",
    project_norm: "per_layer_proj_norm",
    gate: "blk.{}.inp_gate",
    up: "blk.{}.proj",
    norm: "blk.{}.post_norm",
};

impl Tensors<'_> {
    fn layer_names(&self) -> &'static LayerNames {
        if self.is_gguf() { &GGUF } else { &HUGGING_FACE }
    }

    /// The second embedding, if there is one.
    pub(crate) fn layer_inputs(&self) -> Result<Option<LayerInputs>, Error> {
        let Some(width) = self.shape.layer_inputs else { return Ok(None) };
        let names = self.layer_names();
        let name = format!("{}.weight", self.top(names.table));
        let tensor = self.stored.require(&name)?;
        let rows = self.stored.sizes(tensor).map_or(0, |[rows, _]| rows);
        if rows == 0 {
            return Err(self.stored.bad(tensor, "it has no rows".to_owned()));
        }
        let cols = self.shape.layers.len() * width;
        let tensor = self.stored.require_computable(&name, &[rows, cols])?;
        Ok(Some(LayerInputs {
            table: self.matrix_of(tensor, Part::all(rows), cols)?,
            width,
            table_factor: (width as f32).sqrt(),
            project_factor: 1.0 / (self.shape.hidden as f32).sqrt(),
            norm: self.norm(&self.top(names.project_norm), width)?,
            sum_factor: std::f32::consts::FRAC_1_SQRT_2,
        }))
    }

    /// What makes all layers' inputs of the embeddings, in the first layer.
    pub(super) fn layer_inputs_projection(&self, i: usize) -> Result<Option<Linear>, Error> {
        let Some(width) = self.shape.layer_inputs.filter(|_| i == 0) else { return Ok(None) };
        let outputs = Part::all(self.shape.layers.len() * width);
        self.linear(&self.top(self.layer_names().project), Bias::Never, outputs, self.shape.hidden).map(Some)
    }

    /// What a layer makes of its part.
    pub(super) fn layer_input(&self, name: &dyn Fn(&str) -> String) -> Result<Option<LayerInput>, Error> {
        let Some(width) = self.shape.layer_inputs else { return Ok(None) };
        let (names, hidden) = (self.layer_names(), self.shape.hidden);
        let linear =
            |pattern: &str, rows, cols| self.linear(&name(pattern), Bias::Never, Part::all(rows), cols);
        Ok(Some(LayerInput {
            gate: linear(names.gate, width, hidden)?,
            activation: self.shape.activation,
            up: linear(names.up, hidden, width)?,
            norm: self.norm(&name(names.norm), hidden)?,
        }))
    }
}
