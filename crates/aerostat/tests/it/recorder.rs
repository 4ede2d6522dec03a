//! A second device: it records the ops it is asked for and lets the reference compute them. It was written against the trait
//! alone; no model, plan or engine knows of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aerostat::{Engine, ModelFiles, Options, Parts, Silent};
use aerostat_backend::quantised::Numbers;
use aerostat_backend::reference::Reference;
use aerostat_backend::{
    Activation, Allocated, Attention, Backend, BufferId, Capabilities, DeltaRule, Error, Extras, Footprint,
    HeadCopy, Home, HostBytes, Index, KvLayout, Mat, Nested, Rope, Scaling, ScratchNeed, StateScan,
    SweepRows, Tile, TileShape, UploadId, Weight, WeightId,
};
use aerostat_testkit::fixtures;

use crate::all;

/// How often each op was asked for.
type Record = Arc<Mutex<BTreeMap<&'static str, usize>>>;

#[derive(Default)]
struct Recorder {
    inner: Reference,
    record: Record,
}

impl Recorder {
    fn note(&self, op: &'static str) {
        *self.record.lock().unwrap().entry(op).or_default() += 1;
    }
}

/// Ops that are recorded and handed on as they are.
macro_rules! hand_on {
    ($(fn $op:ident($($name:ident: $kind:ty),*) -> $gives:ty;)*) => {
        $(fn $op(&mut self, $($name: $kind),*) -> $gives {
            self.note(stringify!($op));
            self.inner.$op($($name),*)
        })*
    };
}

impl Backend for Recorder {
    fn capabilities(&self) -> Capabilities {
        Capabilities { device: "recorder", ..self.inner.capabilities() }
    }

    fn footprint(&self, need: &ScratchNeed) -> Footprint {
        self.inner.footprint(need)
    }

    fn allocated(&self) -> Allocated {
        self.inner.allocated()
    }

    fn read(&mut self, src: Mat) -> Result<&[f32], Error> {
        self.note("read");
        self.inner.read(src)
    }

    hand_on! {
        fn reserve(need: &ScratchNeed, rows_max: usize) -> Result<(), Error>;
        fn allocate(len: usize) -> Result<BufferId, Error>;
        fn kv_allocate(layout: &KvLayout) -> Result<(), Error>;
        fn upload(shape: TileShape, bytes: HostBytes) -> Result<UploadId, Error>;
        fn release(upload: UploadId) -> ();
        fn release_all() -> ();
        fn reset() -> ();
        fn pin(shape: TileShape, bytes: HostBytes, home: Home) -> Result<WeightId, Error>;
        fn write(dst: Mat, data: &[f32]) -> Result<(), Error>;
        fn set_rows(rows: SweepRows<'_>) -> Result<(), Error>;
        fn matmul(w: Weight, x: Mat, y: Mat) -> Result<(), Error>;
        fn matmul_scaled(w: Weight, scaling: &Scaling, x: Mat, y: Mat) -> Result<(), Error>;
        fn matmul_k_major(w: Weight, x: Mat, y: Mat, k0: usize, last: bool) -> Result<(), Error>;
        fn matmul_scaled_k_major(
            w: Weight, scaling: &Scaling, x: Mat, y: Mat, k0: usize, last: bool
        ) -> Result<(), Error>;
        fn expand_numbers(w: Weight, numbers: Numbers, nested: Option<Nested>, out: Mat) -> Result<(), Error>;
        fn expand_rows(table: Tile<'_>, rows: &[u32], out: Mat) -> Result<(), Error>;
        fn gather_weights(rows: &[(WeightId, u32)], out: Mat) -> Result<(), Error>;
        fn row_norms(w: Weight, out: Mat) -> Result<(), Error>;
        fn add_bias(x: Mat, bias: Mat) -> Result<(), Error>;
        fn rms_norm(x: Mat, weight: Mat, eps: f32, out: Mat) -> Result<(), Error>;
        fn layer_norm(x: Mat, size: usize, eps: f32, out: Mat) -> Result<(), Error>;
        fn mul_columns(x: Mat, factors: Mat) -> Result<(), Error>;
        fn mul_rows(x: Mat, factors: Mat) -> Result<(), Error>;
        fn rope(x: Mat, rope: Rope, angles: Mat) -> Result<(), Error>;
        fn copy_heads(x: Mat, copy: &HeadCopy, out: Mat) -> Result<(), Error>;
        fn kv_write(layer: usize, k: Mat, v: Mat) -> Result<(), Error>;
        fn kv_save(page: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), Error>;
        fn kv_copy(slots: &[(u32, u32)]) -> Result<(), Error>;
        fn kv_load(page: u32, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), Error>;
        fn attention(
            layer: usize, q: Mat, out: Mat, shape: &Attention, extras: Extras<Mat>
        ) -> Result<(), Error>;
        fn select_positions(layer: usize, q: Mat, weights: Mat, out: Mat, index: &Index) -> Result<(), Error>;
        fn sparse_attention(
            layer: usize, q: Mat, out: Mat, shape: &Attention, selected: Mat
        ) -> Result<(), Error>;
        fn short_conv(
            x: Mat, weights: Mat, bias: Option<Mat>, silu: bool, state: Mat
        ) -> Result<(), Error>;
        fn delta_rule(
            x: Mat, strengths: Mat, parameters: Mat, state: Mat, out: Mat, rule: &DeltaRule
        ) -> Result<(), Error>;
        fn state_scan(
            x: Mat, steps: Mat, parameters: Mat, state: Mat, out: Mat, scan: &StateScan
        ) -> Result<(), Error>;
        fn glu(gate: Mat, up: Mat, activation: Activation, out: Mat) -> Result<(), Error>;
        fn activate(x: Mat, activation: Activation) -> Result<(), Error>;
        fn add(x: Mat, y: Mat) -> Result<(), Error>;
        fn mul(x: Mat, y: Mat) -> Result<(), Error>;
        fn scale(x: Mat, factor: f32) -> Result<(), Error>;
        fn softcap(x: Mat, cap: f32) -> Result<(), Error>;
        fn clip(x: Mat, limit: f32) -> Result<(), Error>;
        fn gather_rows(x: Mat, rows: &[u32], out: Mat) -> Result<(), Error>;
        fn take_columns(x: Mat, first: usize, step: usize, out: Mat) -> Result<(), Error>;
        fn scatter_rows(x: Mat, rows: &[u32], factors: &[f32], out: Mat) -> Result<(), Error>;
        fn clear(x: Mat) -> Result<(), Error>;
    }
}

/// On every fixture the bits are the CPU's, every tile that was handed over is given back, rows are told once a sweep, and
/// nothing is read back but routers' scores and logits.
#[test]
fn a_second_device_runs_every_fixture() {
    for fixture in fixtures() {
        let files = ModelFiles::open(&fixture.path).expect(&fixture.name);
        let sequences: Vec<Vec<u32>> = fixture.prompts.iter().map(|p| p.ids.clone()).collect();
        let need = aerostat::score::need(&sequences, true);
        let options =
            Options { pinned_bytes_max: Some(0), read_bytes_per_second: Some(1e9), ..Options::default() };
        let mut cpu = Engine::open(&files, &options, &need, &mut Silent).expect(&fixture.name);
        let want = all(cpu.score(&sequences, true, &mut Silent).expect(&fixture.name));

        let recorder = Recorder::default();
        let record = Arc::clone(&recorder.record);
        let parts = Parts::of(&files, &options).expect(&fixture.name);
        let parts = Parts { backend: Box::new(recorder), ..parts };
        let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent).expect(&fixture.name);
        assert!(engine.stats().device.starts_with("recorder"));
        record.lock().unwrap().clear();
        let found = all(engine.score(&sequences, true, &mut Silent).expect(&fixture.name));
        let bits = |scores: &[aerostat::Score]| -> Vec<u32> {
            let values = |s: &aerostat::Score| {
                s.logprobs
                    .iter()
                    .flatten()
                    .chain(s.logits_last.iter().flatten())
                    .map(|v| v.to_bits())
                    .collect()
            };
            scores.iter().flat_map(|s| -> Vec<u32> { values(s) }).collect()
        };
        assert_eq!(bits(&found), bits(&want), "{}", fixture.name);
        let record = record.lock().unwrap();
        let count = |op: &str| record.get(op).copied().unwrap_or(0);
        let sweeps = engine.stats().sweeps as usize;
        assert!(count("upload") > 0 && count("upload") == count("release"), "{}: {record:?}", fixture.name);
        assert_eq!(count("set_rows"), sweeps, "{}", fixture.name);
        let routers = files.spec().blocks.iter().filter(|block| block.experts.is_some()).count();
        assert!(count("read") <= sweeps * (routers + 1), "{}: {record:?}", fixture.name);
    }
}
