//! Weight matrices, where they lie, and what each does in its block.

use std::sync::Arc;

use aerostat_checkpoint::packed::TileRows;
use aerostat_checkpoint::{DType, Extent};

use super::codes::{Companion, Scales};
use super::vector::{Runs, Vector};

/// What a matrix does in its block. Shapes are `[outputs, inputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Makes the residual stream of the embeddings, in the first block.
    ProjectIn,
    /// Makes further inputs of all blocks of the embeddings, in the first block.
    LayerInputs,
    /// Makes a further residual stream of the embeddings, by its number, in the first block.
    StreamIn(u8),
    /// Compresses the input of attention to what a shortcut beside it is made of.
    ShortcutDown,
    /// Makes that shortcut.
    ShortcutUp,
    /// Compresses the input of attention to what queries are made of.
    QDown,
    /// Makes queries.
    Q,
    /// Makes the queries by which an indexer chooses positions.
    IndexQ,
    /// Compresses the input of attention to what keys and values of all heads are made of.
    KvDown,
    /// Makes the keys by which an indexer chooses positions.
    IndexK,
    /// Makes the weights of an indexer's heads.
    IndexWeights,
    /// Makes keys; where they are compressed, takes each head's query into the compressed space.
    K,
    /// Makes values; where they are compressed, takes each head's output out of the compressed space.
    V,
    /// Compresses the input of a token mixer to what the gate of its output is made of.
    GateDown,
    /// Makes the gate whose sigmoid (or SiLU) the token mixer's output is multiplied by, element by element.
    OutputGate,
    /// Makes the strengths of a delta net: how much a position changes the state, one for each value head.
    Strength,
    /// Compresses the input of a delta net to what decays are made of.
    DecayDown,
    /// Makes the decays of a delta net: how much of the state a position leaves, one for each value head, or for each row of its
    /// state.
    Decay,
    /// Makes what the input of a gated convolution is multiplied by, element by element.
    InputGate,
    /// Makes what passes the convolution of a state space, or of a gated convolution.
    Inputs,
    /// Makes what time steps are made of, of what passed the convolution of a state space.
    StepDown,
    /// Makes the time steps of a state space, one for each head, or for each element of its input.
    Step,
    /// Makes what a state space writes with and reads with, of what passed its convolution.
    ReadWrite,
    /// Makes the token mixer's output, as wide as the residual stream.
    Output,
    /// Makes a state space's output, as wide as the residual stream.
    ScanOutput,
    /// Makes the number whose sigmoid the shared expert's output is multiplied by, one for each row.
    SharedGate,
    /// Makes the scores by which a row's experts are chosen, one for each expert.
    Router,
    /// Compresses the input of experts to what they read.
    ExpertsDown,
    /// Expands the sum of experts' outputs to the width of the residual stream.
    ExpertsUp,
    /// Makes the gate of an MLP.
    Gate,
    /// Makes what the gate of an MLP multiplies; without a gate, what its activation is applied to.
    Up,
    /// Makes the output of an MLP, as wide as the residual stream.
    Down,
    /// Makes the gate of a block's further input, of the residual stream.
    LayerGate,
    /// Makes what a block's further input adds to the residual stream.
    LayerOutput,
    /// Makes a part of what the head reads of a further residual stream, by its number, in the last block.
    StreamOut(u8),
    /// Makes what the head reads of the residual stream, in the last block.
    ProjectOut,
    /// The LM head: makes logits, after the last block.
    Head,
}

impl Role {
    /// Whether a matrix of a block is multiplied after the block's experts.
    pub fn follows_experts(self) -> bool {
        use Role::{ExpertsUp, LayerGate, LayerOutput, ProjectOut, StreamOut};
        matches!(self, ExpertsUp | LayerGate | LayerOutput | ProjectOut | StreamOut(_))
    }
}

/// A weight matrix of `rows` outputs and `cols` inputs: a whole tensor, or some rows of one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// Stored type of its elements; of codes, that of the bytes or words that hold them.
    pub dtype: DType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Where its bytes lie; with `runs`, where they begin, and how many they are without those between its runs.
    pub extent: Extent,
    /// How its rows lie among those of a tensor that holds other matrices too; `None`: one after the other.
    pub runs: Option<Runs>,
    /// Whether it is stored by inputs, `[cols, rows]`: one row on disk for each input, or of words for several.
    pub k_major: bool,
    /// How its elements are coded, and the scales and zero points that make weights of them; `None`: elements are weights.
    pub scales: Option<Scales>,
    /// Its tiles in a packed folder, counted in its own rows: then rows do not lie one by one, and the extent is that of all
    /// tiles together, or where the first begins. `None`: it is not packed.
    pub tiles: Option<Arc<[TileRows]>>,
}

/// A linear map: a matrix and its bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Matrix,
    /// Added to the outputs, `[outputs]`; `None`: nothing is.
    pub bias: Option<Vector>,
}

impl Matrix {
    /// Rows as they lie on disk, and how many elements of [`Matrix::dtype`] each has.
    pub fn stored(&self) -> (usize, usize) {
        let (rows, cols) = if self.k_major { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let Some(code) = self.scales.as_ref().map(|scales| scales.code) else { return (rows, cols) };
        let (of, run) = code.run();
        (rows / run * of, code.row_bytes(cols) / self.dtype.block_bytes().max(1))
    }

    /// Rows (inputs, where it is stored by inputs) that come before stored row `row`, a whole number of runs of its code.
    pub fn rows_before(&self, row: usize) -> usize {
        let (of, run) = self.scales.as_ref().map_or((1, 1), |scales| scales.code.run());
        row / of * run
    }

    /// Bytes of one stored row, not packed.
    pub fn row_bytes(&self) -> u64 {
        self.dtype.bytes_for(self.stored().1 as u64).unwrap_or(0)
    }

    /// Stored bytes of the matrix and of its companions.
    pub fn bytes(&self) -> u64 {
        self.extent.bytes + self.companions().iter().map(|c| c.extent.bytes).sum::<u64>()
    }

    /// Scales, zero points and groups that are read from disk just before the matrix in every sweep, in order; empty where
    /// it has none.
    pub fn companions(&self) -> &[Companion] {
        self.scales.as_ref().map_or(&[], |scales| &scales.companions)
    }

    /// Whether it lies in a packed folder with its exponents coded, so that its tiles are expanded before they are
    /// multiplied.
    pub fn has_packed_exponents(&self) -> bool {
        self.tiles.is_some() && self.dtype.has_coded_exponents()
    }

    /// The fewest stored rows that can be multiplied: those in which its code holds whole inputs or outputs, mostly 1.
    pub fn unit_rows(&self) -> usize {
        self.scales.as_ref().map_or(1, |scales| scales.code.run().0)
    }

    /// The fewest bytes that can be read and multiplied: a row or a few, a row of a companion, or the largest of its
    /// packed tiles.
    pub fn unit_bytes(&self) -> u64 {
        let largest = |tiles: &Arc<[TileRows]>| tiles.iter().map(|t| t.extent.bytes).max().unwrap_or(0);
        let unit = self.row_bytes() * self.unit_rows() as u64;
        let unit = self.companions().iter().map(Companion::row_bytes).fold(unit, u64::max);
        self.tiles.as_ref().map_or(unit, largest)
    }

    /// Stored rows that lie one after the other; no tile crosses from one run to the next.
    pub fn run_rows(&self) -> usize {
        self.runs.map_or(self.stored().0, |runs| runs.rows)
    }

    /// Where the stored rows `start .. start + rows`, all of one run, lie in an unpacked matrix.
    pub fn rows_extent(&self, start: usize, rows: usize) -> Extent {
        let row = self.row_bytes();
        let place = self.runs.map_or(start, |runs| runs.place(start));
        Extent {
            file: self.extent.file,
            offset: self.extent.offset + place as u64 * row,
            bytes: rows as u64 * row,
        }
    }
}
