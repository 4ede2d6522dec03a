//! Lines and tables with any bytes changed end in an answer or in one short error.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use aerostat_jobs::{Columns, Setting, TextFormat, TextTable, check_line};
use aerostat_openai::{LazyGrammars, Rules};

use crate::support::model;

/// Mutations of each seed, unless the environment says how many.
const COUNT: u64 = 300;
/// What may be put anywhere.
const PIECES: &[&str] = &[
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\u0000",
    "\\ud800",
    ",",
    ":",
    "true",
    "[[[[[[[[",
    "\"n\":65536,",
    "\"text\"",
    "\u{feff}",
    "\n",
    "\r",
    "\0",
    "$ref",
    "(?=a)",
    ".*",
    "{1,99999}",
    "é",
    "<|im_start|>",
];

/// A stream of numbers that looks like chance and is always the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

fn mutate(seed: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(4) {
        let (at, end) = (chance.below(bytes.len() + 1), chance.below(bytes.len() + 1));
        let range = at.min(end)..at.max(end);
        match chance.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(range)),
            2 => {
                let again = bytes[range].to_vec();
                bytes.splice(at..at, again);
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            4 if at < bytes.len() => bytes[at] = chance.below(256) as u8,
            _ => drop(bytes.splice(at..at, PIECES[chance.below(PIECES.len())].bytes())),
        }
    }
    bytes
}

/// Each seed of a fuzz target's corpus, mutated.
fn each(target: &str, mut run: impl FnMut(&[u8])) {
    let count = std::env::var("AEROSTAT_MUTATIONS").map_or(COUNT, |count| count.parse().unwrap());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut seeds: Vec<Vec<u8>> =
        fs::read_dir(corpus).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    for (i, seed) in seeds.iter().enumerate() {
        run(seed);
        let mut chance = Chance(count.wrapping_add(i as u64));
        (0..count).for_each(|_| run(&mutate(seed, &mut chance)));
    }
}

#[test]
fn mutated_lines_are_served_or_refused() {
    let mut settings = [false, true].map(|lenient| {
        let rules = Rules { context: None, max_new_tokens: 16, seed: 0, lenient };
        (Setting::new(&model(), "tiny", rules).unwrap(), LazyGrammars::default())
    });
    let (mut good, mut bad) = (0, 0);
    each("batch_line", |line| {
        for (setting, grammars) in &mut settings {
            match check_line(setting, grammars, 0, line) {
                Ok(()) => good += 1,
                Err(refusal) => {
                    assert!(refusal.message().chars().count() < 600, "{refusal}");
                    bad += 1;
                }
            }
        }
    });
    assert!(good > 0 && bad > 0, "{good} {bad}");
}

#[test]
fn mutated_tables_give_rows_and_reasons() {
    let (mut good, mut bad) = (0, 0);
    each("table", |bytes| {
        for format in [TextFormat::Jsonl, TextFormat::Csv(b',')] {
            let columns = Columns { prompt: Some("text".to_owned()), others: vec!["id".to_owned()] };
            let Ok(mut table) = TextTable::new(Cursor::new(bytes.to_vec()), format, columns) else {
                continue;
            };
            while let Some((_, cells)) = table.next_row().unwrap() {
                match cells {
                    Ok(_) => good += 1,
                    Err(why) => {
                        assert!(why.chars().count() < 600, "{why}");
                        bad += 1;
                    }
                }
            }
        }
    });
    assert!(good > 0 && bad > 0, "{good} {bad}");
}
