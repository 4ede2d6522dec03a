//! Whatever the source and the slots: the right bytes, in the order asked for.

use std::collections::VecDeque;

use aerostat_stream::{Ring, buffer_bytes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[derive(Debug, Clone)]
struct Case {
    kind: Kind,
    seed: u64,
    slots: usize,
    /// Tiles kept while the next ones are asked for; fewer than slots.
    held: usize,
    /// How many extents each request appends.
    batch: usize,
    extents: Vec<Extent>,
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    let one = (0..LENGTHS.len(), any::<u64>(), any::<u64>(), 0..4).prop_map(|(file, a, b, shape)| {
        let length = LENGTHS[file] as u64;
        let offset = a % (length + 1);
        let bytes = match shape {
            0 => b % 700,           // tiny
            1 => length,            // to the end
            2 => b % (length + 1),  // any
            _ => (b % 8 + 1) * 512, // whole units
        };
        extent(file as u32, offset, bytes.min(length - offset))
    });
    let runs = prop::collection::vec((one, 0u8..3), 0..40);
    runs.prop_map(|runs| runs.into_iter().flat_map(|(first, followers)| adjacent(first, followers)).collect())
}

/// The extent and those that lie right behind it.
fn adjacent(first: Extent, followers: u8) -> Vec<Extent> {
    let length = LENGTHS[first.file.0 as usize] as u64;
    let mut all = vec![first];
    for _ in 0..followers {
        let offset = all.last().map_or(0, |last| last.offset + last.bytes);
        all.push(Extent { offset, bytes: first.bytes.min(length - offset), ..first });
    }
    all
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (prop::sample::select(&KINDS[..]), any::<u16>(), 1usize..7, 0usize..6, 1usize..50);
    (shape, extents()).prop_map(|((kind, seed, slots, held, batch), extents)| Case {
        kind,
        seed: seed.into(),
        slots,
        held: held.min(slots - 1),
        batch,
        extents,
    })
}

#[test]
fn tiles_are_the_bytes_asked_for_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&cases(), |case| {
            let mut ring = Ring::new(source(case.kind, &files, case.seed), case.slots, LENGTHS[0]).unwrap();
            let mut held = VecDeque::new();
            let mut rest = case.extents.iter();
            for batch in case.extents.chunks(case.batch) {
                ring.request(batch).unwrap();
                // Leave some pending, so that requests meet reads under way.
                while ring.pending() > case.batch / 2 {
                    check_next(&mut ring, &mut rest, &contents, &mut held, case.held)?;
                }
            }
            while ring.pending() > 0 {
                check_next(&mut ring, &mut rest, &contents, &mut held, case.held)?;
            }
            prop_assert!(rest.next().is_none());
            let stats = ring.stats();
            prop_assert_eq!(stats.reads, case.extents.len() as u64);
            prop_assert_eq!(stats.read_bytes, case.extents.iter().map(|extent| extent.bytes).sum::<u64>());
            prop_assert!(stats.device_bytes >= stats.read_bytes);
            prop_assert_eq!(stats.failures, 0);
            Ok(())
        })
        .unwrap();
}

fn check_next<'a>(
    ring: &mut Ring,
    rest: &mut impl Iterator<Item = &'a Extent>,
    contents: &[Vec<u8>],
    held: &mut VecDeque<(aerostat_stream::Tile, Extent)>,
    held_max: usize,
) -> Result<(), TestCaseError> {
    let tile = ring.next().map_err(|error| TestCaseError::fail(format!("{error}")))?;
    let extent = *rest.next().ok_or_else(|| TestCaseError::fail("a tile too many"))?;
    prop_assert_eq!(tile.extent(), extent);
    held.push_back((tile, extent));
    // Held tiles are checked as late as can be: nothing may have been read into them meanwhile.
    while held.len() > held_max {
        let (tile, extent) = held.pop_front().unwrap();
        prop_assert!(*tile == *expected(contents, extent), "wrong bytes in {:?}", extent);
    }
    Ok(())
}

#[test]
fn small_reads_past_the_order_are_the_bytes_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    let cases = [
        (0, 0, 300_001),
        (0, 299_999, 2),
        (0, 511, 2),
        (0, 65_535, 131_073),
        (2, 65_536, 1),
        (3, 0, 1),
        (4, 0, 0),
    ];
    for kind in KINDS {
        for seed in 0..6 {
            let mut ring = Ring::new(source(kind, &files, seed), 2, 8192).unwrap();
            ring.request(&[extent(1, 0, 8192), extent(0, 1, 8000), extent(0, 9000, 3)]).unwrap();
            for (file, offset, bytes) in cases {
                let extent = extent(file, offset, bytes);
                let mut out = vec![0; bytes as usize];
                ring.read_now(extent, &mut out).unwrap();
                assert!(out == expected(&contents, extent), "{kind:?}, seed {seed}, {extent:?}");
            }
            assert_eq!(*ring.next().unwrap(), contents[1], "the order goes on");
        }
    }
}

#[test]
fn many_small_reads_at_once_are_the_bytes_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let cases = (prop::sample::select(&KINDS[..]), any::<u16>(), extents());
    TestRunner::new(config)
        .run(&cases, |(kind, seed, extents)| {
            let mut ring = Ring::new(source(kind, &files, seed.into()), 3, 8192).unwrap();
            let order = [extent(1, 0, 8192), extent(0, 1, 8000), extent(0, 9000, 3), extent(2, 5, 700)];
            ring.request(&order).unwrap();
            let all: Vec<u8> =
                extents.iter().flat_map(|extent| expected(&contents, *extent)).copied().collect();
            for _ in 0..2 {
                let mut out = vec![0; all.len()];
                ring.read_many_now(&extents, &mut out).unwrap();
                prop_assert!(out == all);
            }
            for extent in order {
                prop_assert!(*ring.next().unwrap() == *expected(&contents, extent));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_source_alone_answers_every_read_once_with_its_buffer() {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    for kind in KINDS {
        let mut source = source(kind, &files, 11);
        assert!(source.wait().is_none());
        assert!(source.poll().is_none());
        let bytes = buffer_bytes(1000, source.alignment()).unwrap();
        for tag in 0..40 {
            let buffer = aerostat_stream::AlignedBuffer::new(bytes).unwrap();
            source.submit(aerostat_stream::Read { tag, extent: extent(0, tag * 999, 1000), buffer });
        }
        let mut seen = vec![];
        while let Some(done) = source.wait() {
            let range = done.result.unwrap();
            assert!(done.buffer[range] == *expected(&contents, extent(0, done.tag * 999, 1000)));
            seen.push(done.tag);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{kind:?}");
    }
}
