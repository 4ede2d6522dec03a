//! Any bytes as a table, JSONL and CSV.
#![no_main]

use std::io::Cursor;

use aerostat_jobs::{Columns, TextFormat, TextTable};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for format in [TextFormat::Jsonl, TextFormat::Csv(b',')] {
        let columns = Columns { prompt: Some("text".to_owned()), others: vec!["id".to_owned()] };
        let Ok(mut table) = TextTable::new(Cursor::new(bytes.to_vec()), format, columns) else {
            continue;
        };
        while let Ok(Some((_, cells))) = table.next_row() {
            if let Err(why) = cells {
                assert!(why.len() < 600);
            }
        }
    }
});
