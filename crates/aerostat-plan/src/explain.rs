//! The plan in words.

use std::fmt;

use crate::Plan;
use crate::fit::size;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<22}{value}");
        line("family", self.family.clone())?;
        line(
            "parameters",
            format!("{:.3} billion, {} stored", self.parameters as f64 / 1e9, size(self.weight_bytes)),
        )?;
        line("budget", format!("{} (at least {})", size(self.budget_bytes), size(self.minimum_bytes)))?;
        line(
            "  process",
            format!("{} (code, tokenizer, small tensors, reserve)", size(self.overhead_bytes)),
        )?;
        line(
            "  activations",
            format!(
                "{} ({} rows, {} with logits)",
                size(self.activation_bytes),
                self.rows_max,
                self.logit_rows_max
            ),
        )?;
        line("  KV cache", format!("{} ({} a token)", size(self.kv_bytes), size(self.kv_bytes_per_token)))?;
        line(
            "  ring",
            format!(
                "{} ({} buffers, tiles up to {})",
                size(self.ring_bytes),
                self.ring_slots,
                size(self.tile_bytes)
            ),
        )?;
        line("  pinned", size(self.pinned_bytes))?;
        if self.resident {
            line("streamed", "nothing: weights are read once and stay".to_owned())?;
        } else {
            line("streamed", format!("{} in every sweep", size(self.streamed_bytes_per_sweep)))?;
        }
        let c = &self.cost;
        line("disk", format!("{:.2} GB/s", c.read_bytes_per_second / 1e9))?;
        line("sweep", format!("{:.3} s; knee at {} rows", c.sweep_seconds, self.rows_at_knee))?;
        let rates: Vec<String> =
            c.tokens_per_second.iter().map(|(rows, rate)| format!("{rate:.2} with {rows} rows")).collect();
        line("tokens/s", rates.join(", "))
    }
}
