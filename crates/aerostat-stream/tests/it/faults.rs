//! Each thing that can go wrong, at a known call.

use aerostat_stream::simulated::{Fault, FaultKind};
use aerostat_stream::{Error, ErrorKind, Ring};

use super::*;

/// A ring of one slot over two files of 10 000 bytes, read one call at a time, through every kind of
/// simulated source.
fn rings(faults: &[(u64, FaultKind)]) -> [Ring; 3] {
    let faults: Vec<Fault> = faults.iter().map(|&(call, kind)| Fault { call, kind }).collect();
    let script = Script { faults, depth: 1, ..Script::default() };
    let files = || vec![Contents::Memory(bytes()), Contents::Memory(bytes())];
    let opens = [simulated::open, simulated::open_pooled, simulated::open_overlapped];
    opens.map(|open| Ring::new(open(files(), script.clone()).unwrap(), 1, 10_000).unwrap())
}

fn bytes() -> Vec<u8> {
    (0..10_000u32).map(|at| (at / 3) as u8).collect()
}

/// What three reads of the same extent give: right bytes, or the kind and text of an error.
fn outcomes(ring: &mut Ring, extent: Extent) -> Vec<Result<(), Error>> {
    ring.request(&[extent; 3]).unwrap();
    let all = bytes();
    let expected = &all[extent.offset as usize..(extent.offset + extent.bytes) as usize];
    let check = |_| ring.next().map(|tile| assert!(*tile == *expected));
    (0..3).map(check).collect()
}

#[test]
fn short_and_interrupted_reads_are_carried_on() {
    let faults: [&[(u64, FaultKind)]; 6] = [
        &[
            (0, FaultKind::Refused),
            (1, FaultKind::Refused),
            (2, FaultKind::Short(600)),
            (3, FaultKind::Refused),
        ],
        &[(0, FaultKind::Interrupted), (1, FaultKind::Interrupted), (3, FaultKind::Interrupted)],
        &[(0, FaultKind::Short(512)), (1, FaultKind::Short(4096)), (2, FaultKind::Short(1024))],
        &[(0, FaultKind::Short(1)), (1, FaultKind::Short(513)), (2, FaultKind::Short(511))],
        &[(0, FaultKind::Short(9_999)), (1, FaultKind::Interrupted), (2, FaultKind::Short(700))],
        &[(1, FaultKind::Short(0x1000)), (2, FaultKind::Short(0x1001))],
    ];
    for faults in faults {
        for at in [extent(0, 0, 10_000), extent(1, 1, 9_999), extent(0, 700, 5_000), extent(1, 9_999, 1)] {
            for mut ring in rings(faults) {
                for outcome in outcomes(&mut ring, at) {
                    outcome.unwrap_or_else(|error| panic!("{faults:?}, {at:?}: {error}"));
                }
            }
        }
    }
}

#[test]
fn a_failed_read_takes_only_its_own_tile_away() {
    for mut ring in rings(&[(1, FaultKind::Failed)]) {
        let [first, second, third] = outcomes(&mut ring, extent(1, 600, 5_000)).try_into().unwrap();
        assert!(first.is_ok() && third.is_ok());
        let error = second.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.to_string(), "simulated-1: the extent of 5000 bytes at offset 600 cannot be read");
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!((ring.stats().failures, ring.stats().reads, ring.pending()), (1, 2, 0));
    }
}

#[test]
fn a_file_that_shrinks_is_named() {
    // Cut to nothing, at a unit, within a unit, one byte before the extent's end.
    for left in [0, 2048, 2100, 5599] {
        for mut ring in rings(&[(1, FaultKind::Shrunk(FileId(1), left))]) {
            let [first, second, third] = outcomes(&mut ring, extent(1, 600, 5_000)).try_into().unwrap();
            assert!(first.is_ok());
            for outcome in [second, third] {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Shrunk);
                let text = error.to_string();
                assert!(
                    text.starts_with("simulated-1: the file is shorter than when it was opened"),
                    "{text}"
                );
            }
            ring.request(&[extent(0, 0, 10_000)]).unwrap();
            assert_eq!(*ring.next().unwrap(), bytes(), "the other file is as it was");
        }
    }
    for mut ring in rings(&[(1, FaultKind::Shrunk(FileId(1), 5600))]) {
        assert!(
            outcomes(&mut ring, extent(1, 600, 5_000)).iter().all(Result::is_ok),
            "nothing asked for is gone"
        );
    }
}

#[test]
fn a_small_read_fails_alone() {
    for mut ring in rings(&[(0, FaultKind::Failed), (2, FaultKind::Interrupted), (3, FaultKind::Short(512))])
    {
        let mut out = [0; 2000];
        assert_eq!(ring.read_now(extent(0, 5, 2000), &mut out).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(ring.read_now(extent(0, 5, 1999), &mut out).unwrap_err().kind(), ErrorKind::TooLarge);
        for _ in 0..3 {
            ring.read_now(extent(0, 5, 2000), &mut out).unwrap();
            assert_eq!(out[..], bytes()[5..2005]);
        }
    }
}

#[test]
fn one_of_many_small_reads_that_fails_fails_them_all_and_no_later_ones() {
    let small: Vec<Extent> = (0..60).map(|at| extent(at % 2, u64::from(at) * 160, 20)).collect();
    let expected: Vec<u8> = small
        .iter()
        .flat_map(|at| bytes()[at.offset as usize..(at.offset + at.bytes) as usize].to_vec())
        .collect();
    // Reads of 512 bytes each hold several.
    for call in [0, 7, 19] {
        let faults = [(call, FaultKind::Failed), (call + 3, FaultKind::Interrupted)];
        for mut ring in rings(&faults) {
            let mut out = vec![0; expected.len()];
            let error = ring.read_many_now(&small, &mut out).unwrap_err();
            assert_eq!((error.kind(), ring.stats().failures), (ErrorKind::Io, 1));
            for _ in 0..3 {
                out.fill(0);
                ring.read_many_now(&small, &mut out).unwrap();
                assert!(out == expected);
            }
        }
    }
    for mut ring in rings(&[]) {
        for bytes in [0, 1199, 1201] {
            let error = ring.read_many_now(&small, &mut vec![0; bytes]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            let text = "60 extents of 1200 bytes together cannot be read into";
            assert!(error.to_string().starts_with(text), "{error}");
        }
        let beyond = [small[0], extent(1, 9_999, 2)];
        assert_eq!(ring.read_many_now(&beyond, &mut [0; 22]).unwrap_err().kind(), ErrorKind::Bounds);
    }
}

#[test]
fn extents_beyond_the_files_are_refused_before_any_read() {
    let beyond =
        [(0, 0, 10_001), (0, 10_000, 1), (1, u64::MAX, 1), (1, 9_999, 2), (2, 0, 0), (u32::MAX, 0, 1)];
    for (file, offset, bytes) in beyond {
        for mut ring in rings(&[(0, FaultKind::Failed)]) {
            let at = extent(file, offset, bytes);
            let kind = match ring.request(&[at]) {
                Ok(()) => ring.next().err().unwrap().kind(),
                Err(error) => error.kind(),
            };
            assert!(matches!(kind, ErrorKind::Bounds | ErrorKind::TooLarge), "{at:?}: {kind:?}");
            assert_eq!(ring.pending(), 0);
        }
    }
}
