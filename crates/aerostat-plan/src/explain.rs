//! The plan in words.

use std::fmt;

use crate::{DraftModel, Plan};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<22}{value}");
        line("family", self.family.clone())?;
        line("parameters", format!("{}, {} stored", count(self.parameters), size(self.weight_bytes)))?;
        line("budget", format!("{} (at least {} MiB)", size(self.budget_bytes), self.minimum_bytes >> 20))?;
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
        for (name, value) in self.guesses() {
            line(name, value)?;
        }
        let token = size(self.kv_bytes_per_token);
        line("  KV cache", format!("{} ({token} a token, {})", size(self.kv_bytes), self.kv_type))?;
        if self.state_slots > 0 {
            let (all, each) = (size(self.state_bytes), size(self.state_bytes_per_sequence));
            line("  states", format!("{all} ({} sequences, {each} each)", self.state_slots))?;
        }
        if self.kept_rows > 0 {
            line(
                "  embedding rows",
                format!("{} (the {} read last)", size(self.kept_bytes), self.kept_rows),
            )?;
        }
        line(
            "  ring",
            format!(
                "{} ({} buffers, tiles up to {})",
                size(self.ring_bytes),
                self.ring_slots,
                size(self.tile_bytes)
            ),
        )?;
        line("  pinned", size(self.pinned_bytes - self.device_pinned_bytes))?;
        for (name, value) in self.on_device() {
            line(name, value)?;
        }
        if self.resident {
            line("streamed", "nothing: weights are read once and stay".to_owned())?;
        } else {
            line("streamed", format!("{} in every sweep", size(self.streamed_bytes_per_sweep)))?;
        }
        if self.cost.has_experts() {
            let (slots, most) = (self.expert_slots.iter().sum::<usize>(), self.expert_slots.iter().max());
            let bytes = self.expected_sweep_bytes.iter();
            let bytes: Vec<String> =
                bytes.map(|(rows, bytes)| format!("{} with {rows} rows", size(*bytes))).collect();
            let most = most.copied().unwrap_or(0);
            let read = format!("a sweep is expected to read {}", bytes.join(", "));
            line("experts", format!("{slots} in memory at once, up to {most} of a block; {read}"))?;
            if let Some(hits) = &self.expert_hits {
                line("  found in memory", format!("as in {}", hits.source))?;
            }
        }
        let c = &self.cost;
        line("disk", format!("{:.2} GB/s", c.read_bytes_per_second / 1e9))?;
        line("sweep", format!("{:.3} s; knee at {} rows", c.sweep_seconds, self.rows_at_knee))?;
        let rates: Vec<String> =
            c.tokens_per_second.iter().map(|(rows, rate)| format!("{rate:.2} with {rows} rows")).collect();
        line("tokens/s", rates.join(", "))
    }
}

impl Plan {
    /// What there is to say of guesses.
    fn guesses(&self) -> Vec<(&'static str, String)> {
        let rows = (self.draft_rows > 0).then(|| format!("up to {} rows of a sweep", self.draft_rows));
        let model = self.draft_model.as_ref().map(|DraftModel { bytes, round_seconds, pays_above }| {
            let bytes = size(*bytes);
            format!("{bytes}, {round_seconds:.3} s for some guesses; worth it above {pays_above:.1} times the tokens a sweep")
        });
        let lines = [("  guesses", rows), ("  draft model", model)];
        lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// What there is to say of a device with memory of its own.
    fn on_device(&self) -> Vec<(&'static str, String)> {
        let Some(budget) = self.device_budget_bytes else { return Vec::new() };
        let all = size(self.device_bytes);
        let text = format!("{all} of {} (KV cache, activations, tiles that pass through)", size(budget));
        vec![("GPU memory", text), ("  pinned", size(self.device_pinned_bytes))]
    }
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A number of parameters for people.
fn count(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.2} billion", n as f64 / 1e9),
        1_000_000.. => format!("{:.1} million", n as f64 / 1e6),
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        let shown = [0, 1023, 1024, 3 << 29, 5 << 40].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 GiB", "5.0 TiB"]);
    }
}
