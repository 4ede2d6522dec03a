//! Several residual streams of which each block changes one, and predicts and corrects the others (AltUp); a shortcut beside
//! attention (LAuReL).

use super::matrix::{Linear, Role};
use super::norm::Norm;
use super::vector::Vector;

/// How many residual streams there are. The first are the embeddings; each of the others is a matrix of the first block
/// ([`Block::streams_in`](super::Block::streams_in)) times them, as large as they are. In the end, what is read is the mean of the
/// first and of each of the others times a matrix of the last block, again as large as the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Their number; at least 1.
    pub count: usize,
    /// The one that blocks read and change.
    pub active: usize,
}

/// How a block mixes streams. Coefficients are made of a stream `x` by `tanh(router(factor * norm(x)))`, one for each stream.
///
/// Before the block, stream `b` becomes `b + sum over a of predict(coefficients)[b, a] * a`, with the coefficients of the active
/// one. After it, what the block made of its stream, less what was predicted, is added to each stream times
/// `1 + correct(coefficients)`, with the coefficients of what it made.
#[derive(Clone, Debug)]
pub struct Mixing {
    /// Norm of the stream that coefficients are made of.
    pub norm: Norm,
    /// Factor on it.
    pub factor: f32,
    /// `[streams, hidden]`.
    pub router: Vector,
    /// `[streams * streams, streams]`.
    pub predict: Vector,
    /// `[streams, streams]`.
    pub correct: Vector,
    /// Factors on the active stream for the block's further input, `[hidden]`; `None`: 1.
    pub scale: Option<Vector>,
}

impl Mixing {
    /// Its small tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.norm.vectors().chain([&self.router, &self.predict, &self.correct]).chain(&self.scale)
    }
}

/// A shortcut beside attention: `x + norm(up(down(x)))` of what attention reads is added to what attention gives and to the
/// stream; the sum is divided by the root of 2.
#[derive(Clone, Debug)]
pub struct Shortcut {
    /// `[rank, hidden]`.
    pub down: Linear,
    /// `[hidden, rank]`.
    pub up: Linear,
    /// Norm of what `up` gives.
    pub norm: Norm,
}

impl Shortcut {
    /// Its linear maps in the order of use.
    pub(super) fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        [(Role::ShortcutDown, &self.down), (Role::ShortcutUp, &self.up)].into_iter()
    }

    /// The same, to change them.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.down, &mut self.up].into_iter()
    }

    /// Its small tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        self.norm.vectors()
    }
}
