//! Packed copies: the same weights, found damage, and the same bytes however often packing was stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aerostat::{Engine, Isa, ModelFiles, Options as EngineOptions, Silent};
use aerostat_backend::formats;
use aerostat_checkpoint::packed::{SIDECAR, Sidecar};
use aerostat_checkpoint::{Checkpoint, DType};
use aerostat_pack::{Codec, Error, ErrorKind, Options, Summary, pack, quantise};
use aerostat_testkit::{Fixture, fixture, fixtures};

fn options(codec: Codec) -> Options {
    Options { tile_bytes: 2048, shard_bytes: 30_000, verify: true, ..Options::new(codec, 2) }
}

fn packed(source: &Path, out: &Path, options: &Options) -> Result<Summary, Error> {
    pack(source, out, options, &mut |_| false)
}

/// The bits of log-probabilities and last logits of some prompts.
fn bits(path: &Path, prompts: &[Vec<u32>], options: &EngineOptions) -> Result<Vec<u32>, aerostat::Error> {
    let files = ModelFiles::open(path)?;
    let need = aerostat::score::need(prompts, true);
    let mut engine = Engine::open(&files, options, &need, &mut Silent)?;
    // What a flipped byte stops is told in the place of each score that it cost.
    let scores = engine.score(prompts, true, &mut Silent)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let values =
        scores.iter().flat_map(|s| s.logprobs.iter().flatten().chain(s.logits_last.iter().flatten()));
    Ok(values.map(|v| v.to_bits()).collect())
}

fn prompts(fixture: &Fixture) -> Vec<Vec<u32>> {
    fixture.prompts.iter().map(|prompt| prompt.ids.clone()).collect()
}

/// All files of a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

#[test]
fn every_fixture_computes_the_same_bits_packed() {
    let folder = tempfile::tempdir().unwrap();
    for fixture in fixtures().iter().filter(|f| f.path.is_dir()) {
        let out = folder.path().join(&fixture.name);
        let config = fs::read_to_string(fixture.path.join("config.json")).unwrap();
        let is_fp8 = ["\"fp8\"", "float-quantized"].iter().any(|how| config.contains(how));
        if is_fp8 {
            let error = packed(&fixture.path, &out, &options(Codec::Q4)).unwrap_err().to_string();
            assert!(error.contains("--codec lossless alone"), "{}: {error}", fixture.name);
        } else if config.contains("quantization_config") {
            let error = packed(&fixture.path, &out, &options(Codec::Lossless)).unwrap_err().to_string();
            assert!(error.contains("are not packed"), "{}: {error}", fixture.name);
            continue;
        }
        let summary = packed(&fixture.path, &out, &options(Codec::Lossless)).expect(&fixture.name);
        assert!(summary.verified);
        let want = bits(&fixture.path, &prompts(fixture), &EngineOptions::default()).unwrap();
        for pinned_bytes_max in [None, Some(0)] {
            let options = EngineOptions { pinned_bytes_max, ..EngineOptions::default() };
            let got = bits(&out, &prompts(fixture), &options).expect(&fixture.name);
            assert_eq!(got, want, "{}", fixture.name);
        }
    }
}

#[test]
fn stacked_experts_are_packed_one_by_one_and_by_outputs() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt_oss", "granitemoe", "llama4", "qwen3_vl_moe", "qwen3_vl_moe_saved"] {
        let (source, out) = (fixture(name).path, folder.path().join(name));
        packed(&source, &out, &options(Codec::Lossless)).unwrap();
        let files = ModelFiles::open(&out).unwrap();
        let experts = files.spec().blocks.iter().flat_map(|block| &block.experts);
        let matrices: Vec<_> = experts.flat_map(|e| e.linears()).map(|(_, linear)| &linear.weight).collect();
        assert!(matrices.iter().all(|m| m.tiles.is_some() && !m.k_major), "{name}");
        let places: BTreeSet<_> = matrices.iter().map(|m| (m.extent.file, m.extent.offset)).collect();
        assert_eq!(places.len(), matrices.len(), "{name}: experts share tiles");
    }
}

#[test]
fn tile_sizes_and_instruction_sets_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama_gqa_bf16", "gemma3", "falcon_new"] {
        let fixture = fixture(name);
        let want = bits(&fixture.path, &prompts(&fixture), &EngineOptions::default()).unwrap();
        for tile_bytes in [1, 1000, 5000, 1 << 20] {
            let out = folder.path().join(format!("{name}{tile_bytes}"));
            packed(&fixture.path, &out, &Options { tile_bytes, ..options(Codec::Lossless) }).unwrap();
            for isa in Isa::available() {
                for tile_bytes in [None, Some(1), Some(20_000)] {
                    let options = EngineOptions {
                        isa: Some(isa),
                        tile_bytes,
                        pinned_bytes_max: Some(0),
                        rows_max: Some(3),
                        ..EngineOptions::default()
                    };
                    assert_eq!(bits(&out, &prompts(&fixture), &options).unwrap(), want, "{name} {isa}");
                }
            }
        }
    }
}

/// The formats that have tiles with coded exponents in a packed folder.
fn exponent_coded_formats(folder: &Path) -> BTreeSet<&'static str> {
    let catalog = Checkpoint::open(folder).unwrap().catalog;
    let file = |tensor: &aerostat_checkpoint::Tensor| fs::read(catalog.file_of(tensor)).unwrap();
    let is_exponent_coded = |tensor: &&aerostat_checkpoint::Tensor| {
        let tiles = catalog.tiles(&tensor.name).into_iter().flat_map(|tiles| tiles.iter());
        tiles.clone().any(|tile| file(tensor)[tile.extent.offset as usize + 5] == 1)
    };
    catalog.tensors().filter(is_exponent_coded).map(|tensor| tensor.dtype.name()).collect()
}

/// Copies a folder, what is BF16 as F16.
fn as_f16(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for (name, mut bytes) in content(from) {
        if name.extension().is_some_and(|e| e == "safetensors") {
            let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
            let tensors = header.as_object().unwrap().values();
            for tensor in tensors.filter(|tensor| tensor["dtype"] == "BF16") {
                let at = |i: usize| data + tensor["data_offsets"][i].as_u64().unwrap() as usize;
                for pair in bytes[at(0)..at(1)].as_chunks_mut::<2>().0 {
                    *pair = half::f16::from_f32(half::bf16::from_le_bytes(*pair).to_f32()).to_le_bytes();
                }
            }
            let text = String::from_utf8(bytes[8..data].to_vec()).unwrap();
            bytes[8..data].copy_from_slice(text.replace("\"BF16\"", "\"F16\" ").as_bytes());
        }
        fs::write(to.join(name), bytes).unwrap();
    }
}

#[test]
fn stacked_experts_in_f16_compute_the_same_bits_packed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt_oss", "granitemoe", "llama4"] {
        let (fixture, source, out) =
            (fixture(name), folder.path().join(name), folder.path().join(format!("{name}_packed")));
        as_f16(&fixture.path, &source);
        packed(&source, &out, &Options { tile_bytes: 1 << 20, ..options(Codec::Lossless) }).unwrap();
        let want = bits(&source, &prompts(&fixture), &EngineOptions::default()).unwrap();
        for pinned_bytes_max in [None, Some(0)] {
            let options = EngineOptions { pinned_bytes_max, ..EngineOptions::default() };
            assert_eq!(bits(&out, &prompts(&fixture), &options).unwrap(), want, "{name}");
        }
    }
}

/// Most matrices of fixtures are too small to save a page.
#[test]
fn exponents_of_every_format_are_coded_where_that_saves_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("gemma3", "BF16"), ("gemma3_types", "F16"), ("qwen3_fp8", "F8_E4M3")] {
        let (fixture, out) = (fixture(name), folder.path().join(name));
        packed(&fixture.path, &out, &Options { tile_bytes: 1 << 20, ..options(Codec::Lossless) }).unwrap();
        assert!(exponent_coded_formats(&out).contains(format), "{name}");
        let want = bits(&fixture.path, &prompts(&fixture), &EngineOptions::default()).unwrap();
        for (isa, pinned_bytes_max) in Isa::available().flat_map(|isa| [(isa, None), (isa, Some(0))]) {
            let options = EngineOptions { isa: Some(isa), pinned_bytes_max, ..EngineOptions::default() };
            assert_eq!(bits(&out, &prompts(&fixture), &options).unwrap(), want, "{name} {isa}");
        }
    }
}

/// Bytes of a file of a packed folder worth flipping: of its header, of the middle of every tensor, and one after the
/// other of headers, tables, bodies and padding of tiles.
fn places(folder: &Path, file: &str, content: &[u8]) -> BTreeSet<usize> {
    let end = content.len().saturating_sub(1);
    let mut places: BTreeSet<usize> = (0..=end).step_by((end / 16).max(1)).chain([end]).collect();
    let path = folder.join(SIDECAR);
    let sidecar = Sidecar::parse(&fs::read(&path).unwrap(), &path).unwrap();
    let Some(shard) = sidecar.shards.iter().find(|shard| shard.file == file) else { return places };
    places.extend([0, 8, shard.header_bytes as usize - 1]);
    let header: serde_json::Value = serde_json::from_slice(&content[8..shard.header_bytes as usize]).unwrap();
    for (i, entry) in sidecar.tensors.iter().enumerate() {
        let Some(offsets) = header.get(&entry.name).map(|tensor| &tensor["data_offsets"]) else { continue };
        let at = |i: usize| shard.header_bytes as usize + offsets[i].as_u64().unwrap() as usize;
        let (start, end) = (at(0), at(1));
        places.insert((start + end) / 2);
        let tile = start + entry.tiles.first().map_or(0, |tile| tile.1 as usize);
        let kinds = match entry.tiles.is_empty() {
            true => [start, end - 1].to_vec(),
            false => {
                [0, 5, 9, 16, 33, 66, 70, 130, 300].map(|n| start + n).into_iter().chain([tile - 1]).collect()
            }
        };
        places.insert(kinds[i % kinds.len()]);
    }
    places
}

/// Packs a fixture, flips bytes of all files that matter, and demands an error or the same bits.
fn flip(name: &str, codec: Codec, pinned: Option<u64>) {
    flip_in_tiles(name, options(codec), pinned);
}

fn flip_in_tiles(name: &str, options: Options, pinned: Option<u64>) {
    let (folder, codec) = (tempfile::tempdir().unwrap(), options.codec);
    let fixture = fixture(name);
    let out = folder.path().join("out");
    packed(&fixture.path, &out, &options).unwrap();
    let ids: Vec<u32> = (0..fixture.prompts[0].logits_last.len() as u32).collect();
    let prompts: Vec<Vec<u32>> = ids.chunks(16).map(<[u32]>::to_vec).collect();
    let engine = EngineOptions {
        pinned_bytes_max: pinned,
        threads: Some(1),
        read_bytes_per_second: Some(1e9),
        ..EngineOptions::default()
    };
    let want = bits(&out, &prompts, &engine).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for (file, good) in content(&out) {
        let file = file.to_str().unwrap();
        for at in places(&out, file, &good) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(out.join(file), &bad).unwrap();
            match bits(&out, &prompts, &engine) {
                Err(_) => found += 1,
                Ok(got) => {
                    assert_eq!(got, want, "{name} {codec}: {file}, byte {at} of {}", good.len());
                    harmless += 1;
                }
            }
        }
        fs::write(out.join(file), &good).unwrap();
    }
    // What is harmless lies in experts that no row chose, or in tensors that are not used.
    assert!(harmless * 2 < found, "{name} {codec}: {found} found, {harmless} harmless");
}

#[test]
fn a_flipped_byte_anywhere_is_refused_or_changes_nothing_that_is_used() {
    flip("llama_gqa_bf16", Codec::Lossless, Some(0));
    flip("llama_gqa_bf16", Codec::Lossless, None);
    flip("llama_head_dim", Codec::Lossless, Some(0));
    flip("opt", Codec::Lossless, Some(0));
}

#[test]
fn a_flipped_byte_of_coded_exponents_is_refused_too() {
    for name in ["gemma3_types", "qwen3_fp8"] {
        let options = Options { tile_bytes: 1 << 20, ..options(Codec::Lossless) };
        flip_in_tiles(name, options, Some(0));
    }
}

#[test]
fn a_flipped_byte_of_experts_and_compressed_attention_is_refused_too() {
    for name in ["deepseek_v2", "gpt_oss", "granitemoe", "qwen2_moe", "qwen3_vl_moe"] {
        flip(name, Codec::Lossless, Some(0));
    }
    flip("deepseek_v2", Codec::Lossless, None);
}

#[test]
fn a_flipped_byte_of_quantised_weights_is_refused_too() {
    flip("phi3_longrope", Codec::Q8, Some(0));
    flip("phi3_longrope", Codec::Q4, None);
    flip("deepseek_v3_fp8", Codec::Lossless, Some(0));
    flip("llama_fp8_rows", Codec::Lossless, None);
}

/// Killed between copying small files and writing down how the weights will lie.
#[test]
fn what_was_stopped_before_it_had_a_plan_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, options) = (fixture("llama_sharded_f16").path, options(Codec::Lossless));
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    packed(&source, &whole, &options).unwrap();
    std::fs::create_dir_all(out.join(aerostat_checkpoint::packed::NOTES)).unwrap();
    std::fs::write(out.join("config.json"), "{\"half\":").unwrap();
    packed(&source, &out, &options).unwrap();
    assert_eq!(content(&out), content(&whole));
}

#[test]
fn what_was_stopped_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let all = Codec::ALL.map(|codec| ("llama_sharded_f16", codec));
    for (name, codec) in all.into_iter().chain([("qwen3_fp8", Codec::Lossless)]) {
        let (source, options) = (fixture(name).path, options(codec));
        let whole = folder.path().join(format!("{name}-{codec}"));
        packed(&source, &whole, &options).unwrap();
        for stride in [1, 2, 5] {
            let out = folder.path().join(format!("{name}-{codec}-{stride}"));
            let mut calls = 0;
            loop {
                let mut left = stride + calls;
                let result = pack(&source, &out, &options, &mut |_| {
                    left -= 1;
                    left < 0
                });
                match result {
                    Ok(_) => break,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
                }
                // A tensor that was begun is begun again, so calls must get longer.
                calls += 1;
                assert!(calls < 200);
            }
            assert!(calls > 0);
            assert_eq!(content(&out), content(&whole));
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_packing_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("llama_gqa_bf16").path;
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    packed(&source, &whole, &options(Codec::Lossless)).unwrap();
    let before = content(&source);
    for space in [0, 10_000, 50_000] {
        let options = Options { space: Some(space), ..options(Codec::Lossless) };
        match packed(&source, &out, &options) {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Space, "{error}");
                assert!(error.to_string().contains("nothing of the original is lost"), "{error}");
                assert!(ModelFiles::open(&out).unwrap_err().to_string().contains("not finished"));
            }
        }
    }
    if out.join("aerostat-pack").exists() {
        packed(&source, &out, &options(Codec::Lossless)).unwrap();
    }
    assert_eq!(content(&out), content(&whole));
    assert_eq!(content(&source), before);
}

#[test]
fn the_original_goes_file_by_file_once_its_weights_are_safe() {
    let folder = tempfile::tempdir().unwrap();
    let original = fixture("llama_sharded_f16");
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    for (name, bytes) in content(&original.path) {
        fs::write(source.join(name), bytes).unwrap();
    }
    let want = bits(&source, &prompts(&original), &EngineOptions::default()).unwrap();
    let options = Options { delete_original: true, ..options(Codec::Lossless) };
    let shards = |folder: &Path| {
        let names = content(folder).into_keys();
        names.filter(|name| name.extension().is_some_and(|e| e == "safetensors")).count()
    };
    let all = shards(&source);
    assert!(all > 1);
    let (mut calls, mut seen) = (0, vec![all]);
    loop {
        let mut left = 2 + calls;
        let result = pack(&source, &out, &options, &mut |_| {
            left -= 1;
            left < 0
        });
        seen.push(shards(&source));
        match result {
            Ok(summary) => {
                assert_eq!(summary.deleted.len(), all);
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
        }
        calls += 1;
    }
    assert_eq!(shards(&source), 0);
    assert!(seen.windows(2).all(|pair| pair[1] <= pair[0]));
    assert_eq!(bits(&out, &prompts(&original), &EngineOptions::default()).unwrap(), want);
}

#[test]
fn folders_that_are_taken_and_models_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let source = fixture("llama_gqa_bf16").path;
    let kind = |result: Result<Summary, Error>| result.unwrap_err().kind();
    assert_eq!(kind(packed(&source, folder.path().parent().unwrap(), &options(Codec::Q8))), ErrorKind::Usage);
    assert_eq!(kind(packed(&source.join("twin.gguf"), &out, &options(Codec::Q8))), ErrorKind::Usage);
    assert_eq!(kind(packed(&source.join("nothing"), &out, &options(Codec::Q8))), ErrorKind::Source);
    packed(&source, &out, &options(Codec::Lossless)).unwrap();
    assert_eq!(kind(packed(&source, &out, &options(Codec::Lossless))), ErrorKind::Usage);
    assert_eq!(kind(packed(&out, &folder.path().join("twice"), &options(Codec::Q8))), ErrorKind::Usage);
    assert_eq!(Checkpoint::open(&out).unwrap().catalog.codec(), Some("lossless"));
}

#[test]
fn quantising_errs_as_little_as_the_formats_allow() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let values: Vec<f32> =
        (0..64 * 256).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.02 - 0.12).collect();
    for (dtype, most) in [
        (DType::Q8_0, 0.006),
        (DType::Q6_K, 0.019),
        (DType::Q5_K, 0.037),
        (DType::Q5_0, 0.042),
        (DType::Q4_K, 0.075),
    ] {
        let (mut bytes, mut back) = (Vec::new(), vec![0.0; values.len()]);
        quantise(dtype, &values, &mut bytes).unwrap();
        formats::expand(dtype, &bytes, &mut back).unwrap();
        let squares =
            |f: &dyn Fn(usize) -> f32| (0..values.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
        let error = (squares(&|i| values[i] - back[i]) / squares(&|i| values[i])).sqrt();
        assert!(error < most, "{dtype:?} {error}");
        for special in [0.0f32, -0.0, 1e-30, 3.0e4, -3.0e4] {
            let (mut bytes, mut back) = (Vec::new(), vec![0.0; 256]);
            quantise(dtype, &[special; 256], &mut bytes).unwrap();
            formats::expand(dtype, &bytes, &mut back).unwrap();
            let near = |v: f32| (v - special).abs() <= 0.02 * special.abs() + 1e-7;
            assert!(back.iter().all(|&v| near(v)), "{dtype:?} {special}: {:?}", &back[..4]);
        }
    }
    assert_eq!(
        quantise(DType::Q8_0, &[f32::NAN; 32], &mut Vec::new()).unwrap_err().kind(),
        ErrorKind::Source
    );
}

/// They were written, and could not be read back.
#[test]
fn tiles_that_cannot_be_read_back_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let options = Options { tile_bytes: 8 << 30, ..options(Codec::Lossless) };
    let error = packed(&fixture("llama").path, &out.path().join("packed"), &options).unwrap_err();
    assert!(error.to_string().contains("1 GiB"), "{error}");
}
