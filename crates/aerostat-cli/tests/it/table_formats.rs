//! Tables as people have them: separated, encoded and packed in many ways, with more columns than one.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::support::{Outcome, command, fixture, run, run_with, succeed};

fn chat() -> String {
    fixture("chat").to_str().unwrap().to_owned()
}

/// A folder with a file in it, and the file's name.
fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

const TEXT: &str = "id,text\n1,Grüße\n2,the hills\n";

fn refused(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "`{part}` is not in: {}", outcome.stderr);
    }
}

/// What `score` makes of a table, without the names of its columns.
fn scored(input: &str, flags: &[&str]) -> Vec<Vec<String>> {
    let model = chat();
    let args = [&["score", &model, "-i", input, "--key", "id", "-o", "-"][..], flags].concat();
    let text = succeed(&args);
    let delimiter = if flags.contains(&"--delimiter") { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn tables_in_every_encoding_and_packing_are_one_table() {
    let (_folder, plain) = file("in.csv", TEXT.as_bytes());
    let want = scored(&plain, &[]);
    assert_eq!(want.len(), 2);
    let utf16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        [mark, &TEXT.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()].concat()
    };
    let latin: Vec<u8> = TEXT.chars().map(|c| c as u8).collect();
    for (name, bytes, flags) in [
        ("in.csv", [b"\xef\xbb\xbf", TEXT.as_bytes()].concat(), &[][..]),
        ("in.csv", utf16(b"\xff\xfe", u16::to_le_bytes), &[]),
        ("in.csv", utf16(b"\xfe\xff", u16::to_be_bytes), &[]),
        ("in.csv", utf16(b"", u16::to_le_bytes), &["--encoding", "utf-16"]),
        ("in.csv", latin.clone(), &["--encoding", "latin-1"]),
        ("in.csv", TEXT.replace(',', ";").into_bytes(), &["--delimiter", ";"]),
        ("in.csv", TEXT.replace('\n', "\r\n").into_bytes(), &[]),
        ("in.csv", TEXT.replace("id,text", " id , text ").into_bytes(), &[]),
        ("in.csv.gz", gzip(TEXT.as_bytes()), &[]),
    ] {
        let (_folder, input) = file(name, &bytes);
        assert_eq!(scored(&input, flags), want, "{name} {flags:?}");
    }
    let model = chat();
    let hint = |text: &[u8], parts: &[&str]| {
        let (_folder, input) = file("in.csv", text);
        refused(&run(&["score", &model, "-i", &input]), 1, parts);
    };
    hint(&latin, &["line 2 is not UTF-8", "--encoding latin-1"]);
    hint(TEXT.replace(',', ";").as_bytes(), &["no column `text`", "--delimiter ';'"]);
    hint(b"text,id,text\na,1,b\n", &["`text` is there twice"]);
    hint(b"", &["the table is empty"]);
}

/// The smallest gzip file: what is in it is stored.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    packed.extend(length.to_le_bytes());
    packed.extend((!length).to_le_bytes());
    packed.extend(bytes);
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()));
    }
    packed.extend((!crc).to_le_bytes());
    packed.extend(u32::from(length).to_le_bytes());
    packed
}

#[test]
fn stdin_is_a_table_and_stdout_takes_results() {
    let model = chat();
    let (_folder, input) = file("in.csv", TEXT.as_bytes());
    let want = succeed(&["score", &model, "-i", &input, "--key", "id", "-o", "-"]);
    let rows: Vec<Value> = run_with(&["score", &model, "-i", "-", "--key", "id"], TEXT)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut reader = csv::Reader::from_reader(want.as_bytes());
    let logprobs: Vec<f64> = reader.records().map(|row| row.unwrap()[1].parse().unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["logprob"].as_f64().unwrap()).collect::<Vec<_>>(), logprobs);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let out = out.to_str().unwrap();
    let json = "{\"id\":\"1\",\"text\":\"Grüße\"}\n{\"id\":\"2\",\"text\":\"the hills\"}\n";
    let args = ["score", &model, "-i", "-", "--key", "id", "-o", out];
    assert_eq!(run_with(&args, json).code, Some(0));
    assert_eq!(fs::read_to_string(out).unwrap(), want);
    // The copy stands for a pipe that is empty now.
    assert_eq!(run_with(&args, "").code, Some(0));
    refused(&run(&["batch", "-m", &model, "-i", &input, "-o", "-"]), 2, &["need a file"]);
}

/// `-i /dev/stdin` was once refused for its ending where stdin is a file, and what was wrong with stdin was told of a copy.
#[cfg(unix)]
#[test]
fn stdin_has_other_names_and_is_called_so_where_it_is_wrong() {
    let model = chat();
    let (_folder, input) = file("in.csv", b"id,text\n1,hello\n");
    for name in ["-", "/dev/stdin", "/dev/fd/0"] {
        let stdin = fs::File::open(&input).unwrap();
        let output = command(&["score", &model, "-i", name, "--key", "id"]).stdin(stdin).output().unwrap();
        assert!(output.stdout.starts_with(b"{\"id\":\"1\""), "{name}: {output:?}");
        refused(&run(&["score", &model, "-i", name]), 1, &["error: stdin: the table is empty"]);
        let bad = run_with(&["score", &model, "-i", name], "text\nhello\na,b\n");
        assert!(bad.stderr.contains("error: stdin:3: the row has 2 cells"), "{bad:?}");
    }
}

/// A workbook that was renamed was once called Latin-1.
#[test]
fn what_is_no_text_is_called_by_its_name() {
    let gz = gzip(b"text\nhello\n");
    let cases: [(&[u8], &str); 3] =
        [(&gz, "packed by gzip"), (b"PK\x03\x04\x14\0\x06\0", "save it as CSV"), (b"PAR1", ".parquet")];
    for (bytes, says) in cases {
        let (_folder, input) = file("in.csv", bytes);
        refused(&run(&["score", &chat(), "-i", &input]), 1, &[says]);
    }
}

#[test]
fn prompts_are_made_of_columns_and_columns_are_carried() {
    let model = chat();
    let table = "id,title,text\n7,one,the hills\n8,\"t, w\",the sun\n";
    let (folder, input) = file("in.csv", table.as_bytes());
    let base = ["score", &model, "-i", &input];
    let made = succeed(&[&base[..], &["--template", "{title}: {text}!", "--carry", "title,id"]].concat());
    let mut reader = csv::Reader::from_reader(made.as_bytes());
    assert_eq!(&reader.headers().unwrap().iter().collect::<Vec<_>>()[..4], ["row", "title", "id", "logprob"]);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!((&rows[1][0], &rows[1][1], &rows[1][2]), ("1", "t, w", "8"));
    let alone = crate::support::json(&["score", &model, "t, w: the sun!"]);
    assert_eq!(rows[1][5], alone["results"][0]["token_ids"].to_string());
    // Through the chat template, as `run` has it.
    let chat_rows = succeed(&[&base[..], &["--chat"]].concat());
    let seen = crate::support::json(&["run", &model, "the hills", "--max-new-tokens", "1"]);
    let ids = seen["results"][0]["prompt_token_ids"].to_string();
    assert!(chat_rows.lines().nth(1).unwrap().contains(&ids), "{ids} is not in {chat_rows}");
    for (flags, code, part) in [
        (&["--template", "{nothing}"][..], 1, "there is no column `nothing`"),
        (&["--template", "no place"], 2, "{text}"),
        (&["--carry", "row"], 2, "row is a column of the results"),
        (&["--key", "id", "--carry", "id"], 2, "id is a column of the results"),
        (&["--carry", "title", "-o", "x.npy"], 2, ".npy"),
        (&["-o", "x.xyz"], 2, "use .jsonl, .csv"),
        (&["-o", "x.npy.xyz"], 2, "use .npy, .safetensors, .parquet"),
    ] {
        let command = if flags.iter().any(|flag| flag.contains(".npy")) { "embed" } else { "score" };
        refused(&run(&[&[command, &model, "-i", &input][..], flags].concat()), code, &[part]);
    }
    // The table need not have the column that prompts are taken from where nothing makes them.
    let (_other, titles) = file("in.csv", b"title,body\none,the hills\n");
    for out in ["made.csv", "made.npy"] {
        let out = folder.path().join(out);
        let args =
            ["embed", &model, "-i", &titles, "-o", out.to_str().unwrap(), "--template", "{title} {body}"];
        succeed(&args);
        assert!(out.metadata().unwrap().len() > 0);
    }
    let out = folder.path().join("out.csv.gz");
    succeed(&[&base[..], &["-o", out.to_str().unwrap()]].concat());
    let mut packed = Vec::new();
    fs::File::open(&out).unwrap().read_to_end(&mut packed).unwrap();
    assert!(packed.starts_with(&[0x1f, 0x8b]) && !Path::new("x.npy").exists());
}

#[test]
fn labels_have_columns_whose_probabilities_sum_to_one() {
    let model = chat();
    let (_folder, input) = file("in.csv", TEXT.as_bytes());
    let base = ["classify", &model, "-i", &input, "--labels", " yes, no,\"well, maybe\""];
    for more in [
        &["--probabilities"][..],
        &["--probabilities", "--length-normalize"],
        &["--probabilities", "--calibrate"],
    ] {
        let text = succeed(&[&base[..], more].concat());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        assert_eq!(names, ["row", "label", "logprob", "yes", "no", "well, maybe"]);
        for row in reader.records().map(Result::unwrap) {
            let found: Vec<f64> = (3..6).map(|i| row[i].parse().unwrap()).collect();
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{row:?}");
            let best = (0..3).fold(0, |best, i| if found[i] > found[best] { i } else { best });
            assert_eq!(row[1], names[3 + best]);
        }
    }
    refused(&run(&["classify", &model, "x", "--labels", "yes"]), 2, &["two or more"]);
    refused(&run(&[&base[..], &["--probabilities", "--key", "no"]].concat()), 2, &["no is a column"]);
}

#[test]
fn texts_that_are_too_long_are_cut_where_that_is_asked_for() {
    let model = chat();
    let text = (0..40).map(|i| format!("word{i} ")).collect::<String>();
    let (_folder, input) = file("in.csv", format!("text\nshort\n{text}\n").as_bytes());
    let base = ["score", &model, "-i", &input, "--context", "30"];
    assert_eq!(run(&base).code, Some(3));
    let ids = |flags: &[&str]| -> Vec<Vec<u32>> {
        let text = succeed(&[&base[..], flags].concat());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        reader.records().map(|row| serde_json::from_str(&row.unwrap()[3]).unwrap()).collect()
    };
    let whole: Vec<u32> = serde_json::from_value(
        crate::support::json(&["score", &model, &text])["results"][0]["token_ids"].clone(),
    )
    .unwrap();
    let (right, left, five) =
        (ids(&["--truncate", "right"]), ids(&["--truncate", "left"]), ids(&["--truncate", "5"]));
    assert!(right[0] == left[0] && right[0].len() < 30, "what fits stays");
    assert!(right[1].len() <= 30 && right[1].len() > 25, "{}", right[1].len());
    assert_eq!(right[1][..20], whole[..20]);
    assert_eq!(left[1][left[1].len() - 15..], whole[whole.len() - 15..]);
    assert!(five[1].len() <= 7, "{:?}", five[1]);
    // The question stays, and the text is cut.
    let asked = ids(&["--truncate", "right", "--template", "{text} Is it?"]);
    let question: Vec<u32> = serde_json::from_value(
        crate::support::json(&["score", &model, "x Is it?"])["results"][0]["token_ids"].clone(),
    )
    .unwrap();
    assert_eq!(asked[1][asked[1].len() - 2..], question[question.len() - 2..]);
    refused(&run(&[&base[..], &["--truncate", "up"]].concat()), 2, &["left, right or a number"]);
}
