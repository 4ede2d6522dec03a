//! Gated delta nets: their tensors and states on a device, and what comes between their matrices.

use aerostat_arch::{DeltaNet, Role, Vector};
use aerostat_backend::{Activation, Backend, BufferId, DeltaRule, Error, Mat, numerics};
use aerostat_plan::Step;

use crate::forward::{Batch, Model};
use crate::vectors::{NormVectors, Read, load_vector};

/// Added to the sum of squares of a query or key before it is made a unit vector.
const UNIT_EPS: f32 = 1e-6;

/// The small tensors of a delta net, and what sequences keep.
#[derive(Debug)]
pub(crate) struct DeltaVectors {
    /// `[kernel, channels]`.
    convolution: BufferId,
    /// `[2, value_heads]`: rates and biases of decays.
    parameters: BufferId,
    /// What makes unit vectors of queries and keys, `[1, key_dim]`; queries are scaled besides.
    units: [BufferId; 2],
    norm: NormVectors,
    /// `[slots, history]` and `[slots, state]`.
    history: BufferId,
    state: BufferId,
}

impl DeltaVectors {
    /// With room for the states of `slots` sequences.
    pub(crate) fn load<E: From<Error>>(
        b: &mut dyn Backend,
        delta: &DeltaNet,
        slots: usize,
        read: Read<'_, E>,
    ) -> Result<Self, E> {
        let s = delta.shape;
        let mut values = |b: &mut dyn Backend, v: &Vector| -> Result<Vec<f32>, E> {
            let id = load_vector(b, v, v.len, read)?;
            Ok(b.read(Mat::new(id, 1, v.len))?.to_vec())
        };
        let by_channel = values(b, &delta.convolution)?;
        let at = |i: usize| by_channel.get(i % s.channels() * s.kernel + i / s.channels()).copied();
        let weights: Vec<f32> = (0..by_channel.len()).filter_map(at).collect();
        let rate = |r: f32| if delta.rate_is_log { numerics::exp(r) } else { -r };
        let mut parameters: Vec<f32> = values(b, &delta.rate)?.into_iter().map(rate).collect();
        parameters.extend(values(b, &delta.decay_bias)?);
        let mut table = |rows: usize, cols: usize, values: &[f32]| -> Result<BufferId, E> {
            let id = b.allocate(rows * cols)?;
            b.write(Mat::new(id, rows, cols), values)?;
            Ok(id)
        };
        // A root-mean-square norm with these weights gives unit vectors.
        let size = s.key_dim as f64;
        let [queries, keys] = [1.0 / size, 1.0 / size.sqrt()].map(|unit| vec![unit as f32; s.key_dim]);
        Ok(Self {
            convolution: table(s.kernel, s.channels(), &weights)?,
            parameters: table(2, s.value_heads, &parameters)?,
            units: [table(1, s.key_dim, &queries)?, table(1, s.key_dim, &keys)?],
            norm: NormVectors::load(b, &delta.norm, delta.norm.size, read)?,
            history: b.allocate(slots * s.history())?,
            state: b.allocate(slots * s.state())?,
        })
    }
}

impl Model {
    /// Where the output of a delta net's matrix goes; `None`: where that of attention would.
    pub(crate) fn delta_output(&self, batch: &Batch<'_>, step: &Step) -> Option<Mat> {
        let (s, rows) = (self.spec.blocks.get(step.block)?.delta()?.shape, batch.places.rows.len());
        let x = Mat::new(self.buffers.q, rows, s.channels());
        let strengths = Mat::new(self.buffers.strengths, rows, 2 * s.value_heads);
        let keys = s.key_heads * s.key_dim;
        Some(match step.role {
            Role::Q => x.col_range(0, keys),
            Role::K => x.col_range(keys, keys),
            Role::V => x.col_range(2 * keys, s.value_heads * s.value_dim),
            Role::Strength => strengths.col_range(0, step.matrix(&self.spec).rows),
            Role::Decay => strengths.col_range(s.value_heads, s.value_heads),
            _ => return None,
        })
    }

    /// Once queries, keys, values, strengths, decays and the gate are there: convolution, recurrence, norm and gate.
    pub(crate) fn run_delta(
        &self,
        b: &mut dyn Backend,
        batch: &Batch<'_>,
        layer: usize,
        delta: &DeltaNet,
    ) -> Result<(), Error> {
        let Some(vectors) = &self.blocks[layer].delta else { return Ok(()) };
        let (s, f, rows, slots) = (delta.shape, &self.buffers, batch.places.rows.len(), self.limits().states);
        let x = Mat::new(f.q, rows, s.channels());
        let weights = Mat::new(vectors.convolution, s.kernel, s.channels());
        b.short_conv(x, weights, Mat::new(vectors.history, slots, s.history()), batch.states)?;
        let keys = s.key_heads * s.key_dim;
        for (unit, part) in vectors.units.into_iter().zip([x.col_range(0, keys), x.col_range(keys, keys)]) {
            b.rms_norm(part, Mat::new(unit, 1, s.key_dim), UNIT_EPS / s.key_dim as f32, part)?;
        }
        let rule = DeltaRule {
            key_heads: s.key_heads,
            value_heads: s.value_heads,
            key_dim: s.key_dim,
            value_dim: s.value_dim,
            run: if delta.decay.is_some() { s.value_heads } else { s.value_heads / s.key_heads },
            tiled: s.tiled,
        };
        let strengths = Mat::new(f.strengths, rows, 2 * s.value_heads);
        let parameters = Mat::new(vectors.parameters, 2, s.value_heads);
        let state = Mat::new(vectors.state, slots, s.state());
        let mixed = Mat::new(f.mixed, rows, s.value_heads * s.value_dim);
        b.delta_rule(x, strengths, parameters, state, mixed, &rule, batch.states)?;
        vectors.norm.apply(b, mixed, &delta.norm, mixed)?;
        b.glu(Mat { buffer: f.output_gate, ..mixed }, mixed, Activation::Silu, mixed)
    }
}
