//! Reading, sending and computing at the same time: a disk as slow as it is told to be, and a device, both at work.

use std::time::{Duration, Instant};

use aerostat::{Engine, ModelFiles, Options, Parts, Plan, Request, Silent};
use aerostat_stream::Ring;
use aerostat_stream::simulated::{self, Contents, Script};
use aerostat_testkit::{Fixture, fixture};

use crate::models::options;

/// Sweeps of a measurement.
const SWEEPS: usize = 60;
/// Others use this machine, too.
const TRIES: usize = 5;

fn source(fixture: &Fixture, sleep_max: Duration) -> Box<dyn aerostat::Source> {
    let contents = vec![Contents::Memory(std::fs::read(fixture.path.join("model.safetensors")).unwrap())];
    let script = Script { depth: 1, sleep_max, ..Script::default() };
    simulated::open_pooled(contents, script).unwrap()
}

/// Seconds of sweeps, of which each reads everything.
fn sweep(fixture: &Fixture, sleep_max: Duration) -> (f64, Plan) {
    let files = ModelFiles::open(&fixture.path).unwrap();
    let options = Options { pinned_bytes_max: Some(0), tile_bytes: Some(3000), ..options() };
    let token_ids = fixture.prompts[0].ids[..1].to_vec();
    let request = Request { token_ids, max_new_tokens: SWEEPS, ignore_eos: true, ..Request::default() };
    let need = aerostat::generate::need(std::slice::from_ref(&request));
    let parts = Parts { source: source(fixture, sleep_max), ..Parts::of(&files, &options).unwrap() };
    let mut engine = Engine::open_with(&files, &options, &need, parts, &mut Silent).unwrap();
    engine.generate(&[request], None, &mut Silent).unwrap().completions.remove(0).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.sweeps, SWEEPS as u64);
    (stats.sweep_seconds, engine.current_plan().clone())
}

/// Seconds of reading as much, and nothing else.
fn read(fixture: &Fixture, plan: &Plan, sleep_max: Duration) -> f64 {
    let mut ring = Ring::new(source(fixture, sleep_max), plan.ring_slots, plan.slot_bytes as usize).unwrap();
    let extents: Vec<_> = plan.steps.iter().map(|step| step.extent).collect();
    let begun = Instant::now();
    for _ in 0..SWEEPS {
        ring.request(&extents).unwrap();
        extents.iter().for_each(|_| drop(ring.next().unwrap()));
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds of reading, of computing, and of both at the same time, until they are good or it was tried often enough.
fn measure(reading_of_computing: f64, is_good: impl Fn(f64, f64, f64) -> bool) {
    let _open = crate::boxed(aerostat_gpu::UploadPath::Auto);
    let fixture = fixture("llama");
    // Kernels are compiled.
    sweep(&fixture, Duration::ZERO);
    let mut tries = Vec::new();
    let good = (0..TRIES).any(|_| {
        let (before, plan) = sweep(&fixture, Duration::ZERO);
        let reads = (plan.steps.len() * SWEEPS) as f64;
        // A read sleeps half as long on average.
        let sleep_max = Duration::from_secs_f64(2.0 * before * reading_of_computing / reads);
        let reading = read(&fixture, &plan, sleep_max);
        let (wall, _) = sweep(&fixture, sleep_max);
        let (after, _) = sweep(&fixture, Duration::ZERO);
        let computing = before.max(after);
        tries.push((reading, computing, wall));
        is_good(reading, computing, wall)
    });
    println!("seconds of reading, of computing, of both: {tries:.3?}");
    assert!(good, "seconds of reading, of computing, of both: {tries:.3?}");
}

/// One after the other both would take 1.5 times as long as reading.
#[test]
fn where_the_disk_is_slower_computing_takes_no_time() {
    measure(2.0, |reading, _, wall| wall <= 1.1 * reading);
}

/// The processor is the device here, and others use it: on one that nobody else used it was 1.04 times computing, and it may be
/// more.
#[test]
fn where_the_device_is_slower_reading_takes_little_time() {
    measure(0.8, |reading, computing, wall| wall <= 0.85 * (reading + computing));
}
