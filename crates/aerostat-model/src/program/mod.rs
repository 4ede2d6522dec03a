//! What a sweep computes, as a list of ops over named buffers.
//!
//! [`Program::compile`] turns a [`ModelSpec`] into a [`Program`] before a model is run, never while it is: every choice that a family
//! makes is taken there, and running it is one loop without choices. Products name the plan's steps by block and role;
//! their weights come in tile by tile. Buffers whose lifetimes do not meet share memory.

mod attention;
mod compile;
mod delta;
mod latent;
mod layer_input;
mod memory;
mod mixture;
mod op;
mod show;
mod space;
mod streams;

use std::ops::Range;

use aerostat_arch::{DistanceBiases, ModelSpec, Role, Vector};

pub use op::{Op, Operands};

/// A model as ops in the order in which a sweep runs them.
#[derive(Clone, Debug)]
pub struct Program {
    /// Everything that ops read and write.
    pub buffers: Vec<Buffer>,
    /// Small matrices that stay on the device in f32: those of an adapter, and of how residual streams are mixed.
    pub kept: Vec<Kept>,
    /// Shared pieces of memory for activations: `buffers` with the same [`Buffer::slot`] lie in one of these.
    pub slots: Vec<Slot>,
    /// From the tokens to the residual stream after the last block.
    pub body: Vec<Op>,
    /// From there to the logits; run only in sweeps with rows that need them.
    pub head: Vec<Op>,
    /// What each block's chosen experts compute, by block; empty where a block has none. Its products and biases are those
    /// of the expert at hand.
    pub experts: Vec<Vec<Op>>,
    /// What the final norm makes of the residual stream of all rows: run only where hidden states are asked for.
    pub normed: Vec<Op>,
    /// Where [`Program::normed`] leaves it, `[rows, hidden]`; the residual stream itself where there is no final norm.
    pub normed_stream: Slice,
    /// The residual stream, `[rows, hidden]`.
    pub stream: Slice,
    /// `[logit rows, vocab]`.
    pub logits: Slice,
    /// For each block, where its ops lie in `body`.
    pub blocks: Vec<Range<usize>>,
}

/// Values in f32, `[height, cols]`.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// What it holds, for readers of the program.
    pub name: &'static str,
    /// Number of rows.
    pub height: Height,
    /// Number of columns.
    pub cols: usize,
    /// Where its values come from and how long they stay.
    pub content: Content,
    /// Which of [`Program::slots`] it lies in, if it is an activation.
    pub slot: Option<usize>,
}

/// How many rows a buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Height {
    /// One for each row of a sweep.
    Rows,
    /// One for each row that uses the expert at hand.
    ExpertRows,
    /// One for each row of a sweep that needs logits.
    LogitRows,
    /// One for each sequence that keeps a recurrent state.
    States,
    /// So many.
    Fixed(usize),
}

/// A small matrix that stays on the device, in f32.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its elements, row by row.
    pub elements: Source,
}

/// Where a buffer's values come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// Ops of the sweep at hand.
    Activation,
    /// Ops of earlier sweeps too: recurrent states, norms of rows of the head.
    Kept,
    /// They are made when the model is opened.
    Constant(Source),
}

/// What a constant is made of.
#[derive(Clone, Debug)]
pub enum Source {
    /// A tensor's values, from the first again until all rows are full.
    Tensor(Vector),
    /// The values of several tensors, one after the other.
    Joined(Vec<Vector>),
    /// The transpose of a matrix of `cols` rows, which lie in tensors one after the other.
    Transposed(Vec<Vector>),
    /// Rates with the sign reversed, of their logarithms, each of them so many times.
    Rates {
        /// The logarithms.
        rate: Vector,
        /// How often each comes.
        times: usize,
    },
    /// `[rows, channels]`: for each but the last row a rate for each channel, and a row of skips, of a state space whose channels
    /// forget at rates of their own.
    ChannelDecays {
        /// Rates, `[channels, rows - 1]`: their logarithms, or with the sign reversed.
        rate: Vector,
        /// `rate` holds logarithms.
        rate_is_log: bool,
        /// How much of its input each channel's output takes.
        skip: Vector,
    },
    /// `[3, heads]` for lightning attention: a row of rates, and two of zeros.
    Slopes(Vec<f32>),
    /// What a bucket of distances adds, for each head and each distance: see [`DistanceBiases`].
    Buckets(DistanceBiases),
    /// One value everywhere.
    Fill(f32),
    /// `[2, heads]` for a delta net, `[3, heads]` for a state space: a row of rates, a row of what is added to decays or time steps
    /// before they are used, and a row of skips.
    Decays {
        /// One for each head: the logarithm of its rate, or the rate with its sign reversed.
        rate: Vector,
        /// `rate` holds logarithms.
        rate_is_log: bool,
        /// Added to decays or time steps, one for each head.
        bias: Vector,
        /// How much of its input each head's output takes; `None`: there is no such row.
        skip: Option<Box<Vector>>,
    },
}

/// Memory of activations, `[rows, cols]`, where rows are those of its height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// How many rows it has: [`Height::Rows`] or [`Height::LogitRows`].
    pub height: Height,
    /// The columns of its widest buffer.
    pub cols: usize,
}

/// Some columns of a buffer, in all its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which of [`Program::buffers`].
    pub buffer: usize,
    /// The first column.
    pub first: usize,
    /// Number of columns.
    pub cols: usize,
}

impl Slice {
    /// Its columns `first .. first + cols`.
    #[must_use]
    pub fn columns(self, first: usize, cols: usize) -> Self {
        Self { first: self.first + first, cols, ..self }
    }
}

/// `y = x Wᵀ`, tile by tile: the weights are those of a block's matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// The block; for the head, the number of blocks.
    pub block: usize,
    /// Which matrix of it, or of the expert at hand.
    pub role: Role,
    /// The input, of the matrix's columns.
    pub x: Slice,
    /// The output, of its rows.
    pub y: Slice,
    /// The matrix is one for each head, one after the other.
    pub heads: Option<Heads>,
    /// `[1, rows of the matrix]`: the inverse norms of its rows are written here when their tile passes for the first time.
    pub row_norms: Option<Slice>,
}

/// How a matrix that is one for each head is multiplied. No tile crosses from one head to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Stored rows of a head.
    pub rows: usize,
    /// Columns of the input from one head to the next.
    pub x_pitch: usize,
    /// Columns of the input that a head uses.
    pub x_cols: usize,
    /// Columns of the output from one head to the next.
    pub y_pitch: usize,
    /// Columns of the output that a head gives.
    pub y_cols: usize,
    /// Stored rows are inputs, not outputs.
    pub by_inputs: bool,
}

/// What a program takes in memory, in elements of f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// For each row of a sweep.
    pub row: usize,
    /// For each row that needs logits, besides.
    pub logit_row: usize,
    /// For each sequence that keeps a recurrent state.
    pub state: usize,
    /// Constants, what is kept from sweep to sweep, and [`Program::kept`].
    pub fixed: usize,
}

impl Program {
    /// The ops of a sweep, with or without the head.
    pub fn sweep(&self, head: bool) -> impl Iterator<Item = &Op> {
        self.body.iter().chain(self.head.iter().filter(move |_| head))
    }

    /// What its buffers take.
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for slot in &self.slots {
            let of = if slot.height == Height::LogitRows { &mut sizes.logit_row } else { &mut sizes.row };
            *of += slot.cols;
        }
        for buffer in self.buffers.iter().filter(|buffer| buffer.slot.is_none()) {
            match buffer.height {
                Height::Fixed(rows) => sizes.fixed += rows * buffer.cols,
                Height::States => sizes.state += buffer.cols,
                // Without a slot it is used by nothing.
                Height::Rows | Height::ExpertRows | Height::LogitRows => {}
            }
        }
        sizes.fixed += self.kept.iter().map(|kept| kept.rows * kept.cols).sum::<usize>();
        sizes
    }

    /// How it reads: for people, op by op, blocks that are alike once.
    pub fn show<'a>(&'a self, spec: &'a ModelSpec) -> impl std::fmt::Display + 'a {
        show::Shown { program: self, spec }
    }
}
