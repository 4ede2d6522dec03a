//! `/metrics`: what happened, under the names that vLLM gave, so that its boards work.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aerostat::{Phase, Progress, Totals};

use crate::engine::locked;

/// Seconds, up to a day: sweeps may take minutes.
const SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
    14_400.0, 43_200.0, 86_400.0,
];
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0,
    50_000.0, 100_000.0,
];

/// What happened since the server began.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Requests by how they ended.
    pub(crate) stopped: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) first_token: Histogram,
    pub(crate) between_tokens: Histogram,
    pub(crate) whole: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) sweeps: Histogram,
    pub(crate) rows: Histogram,
    /// A sweep takes about so many microseconds.
    sweep_micros: AtomicU64,
    pub(crate) prompts: Histogram,
    pub(crate) answers: Histogram,
}

/// Takes the time of sweeps from signs of life, which come after each tile; pauses between sweeps do not count.
#[derive(Debug, Default)]
pub(crate) struct SweepClock {
    /// The sweep at hand, its rows, and when its first and last tiles were done.
    at: Option<(u64, usize, Instant, Instant)>,
    tiles: usize,
}

impl SweepClock {
    /// Takes a sign; at the first of a sweep it gives what the one before took, and its rows.
    pub(crate) fn tick(&mut self, progress: &Progress) -> Option<(f64, usize)> {
        let now = Instant::now();
        if progress.phase == Phase::Loading {
            return None;
        }
        match &mut self.at {
            Some((sweep, _, _, last)) if *sweep == progress.sweep => {
                *last = now;
                self.tiles += 1;
                None
            }
            at => {
                let before = at.replace((progress.sweep, progress.rows, now, now));
                let tiles = std::mem::replace(&mut self.tiles, 1);
                let (_, rows, first, last) = before?;
                // The first tile's own time is as that of the others.
                let seconds = match tiles {
                    0 | 1 => now.duration_since(first).as_secs_f64().min(1.0),
                    tiles => last.duration_since(first).as_secs_f64() * tiles as f64 / (tiles - 1) as f64,
                };
                Some((seconds, rows))
            }
        }
    }
}

/// How often a number was how large.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: &'static [f64],
    /// For each bucket, and for what is larger; and their sum.
    counts: Mutex<(Vec<u64>, f64)>,
}

/// What is known at the moment.
#[derive(Debug, Default)]
pub(crate) struct Now {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) sweeps: u64,
    pub(crate) rows: usize,
    pub(crate) read_bytes: u64,
    pub(crate) budget_bytes: u64,
    /// Part of the KV cache that is in use.
    pub(crate) cache_used: f64,
    /// What was counted of all requests, those of batches too.
    pub(crate) totals: Totals,
    /// What reading alone reached, in bytes a second.
    pub(crate) disk_rate: f64,
    /// Requests of batches: not done, done, failed.
    pub(crate) batches: [u64; 3],
}

impl Default for Metrics {
    fn default() -> Self {
        let (seconds, tokens) = (|| Histogram::new(SECONDS), || Histogram::new(TOKENS));
        Self {
            stopped: AtomicU64::default(),
            full: AtomicU64::default(),
            aborted: AtomicU64::default(),
            first_token: seconds(),
            between_tokens: seconds(),
            whole: seconds(),
            decode: seconds(),
            queue: seconds(),
            prefill: seconds(),
            inference: seconds(),
            sweeps: seconds(),
            rows: tokens(),
            sweep_micros: AtomicU64::default(),
            prompts: tokens(),
            answers: tokens(),
        }
    }
}

impl Histogram {
    fn new(buckets: &'static [f64]) -> Self {
        Self { buckets, counts: Mutex::new((vec![0; buckets.len() + 1], 0.0)) }
    }

    /// Counts a number.
    pub(crate) fn add(&self, number: f64) {
        let place = self.buckets.partition_point(|bound| *bound < number);
        let mut counts = locked(&self.counts);
        counts.1 += number;
        if let Some(count) = counts.0.get_mut(place) {
            *count += 1;
        }
    }

    fn write(&self, text: &mut Text, name: &str, help: &str) {
        let (counts, sum) = locked(&self.counts).clone();
        text.head(name, help, "histogram");
        let mut total = 0;
        let bounds = self.buckets.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&counts) {
            total += count;
            text.line(&format!("{name}_bucket"), &format!(",le=\"{bound}\""), total as f64);
        }
        text.line(&format!("{name}_sum"), "", sum);
        text.line(&format!("{name}_count"), "", total as f64);
    }
}

/// Prometheus's text, all of one model.
struct Text {
    text: String,
    labels: String,
}

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, more: &str, value: f64) {
        let _ = writeln!(self.text, "{name}{{{}{more}}} {value}", self.labels);
    }

    fn one(&mut self, name: &str, help: &str, kind: &str, value: f64) {
        self.head(name, help, kind);
        self.line(name, "", value);
    }
}

impl Metrics {
    /// A sweep of so many rows took so long.
    pub(crate) fn sweep(&self, seconds: f64, rows: usize) {
        self.sweeps.add(seconds);
        self.rows.add(rows as f64);
        let before = self.sweep_seconds().unwrap_or(seconds);
        let about = before + (seconds - before) / 4.0;
        self.sweep_micros.store((about * 1e6) as u64 + 1, Ordering::Relaxed);
    }

    /// What a sweep takes, as far as is known.
    pub(crate) fn sweep_seconds(&self) -> Option<f64> {
        let micros = self.sweep_micros.load(Ordering::Relaxed);
        (micros > 0).then_some(micros as f64 / 1e6)
    }

    /// All of it, for a model of this name.
    pub(crate) fn text(&self, model: &str, now: &Now) -> String {
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = Text { text: String::new(), labels: format!("model_name=\"{model}\",engine=\"0\"") };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let gauges = [
            ("vllm:num_requests_running", "Requests that have tokens.", now.running as f64),
            ("vllm:num_requests_waiting", "Requests that have none yet.", now.waiting as f64),
            ("vllm:kv_cache_usage_perc", "Part of the KV cache that is in use, 1 for all.", now.cache_used),
            ("aerostat_disk_ceiling_bytes_per_second", "What reading reaches while it reads.", now.disk_rate),
            ("aerostat_sweep_rows", "Rows of the sweep at hand.", now.rows as f64),
            ("aerostat_memory_budget_bytes", "What the process may hold.", now.budget_bytes as f64),
        ];
        for (name, help, value) in gauges {
            text.one(name, help, "gauge", value);
        }
        let totals = now.totals;
        let counters = [
            ("vllm:prompt_tokens_total", "Tokens of prompts.", totals.prompt_tokens as f64),
            ("vllm:generation_tokens_total", "Tokens of answers.", totals.answer_tokens as f64),
            ("vllm:num_preemptions_total", "Sequences that made room for others.", totals.preempted as f64),
            (
                "vllm:prefix_cache_queries_total",
                "Tokens of prompts that may begin alike.",
                totals.prompt_tokens as f64,
            ),
            ("vllm:prefix_cache_hits_total", "Those that others had computed.", totals.shared_rows as f64),
            ("aerostat_sweeps_total", "Passes over the weights.", now.sweeps as f64),
            ("aerostat_read_bytes_total", "Bytes of weights that were read.", now.read_bytes as f64),
        ];
        for (name, help, value) in counters {
            text.one(name, help, "counter", value);
        }
        let name = "vllm:request_success_total";
        text.head(name, "Requests that ended, by why.", "counter");
        for (reason, counter) in [("stop", &self.stopped), ("length", &self.full), ("abort", &self.aborted)] {
            text.line(name, &format!(",finished_reason=\"{reason}\""), count(counter));
        }
        let name = "aerostat_batch_requests";
        text.head(name, "Requests of batches that have not ended, by state.", "gauge");
        for (state, count) in ["waiting", "completed", "failed"].into_iter().zip(now.batches) {
            text.line(name, &format!(",state=\"{state}\""), count as f64);
        }
        let histograms = [
            ("vllm:request_queue_time_seconds", "From a request to its first sweep.", &self.queue),
            (
                "vllm:request_prefill_time_seconds",
                "From a request's first sweep to its first token.",
                &self.prefill,
            ),
            (
                "vllm:request_inference_time_seconds",
                "From a request's first sweep to its end.",
                &self.inference,
            ),
            ("vllm:iteration_tokens_total", "Rows of a sweep.", &self.rows),
            ("aerostat_sweep_seconds", "What a sweep takes.", &self.sweeps),
            ("aerostat_rows_per_sweep", "Rows of a sweep.", &self.rows),
            ("vllm:time_to_first_token_seconds", "From a request to its first token.", &self.first_token),
            ("vllm:inter_token_latency_seconds", "From token to token.", &self.between_tokens),
            ("vllm:e2e_request_latency_seconds", "From a request to its end.", &self.whole),
            ("vllm:request_decode_time_seconds", "From a request's first token to its end.", &self.decode),
            ("vllm:request_prompt_tokens", "Tokens of a request's prompts.", &self.prompts),
            ("vllm:request_generation_tokens", "Tokens of a request's answers.", &self.answers),
        ];
        for (name, help, histogram) in histograms {
            histogram.write(&mut text, name, help);
        }
        text.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_not_larger() {
        let metrics = Metrics::default();
        [0.01, 0.02, 1.0, 1e9].into_iter().for_each(|seconds| metrics.whole.add(seconds));
        let text = metrics.text("a\"b", &Now::default());
        let line = |le: &str| {
            let start = format!(
                "vllm:e2e_request_latency_seconds_bucket{{model_name=\"a\\\"b\",engine=\"0\",le=\"{le}\"}} "
            );
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        assert_eq!(line("0.01").as_deref(), Some("1"));
        assert_eq!(line("0.05").as_deref(), Some("2"));
        assert_eq!(line("1").as_deref(), Some("3"));
        assert_eq!(line("+Inf").as_deref(), Some("4"));
    }
}
