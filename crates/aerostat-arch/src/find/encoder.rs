//! The tensors of encoders.

use serde_json::Value;

use super::tensors::Tensors;
use crate::error::Error;
use crate::spec::{DistanceBiases, TokenTypes};

/// Buckets and the distance of the last, whatever the configuration says: more of them are there and not used.
const BUCKETS: usize = 32;
const DISTANCE_MAX: usize = 128;
/// More are in no model.
const BUCKETS_MAX: u64 = 1 << 12;

impl Tensors<'_> {
    /// The learned vectors of the parts of a text, if there are any.
    pub(crate) fn token_types(&self) -> Result<Option<TokenTypes>, Error> {
        let Some(encoder) = self.family.encoder.filter(|encoder| !encoder.types.is_empty()) else {
            return Ok(None);
        };
        let own = if self.is_gguf() { "token_types" } else { encoder.types };
        let name = format!("{}.weight", self.top(own));
        let Some(tensor) = self.stored.get(&name) else { return Ok(None) };
        let rows = self.stored.sizes(tensor).map_or(0, |[rows, _]| rows);
        if rows == 0 {
            return Err(self.stored.bad(tensor, "it has no rows".to_owned()));
        }
        let table = self.vector(&name, &[rows, self.shape.hidden], 0.0)?;
        Ok(Some(TokenTypes { table, rows }))
    }

    /// The row of position 0 in the table of learned positions.
    pub(super) fn first_position(&self, usual: usize) -> Result<usize, Error> {
        match self.family.encoder {
            Some(encoder) if encoder.positions_after_padding => {
                let padding = self.stored.keys.json("pad_token_id").and_then(Value::as_u64);
                let padding = padding.map_or(Some(usual), |id| usize::try_from(id).ok()?.checked_add(1));
                padding.ok_or_else(|| self.stored.keys.config("`pad_token_id` is larger than can be"))
            }
            _ => Ok(usual),
        }
    }

    /// The biases of scores by distance, if the family has them.
    pub(super) fn distance_biases(&self) -> Result<Option<DistanceBiases>, Error> {
        let Some(encoder) = self.family.encoder.filter(|encoder| !encoder.distances.is_empty()) else {
            return Ok(None);
        };
        let key = "relative_attention_num_buckets";
        let rows = self.stored.keys.json_whole(key)?.unwrap_or(BUCKETS as u64);
        if !(BUCKETS as u64..=BUCKETS_MAX).contains(&rows) {
            return Err(self.stored.keys.config(format!("`{key}` is {rows}; at least {BUCKETS} are needed")));
        }
        let name = format!("{}.weight", self.top(encoder.distances));
        let table = self.vector(&name, &[rows as usize, self.shape.heads], 0.0)?;
        Ok(Some(DistanceBiases { table, buckets: BUCKETS, distance_max: DISTANCE_MAX }))
    }
}
