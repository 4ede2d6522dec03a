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
