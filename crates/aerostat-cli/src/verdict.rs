//! What a plan comes to, in words.

use std::fmt::Write;

use aerostat::Plan;
use serde::Serialize;

/// The job by which nights are counted: prompts, tokens of each, tokens of each answer.
pub(crate) const REQUESTS: usize = 1000;
pub(crate) const PROMPT_TOKENS: usize = 200;
pub(crate) const ANSWER_TOKENS: usize = 200;
const NIGHT_SECONDS: f64 = 8.0 * 3600.0;

/// How far measured times were from predicted ones at most, where the disk was measured.
const MARGIN: f64 = 1.25;

/// Less time than this is told as less.
const TOLD_SECONDS: f64 = 0.001;

/// What is known of the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Disk {
    /// The user names its rate, or a moment of reading showed it.
    Known(f64),
    /// The model is not here: a rate is assumed, between those of a slow and a fast disk.
    Assumed,
}

impl Disk {
    /// Bytes per second of a usual, a slow and a fast disk.
    const USUAL: f64 = 2e9;
    const SLOW: f64 = 0.5e9;
    const FAST: f64 = 7e9;

    /// The rate that the plan is made with.
    pub(crate) fn rate(self) -> f64 {
        match self {
            Self::Known(rate) => rate,
            Self::Assumed => Self::USUAL,
        }
    }
}

/// What a model is asked for, by which its speed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Answers.
    Tokens,
    /// Vectors of texts, of a model that gives no tokens.
    Vectors,
}

impl Asked {
    /// Rows of a sweep for one prompt, once it is read.
    fn rows(self) -> usize {
        match self {
            Self::Tokens => 1,
            Self::Vectors => PROMPT_TOKENS,
        }
    }

    /// Tokens of an answer.
    pub(crate) fn answer_tokens(self) -> usize {
        match self {
            Self::Tokens => ANSWER_TOKENS,
            Self::Vectors => 0,
        }
    }

    fn one(self) -> String {
        match self {
            Self::Tokens => "a token for one prompt".to_owned(),
            Self::Vectors => format!("a text of {PROMPT_TOKENS} tokens"),
        }
    }

    fn many(self) -> String {
        match self {
            Self::Tokens => format!("answers of {ANSWER_TOKENS} tokens"),
            Self::Vectors => format!("texts of {PROMPT_TOKENS} tokens"),
        }
    }
}

/// The verdict, in words and in numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    #[serde(rename = "verdict")]
    pub(crate) text: String,
    /// Whether all weights stay in memory.
    fits: bool,
    /// Seconds of a token of one prompt, or of a text for which the model gives no token: at best, as expected, at worst.
    token_seconds: [f64; 3],
    /// Answers of [`ANSWER_TOKENS`] tokens, or texts of [`PROMPT_TOKENS`], in eight hours, of [`REQUESTS`] prompts at once; `None` where the budget has no room.
    answers_per_night: Option<f64>,
}

/// What a packed copy would take for a token.
pub(crate) struct Packed {
    pub(crate) codec: &'static str,
    pub(crate) seconds: f64,
}

impl Verdict {
    /// Of a plan for one prompt, that of the night's job, and copies that would be faster.
    pub(crate) fn new(
        plan: &Plan,
        night: Option<&Plan>,
        disk: Disk,
        packed: &[Packed],
        asked: Asked,
    ) -> Self {
        let at = |rate: f64| plan.cost.at_read_rate(rate).seconds(asked.rows(), 1);
        let expected = at(disk.rate());
        let (best, worst) = match disk {
            Disk::Known(_) => (expected / MARGIN, expected * MARGIN),
            Disk::Assumed => (at(Disk::FAST), at(Disk::SLOW)),
        };
        let answers = night.map(|plan| {
            let plan = Plan { cost: plan.cost.at_read_rate(disk.rate()), ..plan.clone() };
            let answer = asked.answer_tokens();
            let (_, seconds) = aerostat_jobs::forecast_alike(&plan, REQUESTS, PROMPT_TOKENS, answer);
            // One after the other, at the least: measured rates of many rows may be poor for a moment.
            let alone = expected * answer.max(1) as f64;
            NIGHT_SECONDS / (seconds / REQUESTS as f64).min(alone).max(1e-9)
        });
        let mut text = if plan.resident {
            format!("Fits: all {} stay in memory", gigabytes(plan.weight_bytes))
        } else {
            let (read, all) = (plan.streamed_bytes_per_sweep, plan.weight_bytes);
            match plan.expected_sweep_bytes.values().all(|bytes| *bytes == read) {
                true => format!("Does not fit: {} will stream", part(read, all)),
                false => {
                    format!("Does not fit: of {}, a token reads about {}", gigabytes(all), gigabytes(read))
                }
            }
        };
        text += &each(asked, [best, expected, worst]);
        if let Some(answers) = answers {
            let _ = write!(text, ", {} {} a night", count(answers), asked.many());
        }
        let faster = packed.iter().filter(|packed| packed.seconds < 0.97 * expected);
        let faster: Vec<String> =
            faster.map(|packed| format!("{} {}", packed.codec, seconds(packed.seconds))).collect();
        if !faster.is_empty() {
            let _ = write!(text, "; packed: {}", faster.join(", "));
        }
        text.push('.');
        if disk == Disk::Assumed {
            let range = if text.contains('(') { ", and 7 to 0.5 in brackets" } else { "" };
            let _ = write!(text, " The disk is assumed to yield 2 GB/s{range}: --disk names yours.");
        }
        Self { text, fits: plan.resident, token_seconds: [best, expected, worst], answers_per_night: answers }
    }
}

/// What a token takes: at best, as expected, at worst.
/// What one takes.
fn each(asked: Asked, [best, expected, worst]: [f64; 3]) -> String {
    let about = if expected < TOLD_SECONDS { "" } else { "about " };
    let text = format!("; {about}{} {}", seconds(expected), asked.one());
    if worst < TOLD_SECONDS {
        return text;
    }
    let (low, high) = (seconds(best), seconds(worst));
    // One unit is told once.
    let low = match (low.rsplit_once(' '), high.rsplit_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => number,
        _ => &low,
    };
    format!("{text} ({low} to {high})")
}

/// Seconds as they are worth telling.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < TOLD_SECONDS => "less than 1 ms".to_owned(),
        s if s < 300.0 => format!("{} s", digits(s)),
        s if s < 7200.0 => format!("{} min", digits(s / 60.0)),
        s => format!("{} h", digits(s / 3600.0)),
    }
}

/// `141 GB`, as disks are sold.
pub(crate) fn gigabytes(bytes: u64) -> String {
    let (unit, name) = unit(bytes);
    format!("{} {name}", number(bytes, unit))
}

/// `131 of 141 GB`: both in one unit.
fn part(bytes: u64, all: u64) -> String {
    let (unit, name) = unit(all);
    format!("{} of {} {name}", number(bytes, unit), number(all, unit))
}

/// The unit in which so much is told.
fn unit(bytes: u64) -> (f64, &'static str) {
    match bytes {
        1_000_000_000.. => (1e9, "GB"),
        1_000_000.. => (1e6, "MB"),
        _ => (1e3, "kB"),
    }
}

fn number(bytes: u64, unit: f64) -> String {
    let number = bytes as f64 / unit;
    if number >= 10.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

fn count(n: f64) -> String {
    if n >= 1e6 { "more than a million".to_owned() } else { digits(n) }
}

/// With two digits that mean something, and no more.
fn digits(value: f64) -> String {
    if value <= 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let scale = 10f64.powi(value.log10().floor() as i32 - 1);
    let rounded = (value / scale).round() * scale;
    match rounded {
        r if r >= 10.0 => format!("{r:.0}"),
        r if r >= 1.0 => format!("{r:.1}"),
        r => format!("{:.*}", (2 - r.log10().ceil() as i32).clamp(1, 6) as usize, r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_two_digits() {
        let times = [0.0004, 0.0123, 0.48, 4.24, 42.4, 424.0, 36_000.0].map(seconds);
        assert_eq!(times, ["less than 1 ms", "0.012 s", "0.48 s", "4.2 s", "42 s", "7.1 min", "10 h"]);
        assert_eq!(
            [52_000, 5_000_000, 1_234_000_000, 141_400_000_000].map(gigabytes),
            ["52 kB", "5.0 MB", "1.2 GB", "141 GB"]
        );
        // A part was told in GB once, and the whole in MB: "0.1 of 97 MB".
        assert_eq!(part(92_000_000, 97_000_000), "92 of 97 MB");
        assert_eq!(part(131_000_000_000, 141_400_000_000), "131 of 141 GB");
        assert_eq!(each(Asked::Tokens, [0.0001, 0.0002, 0.0003]), "; less than 1 ms a token for one prompt");
        assert_eq!(
            each(Asked::Tokens, [30.0, 37.0, 46.0]),
            "; about 37 s a token for one prompt (30 to 46 s)"
        );
        assert!(each(Asked::Tokens, [0.0008, 0.001, 0.0013]).ends_with("(less than 1 ms to 0.0013 s)"));
        assert!(each(Asked::Vectors, [0.1, 0.2, 0.3]).starts_with("; about 0.20 s a text of 200 tokens ("));
        assert_eq!([7.44, 503.0, 12_345.0, 3e9].map(count), ["7.4", "500", "12000", "more than a million"]);
    }
}
