//! Tables of texts in, numbers out.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{fixture, json as report, run, succeed};

/// A folder with a file in it: their names.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (folder, name)
}

fn model(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

fn beside(input: &str, name: &str) -> String {
    Path::new(input).with_file_name(name).to_str().unwrap().to_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The shape and the bytes of a tensor.
fn tensor(path: &str, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    let list = |key: &str| -> Vec<usize> { serde_json::from_value(header[name][key].clone()).unwrap() };
    let range = list("data_offsets");
    (list("shape"), data[range[0]..range[1]].to_vec())
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

const IDS: &str =
    "{\"id\":\"a\",\"text\":[3,4,5]}\n\n{\"id\":\"b\",\"text\":[9]}\n{\"id\":\"c\",\"text\":[7,8,9,10,11]}\n";

#[test]
fn embeddings_of_a_table_are_the_librarys_in_every_format() {
    use aerostat::{Engine, Hidden, ModelFiles, Options, Pooling, Silent, embed};
    let (_folder, input) = file("in.jsonl", IDS);
    let model = model("llama");
    let sequences = vec![vec![3, 4, 5], vec![9], vec![7, 8, 9, 10, 11]];
    let files = ModelFiles::open(model.as_ref()).unwrap();
    let mut engine =
        Engine::open(&files, &Options::default(), &embed::need(&sequences), &mut Silent).unwrap();
    let hidden = Hidden {
        pooling: Some(Pooling::WeightedMean),
        dimensions: Some(8),
        normalize: true,
        ..Hidden::default()
    };
    let want: Vec<Vec<f32>> =
        engine.embed(&sequences, hidden, &mut Silent).unwrap().into_iter().map(Result::unwrap).collect();
    let flags = ["--pooling", "weighted", "--dimensions", "8", "--normalize"];
    let base = [&["embed", &model, "-i", &input][..], &flags].concat();

    let rows = lines(&succeed(&[&base[..], &["--key", "id"]].concat()));
    for ((row, want), key) in rows.iter().zip(&want).zip(["a", "b", "c"]) {
        assert_eq!((&row["id"], &numbers(&row["embedding"])), (&json!(key), want));
    }
    assert_eq!(rows.len(), 3);

    let npy = beside(&input, "out.npy");
    succeed(&[&base[..], &["-o", &npy]].concat());
    let bytes = fs::read(&npy).unwrap();
    assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
    let header = std::str::from_utf8(&bytes[10..128]).unwrap();
    let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8), }";
    assert!(header.starts_with(dict) && header.ends_with('\n'), "{header:?}");
    assert_eq!(f32s(&bytes[128..]), want.concat());

    let out = beside(&input, "out.safetensors");
    succeed(&[&base[..], &["-o", &out, "--key", "id"]].concat());
    let (shape, data) = tensor(&out, "embeddings");
    assert_eq!((shape, f32s(&data)), (vec![3, 8], want.concat()));
    assert_eq!(i64s(&tensor(&out, "rows").1), [0, 1, 2]);
    assert_eq!(tensor(&out, "keys").1, b"abc");
    assert_eq!(i64s(&tensor(&out, "key_offsets").1), [0, 1, 2, 3]);
    let left = fs::read_dir(Path::new(&input).parent().unwrap()).unwrap();
    let mut left: Vec<String> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    // The input, two outputs, and the jobs by which the same commands know that they are done.
    assert_eq!(left, ["in.jsonl", "out.npy", "out.npy.job", "out.safetensors", "out.safetensors.job"]);
}

#[test]
fn a_bad_row_is_told_of_and_the_rest_goes_on() {
    let text = "{\"text\":[3,4]}\n{\"text\":\n{\"other\":1}\n{\"text\":5}\n{\"text\":[]}\n{\"text\":[999]}\n\
                {\"text\":[1,2,3,4,5]}\n{\"text\":\"words\"}\n{\"text\":[5]}\n";
    let (_folder, input) = file("in.jsonl", text);
    let out = beside(&input, "out.npy");
    let outcome = run(&["embed", &model("llama"), "-i", &input, "-o", &out, "--context", "4"]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let parts = [
        ":2: not a JSON object",
        ":3: there is no column `text`",
        ":4: column `text` is neither",
        ":5: ",
        ":6: ",
        ":7: 5 tokens do not fit a context of 4",
        ":8: the model has no tokenizer",
        "7 of 9 rows failed",
    ];
    for part in parts {
        assert!(outcome.stderr.contains(part), "`{part}` is not in: {}", outcome.stderr);
    }
    let values = f32s(&fs::read(&out).unwrap()[128..]);
    let failed: Vec<bool> = values.chunks(values.len() / 9).map(|row| row[0].is_nan()).collect();
    assert_eq!(failed, [false, true, true, true, true, true, true, true, false]);
}

/// An error line named the row by numbers alone, which a table that was sorted since no longer has.
#[test]
fn an_error_line_has_the_key_of_its_row() {
    let long = "k".repeat(1000);
    let text = format!(
        "{{\"id\":\"a\",\"text\":[3,4]}}\n{{\"id\":\"b\",\"text\":[]}}\n{{\"id\":7,\"text\":[999]}}\n{{\"text\":[]}}\n\
         nothing\n{{\"id\":\"{long}\",\"text\":[]}}\n"
    );
    let (_folder, input) = file("in.jsonl", &text);
    let told = |flags: &[&str]| -> Vec<Value> {
        let out = beside(&input, "out.jsonl");
        let base = ["embed", &model("llama"), "-i", &input, "-o", &out, "--restart"];
        let outcome = run(&[&base[..], flags].concat());
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        let errors = lines(&fs::read_to_string(beside(&input, "out.errors.jsonl")).unwrap());
        errors.iter().map(|error| error["key"].clone()).collect()
    };
    let (none, cut) = (Value::Null, json!(&long[..200]));
    assert_eq!(told(&["--key", "id"]), [json!("b"), json!(7), none.clone(), none.clone(), cut]);
    assert_eq!(told(&[]), vec![none; 5]);
}

/// A table of nothing but bad rows gave a file of no bytes, which other programs take for no table at all.
#[test]
fn a_csv_has_its_header_whatever_becomes_of_its_rows() {
    let (_folder, good) = file("good.csv", "id,more,text\na,1,the hills\n");
    let (_other, bad) = file("bad.csv", "id,more,text\na,1,\n");
    let (chat, encoder) = (model("chat"), model("sentences/ranker"));
    let labels = ["--labels", "rain,the sun"];
    for task in [
        vec!["score", &chat],
        vec!["embed", &chat],
        [&["classify", &chat][..], &labels].concat(),
        [&["classify", &chat, "--calibrate"][..], &labels].concat(),
        [&["classify", &chat, "--probabilities"][..], &labels].concat(),
        vec!["rerank", &encoder, "--query", "where?"],
    ] {
        for columns in [&[][..], &["--key", "id", "--carry", "more"]] {
            let header = |input: &str, code| {
                let out = beside(input, "out.csv");
                let outcome = run(&[&task[..], &["-i", input, "-o", &out, "--restart"], columns].concat());
                assert_eq!(outcome.code, Some(code), "{outcome:?}");
                let text = fs::read_to_string(&out).unwrap();
                assert_eq!(text.lines().count(), if code == 0 { 2 } else { 1 }, "{text}");
                text.lines().next().unwrap().to_owned()
            };
            if task[0] == "rerank" {
                // Without a document there is nothing to sort.
                assert!(header(&good, 0).ends_with("score"));
            } else {
                assert_eq!(header(&bad, 3), header(&good, 0));
            }
        }
    }
}

#[test]
fn a_csv_is_classified_and_gives_a_csv() {
    let table = "name,text\nx,the hills\n\"y, z\",\"it's\nraining\"\nshort\nw,the sun\n";
    let (_folder, input) = file("in.csv", table);
    let model = model("chat");
    let base = ["classify", &model, "--labels", "rain,the sun", "--template", "{text} is"];
    let outcome = run(&[&base[..], &["-i", &input, "--key", "name"]].concat());
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("in.csv:5: the row has 1 cell,"), "{}", outcome.stderr);
    let mut reader = csv::Reader::from_reader(outcome.stdout.as_bytes());
    assert_eq!(reader.headers().unwrap(), &["name", "label", "logprob", "logprobs"][..]);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|r| &r[0]).collect::<Vec<_>>(), ["x", "y, z", "w"]);
    let alone = report(&[&base[..], &["--prompt", "the hills"]].concat());
    let best = &alone["results"][0];
    assert_eq!(best["label"], rows[0][1]);
    assert_eq!(serde_json::from_str::<Value>(&rows[0][3]).unwrap(), best["logprobs"]);
    let sums = best["logprobs"].as_object().unwrap();
    let max = sums.values().map(|v| v.as_f64().unwrap()).fold(f64::MIN, f64::max);
    assert_eq!(best["logprob"], json!(max));

    for measure in ["--calibrate", "--calibrate=nothing", "--length-normalize"] {
        let found = report(&[&base[..], &["--prompt", "the hills", measure]].concat());
        let found = &found["results"][0];
        assert_eq!(found["logprobs"], best["logprobs"], "{measure}");
        assert!(found["scores"].is_object(), "{measure}");
    }
}

#[test]
fn distilled_positions_are_those_of_each_text_alone() {
    let (_folder, input) = file("in.jsonl", IDS);
    let model = model("llama");
    let out = beside(&input, "out.safetensors");
    let base = ["distil", &model, "-k", "4"];
    succeed(&[&base[..], &["-i", &input, "-o", &out]].concat());
    assert_eq!(i64s(&tensor(&out, "offsets").1), [0, 3, 4, 9]);
    assert_eq!(i64s(&tensor(&out, "given").1), [3, 1, 5]);
    assert_eq!(u32s(&tensor(&out, "tokens").1), [3, 4, 5, 9, 7, 8, 9, 10, 11]);
    let alone = report(&[&base[..], &["--token-ids", "3,4,5", "--token-ids", "9"]].concat());
    let top: Vec<Vec<u32>> = serde_json::from_value(alone["results"][0]["top_ids"].clone()).unwrap();
    let (shape, ids) = tensor(&out, "ids");
    assert_eq!((shape, &u32s(&ids)[..12]), (vec![9, 4], &top.concat()[..]));
    let (shape, logprobs) = tensor(&out, "logprobs");
    assert_eq!(shape, [9, 4]);
    let want = numbers(&alone["results"][1]["top_logprobs"][0]);
    for (bytes, want) in logprobs[24..32].chunks_exact(2).zip(want) {
        let got = half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32();
        assert!((got - want).abs() < 4e-3, "{got} {want}");
    }

    let told =
        report(&[&base[..], &["--generate", "3", "--temperature", "0", "--token-ids", "3,4,5"]].concat());
    let told = &told["results"][0];
    let tokens: Vec<u32> = serde_json::from_value(told["token_ids"].clone()).unwrap();
    assert_eq!((told["given"].as_u64(), &tokens[..3]), (Some(3), &[3, 4, 5][..]));
    let top: Vec<Vec<u32>> = serde_json::from_value(told["top_ids"].clone()).unwrap();
    assert!(tokens.len() > 3 && top.len() == tokens.len());
    for (next, top) in tokens[3..].iter().zip(&top[2..]) {
        assert_eq!(*next, top[0], "greedy takes the likeliest");
    }
}

#[test]
fn scores_of_a_table_are_those_of_its_texts() {
    let (_folder, input) = file("in.jsonl", IDS);
    let (model, out) = (model("llama"), beside(&input, "out.jsonl"));
    let told = report(&["score", &model, "-i", &input, "-o", &out]);
    assert_eq!((&told["rows"], &told["failed"]), (&json!(3), &json!(0)));
    let rows = lines(&fs::read_to_string(&out).unwrap());
    let alone = report(&["score", &model, "--token-ids", "7,8,9,10,11"]);
    let (row, want) = (&rows[2], &alone["results"][0]["logprobs"]);
    assert_eq!((&row["row"], &row["logprobs"][0]), (&json!(2), &Value::Null));
    let want: f64 = (1..5).map(|i| want[i].as_f64().unwrap()).sum();
    assert!((row["logprob"].as_f64().unwrap() - want).abs() < 1e-4);
    assert!((row["perplexity"].as_f64().unwrap().ln() + want / 4.0).abs() < 1e-4);
    assert_eq!(rows[1]["perplexity"], Value::Null);
}

#[test]
fn an_empty_table_gives_an_empty_result() {
    let (_folder, input) = file("in.jsonl", "");
    let out = beside(&input, "out.safetensors");
    succeed(&["distil", &model("llama"), "-i", &input, "-o", &out]);
    assert_eq!(tensor(&out, "ids").0, [0, 20]);
}

#[test]
fn tables_that_cannot_work_are_refused_with_the_reason() {
    let (_folder, input) = file("in.jsonl", IDS);
    let (_other, table) = file("in.csv", "a,b\n1,2\n");
    let (llama, chat) = (model("llama"), model("chat"));
    let npy = beside(&input, "out.npy");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["embed", &llama, "-i", "x.parquet"], 2, ".jsonl"),
        (&["embed", &llama, "-i", "/nonexistent/x.jsonl"], 1, "/nonexistent/x.jsonl"),
        (&["embed", &llama, "-i", &input, "-o", &npy, "--key", "id"], 2, ".npy"),
        (&["embed", &llama, "-i", &input, "-o", "/nonexistent/x.npy"], 1, "/nonexistent/x.npy"),
        (&["embed", &llama, "-i", &input, "--json"], 2, "-o"),
        (&["embed", &llama, "-i", &input, "--layer", "99"], 2, "blocks"),
        (&["embed", &llama, "-i", &input, "--dimensions", "99999"], 2, "elements"),
        (&["embed", &llama, "-o", "x.npy", "--token-ids", "1"], 2, "--input"),
        (&["embed", &chat, "-i", &table], 1, "its columns are: a, b"),
        (&["embed", &llama, "-i", &table], 1, "no tokenizer"),
        (&["distil", &llama, "-i", &input], 2, ".safetensors"),
        (&["classify", &chat, "-i", &table, "--labels", "a,a"], 2, "twice"),
        (&["classify", &chat, "-i", &table, "--labels", "a,b", "--template", "x"], 2, "{text}"),
        (&["classify", &chat, "-i", &table], 2, "--labels"),
        (&["score", &llama, "-i", &input, "--token-ids", "1"], 2, "--token-ids"),
    ];
    for (args, code, part) in cases {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(*code), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{args:?}: `{part}` is not in: {}", outcome.stderr);
        if args.contains(&"--json") {
            let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
            assert!(told["error"]["message"].as_str().unwrap().contains(part), "{told}");
        } else {
            assert_eq!(outcome.stdout, "", "{args:?}");
        }
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_that_is_not_built_in_is_refused_with_what_to_do() {
    let (_folder, input) = file("in.jsonl", IDS);
    for (from, to) in [(input.as_str(), "out.parquet"), ("in.parquet", "out.jsonl")] {
        let output = beside(&input, to);
        let refused = run(&["score", &model("llama"), "-i", from, "-o", &output]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("--features parquet"));
        assert!(!Path::new(&output).exists());
    }
}

#[cfg(feature = "parquet")]
#[test]
fn what_goes_through_parquet_is_what_goes_through_lines() {
    let (_folder, input) = file("in.jsonl", IDS);
    let (model, columns) = (model("llama"), beside(&input, "out.parquet"));
    let direct = lines(&succeed(&["score", &model, "-i", &input, "--key", "id"]));
    succeed(&["score", &model, "-i", &input, "--key", "id", "-o", &columns]);
    let again = beside(&input, "again.jsonl");
    succeed(&["score", &model, "-i", &columns, "--column", "token_ids", "--key", "id", "-o", &again]);
    assert_eq!(lines(&fs::read_to_string(&again).unwrap()), direct);
    // Nothing tells what is on stdout how long it is.
    assert_eq!(run(&["score", &model, "-i", &columns, "--column", "token_ids"]).code, Some(2));
    let wrong = run(&["score", &model, "-i", &columns, "--column", "text", "-o", &again]);
    assert!(wrong.stderr.contains("its columns are: id, logprob"));
    for command in [&["distil", "-k", "3"][..], &["embed"]] {
        let output = beside(&input, &format!("{}.parquet", command[0]));
        succeed(&[command, &[&model, "-i", &columns, "--column", "token_ids", "-o", &output]].concat());
        assert!(fs::read(&output).unwrap().ends_with(b"PAR1"));
        assert!(!Path::new(&format!("{output}.part")).exists());
    }
}

/// One once lost the first row of a table.
#[test]
fn a_byte_order_mark_is_no_part_of_a_table() {
    let model = model("chat");
    for (name, text) in
        [("in.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\"}\n"), ("in.csv", "text\none\ntwo\n")]
    {
        let (_folder, input) = file(name, text);
        let want = succeed(&["score", &model, "-i", &input]);
        let (_folder, marked) = file(name, &format!("\u{feff}{text}"));
        assert_eq!(succeed(&["score", &model, "-i", &marked]), want, "{name}");
    }
}

#[test]
fn one_bad_list_of_tokens_among_several_is_refused_alone() {
    let model = model("chat");
    for command in ["run", "score"] {
        let args =
            [command, &model, "--token-ids", "5,6", "--token-ids", "5,99999", "--token-ids", "7", "--json"];
        let outcome = run(&args);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        assert!(outcome.stderr.contains("1 of 3 results failed"), "{outcome:?}");
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(report["results"][1]["error"].as_str().unwrap().contains("99999"), "{report}");
        assert!(report["results"][2]["token_ids"].is_array());
        assert_eq!(run(&[command, &model, "--token-ids", "5,99999"]).code, Some(2));
    }
}
