//! Hidden states in the making: all of them, or pooled into one vector for each text.

use crate::layers::{Layers, scaled_to_one};
use crate::request::{Hidden, Layer, Pooling};
use crate::{Error, ErrorKind};

/// Hidden states in the making.
#[derive(Debug)]
pub(crate) struct HiddenStates {
    hidden: Hidden,
    tokens: usize,
    /// Sums in order of position, so that it does not show which sweeps they came with.
    sum: Vec<f64>,
    vectors: Vec<Vec<f32>>,
    /// What follows pooling.
    layers: Layers,
}

impl HiddenStates {
    pub(crate) fn new(hidden: Hidden, tokens: usize) -> Self {
        Self { hidden, tokens, sum: Vec::new(), vectors: Vec::new(), layers: Layers::default() }
    }

    /// The same with layers that the model has behind pooling: of what its makers pool.
    pub(crate) fn before(&mut self, layers: &Layers) {
        if is_pooled(self.hidden) {
            self.layers = layers.clone();
        }
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
            Some(Pooling::Mean | Pooling::MeanSqrt) => 1.0,
            Some(Pooling::WeightedMean) => (position + 1) as f64,
            Some(Pooling::Max) => return self.take_largest(state),
            _ => return self.vectors.push(state.to_vec()),
        };
        self.sum.resize(state.len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(state) {
            *sum += weight * f64::from(*value);
        }
    }

    fn take_largest(&mut self, state: &[f32]) {
        self.sum.resize(state.len(), f64::NEG_INFINITY);
        for (most, value) in self.sum.iter_mut().zip(state) {
            *most = most.max(f64::from(*value));
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Vec<f32>> {
        let n = self.tokens as f64;
        let weights = match self.hidden.pooling {
            Some(Pooling::WeightedMean) => n * (n + 1.0) / 2.0,
            Some(Pooling::Max) => 1.0,
            Some(Pooling::MeanSqrt) => n.sqrt(),
            _ => n,
        };
        if !self.sum.is_empty() {
            self.vectors.push(self.sum.iter().map(|sum| (sum / weights) as f32).collect());
        }
        for vector in &mut self.vectors {
            *vector = self.layers.apply(std::mem::take(vector));
            vector.truncate(self.hidden.dimensions.unwrap_or(usize::MAX));
            if self.hidden.normalize {
                scaled_to_one(vector);
            }
        }
        self.vectors
    }
}

/// One vector is asked for, as the model's makers make them: what its folder has behind pooling applies to it.
pub(crate) fn is_pooled(hidden: Hidden) -> bool {
    hidden.layer == Layer::Final && hidden.pooling.is_some()
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
            let mut pool = HiddenStates::new(hidden, states.len());
            let (from, to) = pool.range();
            (from..to).for_each(|i| pool.take(i, &states[i]));
            pool.finish()
        };
        let pooled = |pooling| pool(Hidden { pooling: Some(pooling), ..Hidden::default() }).remove(0);
        assert_eq!(pooled(Pooling::Mean), [2.0, 1.0, -1.0]);
        assert_eq!(pooled(Pooling::WeightedMean), [7.0 / 3.0, 2.0 / 3.0, -2.0]);
        assert_eq!(pooled(Pooling::LastToken), states[1]);
        assert_eq!(pooled(Pooling::Cls), states[0]);
        assert_eq!(pooled(Pooling::Max), [3.0, 2.0, 2.0]);
        assert_eq!(pooled(Pooling::MeanSqrt), [4.0, 2.0, -2.0].map(|v: f32| (f64::from(v) / 2f64.sqrt()) as f32));
        assert_eq!(pool(Hidden::default()), states);
        let cut = Hidden { dimensions: Some(2), normalize: true, ..Hidden::default() };
        assert_eq!(pool(cut), [[1.0 / 5f32.sqrt(), 2.0 / 5f32.sqrt()], [1.0, 0.0]]);
    }
}
