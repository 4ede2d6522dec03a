//! Inputs of blocks beside the residual stream, made of a second embedding of each token.

use aerostat_arch::{LayerInput, Role};
use aerostat_backend::{Error, defect};

use super::compile::Compiler;
use super::{Op, Slice};

impl Compiler<'_> {
    /// The inputs of all blocks, of embeddings and of rows of the second table, if there are any.
    pub(super) fn further_inputs(&mut self) -> Result<(), Error> {
        let Some(inputs) = &self.spec.layer_inputs else { return Ok(()) };
        let project = self.spec.blocks.first().and_then(|block| block.layer_inputs.as_ref());
        let project = project.ok_or_else(|| defect!("the first block makes no further inputs"))?;
        let all = self.product((0, Role::LayerInputs), project, self.x, "layer_inputs");
        self.emit(Op::Scale { x: all, factor: inputs.project_factor });
        self.norm("layer_inputs_norm", &inputs.norm, all.cols, all, all)?;
        let looked_up = self.rows("looked_up", all.cols);
        self.emit(Op::Embed { table: 1, out: looked_up });
        self.emit(Op::Scale { x: looked_up, factor: inputs.table_factor });
        self.emit(Op::Add { x: all, y: looked_up });
        self.emit(Op::Scale { x: all, factor: inputs.sum_factor });
        self.layer_inputs = Some(all);
        Ok(())
    }

    /// What a block makes of the residual stream and its part of them.
    pub(super) fn further_input(&mut self, layer: usize, further: &LayerInput) -> Result<Slice, Error> {
        let all = self
            .layer_inputs
            .ok_or_else(|| defect!("block {layer} reads a further input, and there is none"))?;
        let x = self.x;
        let gate = self.product((layer, Role::LayerGate), &further.gate, x, "layer_gate");
        let part = all.columns(layer * gate.cols, gate.cols);
        self.emit(Op::Glu { gate, up: part, activation: further.activation, out: gate });
        let y = self.product((layer, Role::LayerOutput), &further.up, gate, "y");
        self.norm("layer_input_norm", &further.norm, further.norm.size, y, y)?;
        Ok(y)
    }
}
