//! The measuring commands measure what they say.

use crate::support::{fixture, json, run};

#[test]
fn sweeps_are_measured_beside_raw_reads() {
    let model = fixture("qwen2");
    let model = model.to_str().unwrap();
    let quick =
        ["--rounds", "1", "--sweeps", "3", "--raw-seconds", "0.02", "--rows", "1,5", "--pinned", "0,100"];
    let report = json(&[&["bench", "sweep", model][..], &quick].concat());
    let points = report["points"].as_array().unwrap();
    let ways: Vec<(u64, f64)> = points
        .iter()
        .map(|p| (p["rows"].as_u64().unwrap(), p["pinned_fraction"].as_f64().unwrap()))
        .collect();
    assert_eq!(ways, [(1, 0.0), (5, 0.0), (1, 1.0), (5, 1.0)]);
    for p in points {
        assert_eq!(p["sweeps"], 3);
        assert!(
            p["sweep_seconds"].as_f64().unwrap() > 0.0 && p["raw_bytes_per_second"].as_f64().unwrap() > 0.0
        );
        assert_eq!(p["streamed_bytes"] == 0, p["pinned_fraction"] == 1.0);
    }
}

#[test]
fn disks_are_measured_by_size_and_depth() {
    let model = fixture("llama");
    let model = model.to_str().unwrap();
    let quick = ["--sizes", "4096,64KiB", "--depths", "1,4", "--rounds", "1", "--seconds", "0.02"];
    let report = json(&[&["bench", "disk", model][..], &quick].concat());
    assert_eq!(report["points"].as_array().unwrap().len(), 4);
    let human = run(&[&["bench", "disk", model][..], &quick].concat());
    assert_eq!((human.code, human.stdout.lines().count()), (Some(0), 5));
    let too_large = run(&["bench", "disk", model, "--sizes", "1GiB"]);
    assert_eq!(too_large.code, Some(2), "{}", too_large.stderr);
    assert_eq!(run(&["bench", "disk", model, "--seconds", "-1"]).code, Some(2));
}

#[test]
fn more_rows_than_the_budget_allows_are_refused() {
    let model = fixture("qwen2");
    let model = model.to_str().unwrap();
    let refused = run(&["bench", "sweep", model, "--rows", "600", "--rows-max", "8", "--rounds", "1"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the budget allows sweeps of 8 rows, not 600"), "{}", refused.stderr);
}

#[test]
fn kernels_are_measured_beside_the_processor() {
    let quick = ["--formats", "bf16,Q4_0", "--rows", "1,4", "--seconds", "0.01"];
    let report = json(&[&["bench", "kernels"][..], &quick].concat());
    let points = report["points"].as_array().unwrap();
    let ways: Vec<(&str, u64)> =
        points.iter().map(|p| (p["format"].as_str().unwrap(), p["rows"].as_u64().unwrap())).collect();
    assert_eq!(ways, [("BF16", 1), ("BF16", 4), ("Q4_0", 1), ("Q4_0", 4)]);
    assert!(points.iter().all(|p| p["flops_per_second"].as_f64().unwrap() > 0.0), "{points:?}");
    let unknown = run(&["bench", "kernels", "--formats", "Q9_9"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("Q9_9") && unknown.stderr.contains("Q8_0"), "{}", unknown.stderr);
}

#[test]
fn prompts_and_answers_are_measured() {
    let model = fixture("qwen2");
    let model = model.to_str().unwrap();
    let quick = ["--prompt", "5", "--generate", "3", "--rounds", "1"];
    let report = json(&[&["bench", "throughput", model][..], &quick].concat());
    let points = report["points"].as_array().unwrap();
    let tests: Vec<(&str, u64)> =
        points.iter().map(|p| (p["test"].as_str().unwrap(), p["tokens"].as_u64().unwrap())).collect();
    assert_eq!(tests, [("prompt", 5), ("generate", 3)]);
    assert!(points.iter().all(|p| p["tokens_per_second"].as_f64().unwrap() > 0.0), "{points:?}");
}

#[test]
fn a_trace_of_experts_is_written_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let (model, trace) = (fixture("qwen3_moe"), trace.to_str().unwrap());
    let answer = ["--token-ids", "9,5", "--max-new-tokens", "6", "--ignore-eos", "--temperature", "0"];
    let answer = [&["run", model.to_str().unwrap()][..], &answer, &["--draft", "none"]].concat();
    let plain = json(&answer);
    let traced = json(&[&answer[..], &["--expert-trace", trace]].concat());
    assert_eq!(traced["results"], plain["results"], "looking changes nothing");
    let found = json(&["bench", "experts", trace, "--resident", "0,100"]);
    assert_eq!(found["uses"], traced["stats"]["experts"], "{found}");
    assert_eq!((&found["layers"], &found["sweeps"]), (&2.into(), &traced["stats"]["sweeps"]));
    let [none, all] = &found["points"].as_array().unwrap()[..] else { panic!("{found}") };
    let share = 1.0 - found["first_uses"].as_f64().unwrap() / found["uses"].as_f64().unwrap();
    assert_eq!((none["recency"].as_f64(), none["best"].as_f64()), (Some(0.0), Some(0.0)));
    assert!((all["recency"].as_f64().unwrap() - share).abs() < 1e-9, "all but first uses are found: {found}");
    assert_eq!(run(&["bench", "experts", "no-such-trace"]).code, Some(2));
    let missing = folder.path().join("no/trace.jsonl");
    let refused = run(&[&answer[..], &["--expert-trace", missing.to_str().unwrap()]].concat());
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    // A trace is written over, and nothing else is.
    json(&[&answer[..], &["--expert-trace", trace]].concat());
    let table = folder.path().join("table.csv");
    std::fs::write(&table, "text\nprecious\n").unwrap();
    let refused = run(&[&answer[..], &["--expert-trace", table.to_str().unwrap()]].concat());
    assert!(refused.code == Some(2) && refused.stderr.contains("is no trace of experts"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&table).unwrap(), "text\nprecious\n");
}

/// On whatever adapter there is; llama-bench is a script that says what it was asked.
#[cfg(all(unix, feature = "gpu"))]
#[test]
fn a_graphics_card_is_measured_beside_its_peaks() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("llama-bench");
    let answer =
        r#"[{"n_prompt": 512, "n_gen": 0, "avg_ts": 7.5}, {"n_prompt": 0, "n_gen": 32, "avg_ts": 2.5}]"#;
    std::fs::write(&other, format!("#!/bin/sh\necho \"$@\" > $(dirname $0)/asked\necho '{answer}'\n"))
        .unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let model = fixture("gguf_k_mixed/twin.gguf");
    let model = model.to_str().unwrap();
    let quick = ["--formats", "BF16,Q4_K", "--rows", "1,8", "--seconds", "0.01", "--sweep-rows", "2"];
    let more = [
        "--vram",
        "256MiB",
        "--sweeps",
        "1",
        "--prompt",
        "16",
        "--generate",
        "4",
        "--llama-bench",
        other.to_str().unwrap(),
    ];
    let args = [&["bench", "gpu", model][..], &quick, &more].concat();
    let report = json(&args);
    let kernels = &report["kernels"];
    for peak in ["upload_bytes_per_second", "fma_flops_per_second", "memory_bytes_per_second"] {
        assert!(kernels[peak].as_f64().unwrap() > 1e6, "{kernels}");
    }
    let points = kernels["points"].as_array().unwrap();
    let ways: Vec<(&str, u64)> =
        points.iter().map(|p| (p["format"].as_str().unwrap(), p["rows"].as_u64().unwrap())).collect();
    assert_eq!(ways, [("BF16", 1), ("BF16", 8), ("Q4_K", 1), ("Q4_K", 8)]);
    assert!(points.iter().all(|p| p["fraction_of_fma"].as_f64().unwrap() > 0.0), "{points:?}");
    let sweeps = report["sweeps"].as_array().unwrap();
    assert_eq!(sweeps.len(), 3);
    for (sweeps, weights) in sweeps.iter().zip(["streamed", "bounded", "resident"]) {
        assert_eq!(sweeps["weights"], weights);
        assert_eq!(sweeps["points"].as_array().unwrap().len(), 1, "{sweeps}");
        for point in sweeps["points"].as_array().unwrap() {
            assert_eq!(point["streamed_bytes"].as_u64().unwrap() > 0, weights == "streamed", "{point}");
        }
    }
    assert_eq!(report["llama_bench"][1]["avg_ts"], 2.5);
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    assert!(asked.contains(model) && asked.contains("-p 16 -n 4 -ngl 999"), "{asked}");
    let human = run(&[&["bench", "gpu"][..], &quick[..6]].concat());
    assert_eq!(human.code, Some(0), "{}", human.stderr);
    assert!(human.stdout.contains("GB/s to the device, "), "{}", human.stdout);
    assert_eq!(human.stdout.lines().count(), 3 + 4, "{}", human.stdout);
    assert_eq!(run(&["bench", "gpu", "--device", "cpu"]).code, Some(2));
}
