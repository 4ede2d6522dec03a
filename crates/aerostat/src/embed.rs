//! Hidden states: all of them, or pooled into one vector for each text.

use crate::engine::Engine;
use crate::observe::Observer;
use crate::run::{Outcome, Request, RunEnd, Want};
use crate::{Error, ErrorKind, Need};

/// Where hidden states are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// After the last block and the final norm: transformers' `last_hidden_state`.
    #[default]
    Final,
    /// After so many blocks, as transformers counts `hidden_states`: 0 is what enters the first block. After the last
    /// block the final norm is not applied.
    After(usize),
}

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// That of the last token.
    LastToken,
    /// That of the first token. In a model whose tokens see only those before them it knows of no other.
    Cls,
    /// Their mean, in which the token at position i (from 0) weighs i + 1.
    WeightedMean,
}

/// What hidden states are wanted, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Where they are taken.
    pub layer: Layer,
    /// One vector for the text; `None`: one for each token.
    pub pooling: Option<Pooling>,
    /// Only so many of the first elements, as models trained for it allow (Matryoshka).
    pub dimensions: Option<usize>,
    /// Vectors are scaled to a length of 1, after they were cut.
    pub normalize: bool,
}

/// What the plan must provide to embed these sequences.
pub fn demand(sequences: &[Vec<u32>]) -> Need {
    let mut need = Need::none();
    sequences.iter().for_each(|tokens| need.add_tokens(tokens.len(), 0, Want::Hidden(Hidden::default())));
    need
}

impl Engine {
    /// The pooled hidden states of sequences, one vector for each; mean pooling if `hidden` names none.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for empty sequences, token ids outside the vocabulary, or a layer the model does not have;
    /// [`ErrorKind::Interrupted`] if the observer asked to stop; those of reading and computing.
    pub fn embed(
        &mut self,
        sequences: &[Vec<u32>],
        hidden: Hidden,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let want = Want::Hidden(Hidden { pooling: Some(hidden.pooling.unwrap_or_default()), ..hidden });
        let request = |i: usize| Request { token_ids: sequences[i].clone(), want, ..Request::default() };
        let (outcomes, end) = self.run_list(sequences.len(), &request, None, observer)?;
        if end == RunEnd::Interrupted {
            return Err(Error::interrupted());
        }
        let vector = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Hidden(mut vectors)) => vectors.pop(),
            _ => None,
        };
        Ok(outcomes.into_iter().filter_map(vector).collect())
    }
}

/// Hidden states in the making.
#[derive(Debug)]
pub(crate) struct Pool {
    hidden: Hidden,
    tokens: usize,
    /// Sums in order of position, so that it does not show which sweeps they came with.
    sum: Vec<f64>,
    vectors: Vec<Vec<f32>>,
}

impl Pool {
    pub(crate) fn new(hidden: Hidden, tokens: usize) -> Self {
        Self { hidden, tokens, sum: Vec::new(), vectors: Vec::new() }
    }

    pub(crate) fn layer(&self) -> Layer {
        self.hidden.layer
    }

    /// The positions whose rows are wanted: from the first, up to the second.
    pub(crate) fn range(&self) -> (usize, usize) {
        match self.hidden.pooling {
            Some(Pooling::LastToken) => (self.tokens - 1, self.tokens),
            Some(Pooling::Cls) => (0, 1),
            _ => (0, self.tokens),
        }
    }

    pub(crate) fn take(&mut self, position: usize, state: &[f32]) {
        let weight = match self.hidden.pooling {
            Some(Pooling::Mean) => 1.0,
            Some(Pooling::WeightedMean) => (position + 1) as f64,
            _ => return self.vectors.push(state.to_vec()),
        };
        self.sum.resize(state.len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(state) {
            *sum += weight * f64::from(*value);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Vec<f32>> {
        let n = self.tokens as f64;
        let weights = if self.hidden.pooling == Some(Pooling::Mean) { n } else { n * (n + 1.0) / 2.0 };
        if !self.sum.is_empty() {
            self.vectors.push(self.sum.iter().map(|sum| (sum / weights) as f32).collect());
        }
        for vector in &mut self.vectors {
            vector.truncate(self.hidden.dimensions.unwrap_or(usize::MAX));
            if self.hidden.normalize {
                let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
                vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
            }
        }
        self.vectors
    }
}

/// Whether a model has what is asked for.
pub(crate) fn check(hidden: Hidden, blocks: usize, id: u64) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Usage, format!("prompt {id}: {why}")));
    match hidden {
        Hidden { layer: Layer::After(layer), .. } if layer > blocks => {
            refuse(format!("there is no layer {layer}; this model has {blocks} blocks"))
        }
        Hidden { dimensions: Some(0), .. } => refuse("a vector needs at least one dimension".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_pooled_cut_and_scaled() {
        let states = [[1.0, 2.0, 2.0], [3.0, 0.0, -4.0]];
        let pool = |hidden: Hidden| {
            let mut pool = Pool::new(hidden, states.len());
            let (from, to) = pool.range();
            (from..to).for_each(|i| pool.take(i, &states[i]));
            pool.finish()
        };
        let pooled = |pooling| pool(Hidden { pooling: Some(pooling), ..Hidden::default() }).remove(0);
        assert_eq!(pooled(Pooling::Mean), [2.0, 1.0, -1.0]);
        assert_eq!(pooled(Pooling::WeightedMean), [7.0 / 3.0, 2.0 / 3.0, -2.0]);
        assert_eq!(pooled(Pooling::LastToken), states[1]);
        assert_eq!(pooled(Pooling::Cls), states[0]);
        assert_eq!(pool(Hidden::default()), states);
        let cut = Hidden { dimensions: Some(2), normalize: true, ..Hidden::default() };
        assert_eq!(pool(cut), [[1.0 / 5f32.sqrt(), 2.0 / 5f32.sqrt()], [1.0, 0.0]]);
    }
}
