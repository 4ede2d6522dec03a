//! Rotations: what the configuration says of them, and the divisors that are tensors.

use super::tensors::Tensors;
use crate::config::RopeConfig;
use crate::error::Error;
use crate::spec::{Divisors, RopeSpec, RopeStyle, Scaling};

impl Tensors<'_> {
    pub(crate) fn ropes(&self) -> Result<Vec<RopeSpec>, Error> {
        let rotate = |(i, rope): (usize, &RopeConfig)| {
            // Layers without a window come first.
            let wide = self.shape.wide.filter(|_| i == 0);
            let head_dim = wide.map_or(self.shape.head_dim, |(dim, ..)| dim);
            let part = self.shape.latent.as_ref().map(|latent| latent.rope as f64);
            let own = self.stored.keys.gguf_number("rope.dimension_count_swa").filter(|_| i == 1);
            let said = part.or(own).or(self.stored.keys.gguf_number("rope.dimension_count"));
            // A part of the head counts more than a number of its elements.
            let of_head = rope.rotary.map(|part| head_dim as f64 * part).filter(|_| said.is_none());
            let rotary = match said.or(of_head) {
                None => self.stored.keys.json_number("rotary_dim")?,
                given => given,
            };
            let rotary = rotary.unwrap_or(head_dim as f64) as usize;
            let pairs = rotary.div_ceil(2);
            // Of an odd part of a head, the last element turns with the next; one alone turns with nothing.
            let in_pairs = rotary.is_multiple_of(2) || of_head.is_some() && rotary < head_dim;
            if rotary < 2 || rotary > head_dim || !in_pairs {
                let message = format!(
                    "{rotary} of {head_dim} dimensions of a head cannot be rotated: they turn in pairs"
                );
                return Err(self.stored.keys.config(message));
            }
            let RopeConfig { theta, scaling, .. } = *rope;
            let divisors = |given: &Option<Vec<f32>>| match given {
                None => Ok(None),
                Some(given) if given.len() == pairs => Ok(Some(Divisors::Given(given.clone()))),
                Some(given) => Err(self.stored.keys.config(format!(
                    "{} divisors of rotation are given for {} pairs",
                    given.len(),
                    pairs
                ))),
            };
            let style = match self.is_gguf() {
                true => self.family.gguf_rope,
                false if !self.stored.keys.flag("rope_interleave", true)? => RopeStyle::Half,
                false => self.family.rope,
            };
            let (divisors, long_divisors) = (divisors(&rope.divisors)?, divisors(&rope.long_divisors)?);
            let reversed = self.family.reversed;
            Ok(RopeSpec { theta, rotary, style, reversed, scaling, divisors, long_divisors })
        };
        let mut ropes = self.shape.ropes.iter().enumerate().map(rotate).collect::<Result<Vec<_>, _>>()?;
        if let Some(rope) = ropes.first_mut().filter(|_| self.is_gguf()) {
            self.stored_divisors(rope)?;
        }
        Ok(ropes)
    }

    /// What GGUF stores as tensors: the divisors of Llama 3's scaling, or those of long and short sequences.
    fn stored_divisors(&self, rope: &mut RopeSpec) -> Result<(), Error> {
        let divisors = |name: &str| match self.has(name) {
            true => self
                .vector(&format!("{name}.weight"), &[rope.rotated() / 2], 0.0)
                .map(Divisors::Stored)
                .map(Some),
            false => Ok(None),
        };
        let (all, short, long) =
            (divisors("rope_freqs")?, divisors("rope_factors_short")?, divisors("rope_factors_long")?);
        if long.is_some() {
            let original = self.stored.keys.gguf_number("rope.scaling.original_context_length");
            let attention_factor = self.stored.keys.gguf_number("rope.scaling.attn_factor").unwrap_or(1.0);
            let original = original.unwrap_or(self.shape.context as f64);
            rope.scaling =
                Scaling::Long { original, attention_factor, long_attention_factor: attention_factor };
        }
        rope.long_divisors = long;
        rope.divisors = all.or(short);
        Ok(())
    }
}
