//! The life of slots: held, dropped, cancelled, used again.

use aerostat_stream::{ErrorKind, Ring};

use super::*;

fn on_every_kind(slots: usize, check: impl Fn(&mut Ring, &[Vec<u8>], Kind)) {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    for kind in KINDS {
        for seed in 0..8 {
            check(&mut Ring::new(source(kind, &files, seed), slots, 5000).unwrap(), &contents, kind);
        }
    }
}

fn order(count: u64) -> Vec<Extent> {
    (0..count).map(|index| extent(0, index * 701, 4000 + index)).collect()
}

#[test]
fn a_slot_is_free_again_when_its_tile_drops() {
    on_every_kind(3, |ring, contents, kind| {
        let order = order(5);
        ring.request(&order).unwrap();
        let mut tiles: Vec<_> = (0..3).map(|_| ring.next().unwrap()).collect();
        assert_eq!(ring.next().err().unwrap().kind(), ErrorKind::Full, "{kind:?}");
        assert_eq!(ring.pending(), 2, "that error changes nothing");
        // Dropped on another thread, and not the first one.
        let middle = tiles.remove(1);
        std::thread::spawn(move || drop(middle)).join().unwrap();
        let fourth = ring.next().unwrap();
        assert!(*fourth == *expected(contents, order[3]));
        assert!(*tiles[0] == *expected(contents, order[0]) && *tiles[1] == *expected(contents, order[2]));
    });
}

#[test]
fn tiles_outlive_their_ring() {
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let files = write(folder.path(), &contents);
    for kind in KINDS {
        let mut ring = Ring::new(source(kind, &files, 3), 2, 5000).unwrap();
        ring.request(&order(9)).unwrap();
        let tile = ring.next().unwrap();
        drop(ring); // with reads in flight
        assert!(*tile == *expected(&contents, order(1)[0]));
    }
}

#[test]
fn one_slot_is_enough() {
    on_every_kind(1, |ring, contents, _| {
        let order = order(20);
        ring.request(&order).unwrap();
        for &extent in &order {
            assert!(*ring.next().unwrap() == *expected(contents, extent));
        }
        assert_eq!(ring.next().err().unwrap().kind(), ErrorKind::Empty);
    });
}

#[test]
fn a_cancelled_ring_forgets_and_is_used_again() {
    on_every_kind(4, |ring, contents, kind| {
        let many = order(400);
        for taken in [0, 1, 3] {
            ring.request(&many).unwrap();
            let tiles: Vec<_> = (0..taken).map(|_| ring.next().unwrap()).collect();
            ring.cancel();
            assert_eq!(ring.pending(), 0);
            assert_eq!(ring.next().err().unwrap().kind(), ErrorKind::Empty);
            assert!(tiles.iter().zip(&many).all(|(tile, &extent)| **tile == *expected(contents, extent)));
            drop(tiles);
            // All four slots are there again.
            let again = [extent(2, 60_000, 5000), extent(1, 8191, 1), extent(0, 300_000, 1), extent(4, 0, 0)];
            ring.request(&again).unwrap();
            let tiles: Vec<_> = (0..4).map(|_| ring.next().unwrap()).collect();
            for (tile, extent) in tiles.iter().zip(again) {
                assert!(**tile == *expected(contents, extent), "{kind:?}");
            }
        }
        assert_eq!(ring.stats().failures, 0, "what is cancelled has not failed");
    });
}

#[test]
fn an_extent_larger_than_a_slot_is_refused_with_all_of_its_request() {
    on_every_kind(2, |ring, contents, _| {
        let error = ring.request(&[extent(0, 0, 10), extent(0, 4096, 5001)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(
            error.to_string(),
            "an extent of 5001 bytes (file 0, offset 4096) is larger than a slot of 5000 bytes"
        );
        assert_eq!(ring.pending(), 0);
        let largest = extent(0, 4095, 5000);
        ring.request(&[largest]).unwrap();
        assert!(*ring.next().unwrap() == *expected(contents, largest));
    });
}

#[test]
fn a_ring_without_slots_or_memory_is_refused() {
    for (slots, bytes) in [(0, 4096), (1, usize::MAX), (2, isize::MAX as usize)] {
        let source = simulated::open(vec![], Script::default()).unwrap();
        assert_eq!(Ring::new(source, slots, bytes).err().unwrap().kind(), ErrorKind::Resources);
    }
}

#[test]
fn statistics_count_what_was_asked_and_what_alignment_adds() {
    let script = Script { alignment: 512, ..Script::default() };
    let source = simulated::open(vec![Contents::Memory(vec![1; 10_000])], script).unwrap();
    let mut ring = Ring::new(source, 2, 4096).unwrap();
    assert_eq!((ring.slots(), ring.slot_bytes(), ring.bytes()), (2, 4096, 2 * 8192));
    ring.request(&[extent(0, 0, 512), extent(0, 511, 2), extent(0, 1024, 0)]).unwrap();
    while ring.pending() > 0 {
        drop(ring.next().unwrap());
    }
    ring.read_now(extent(0, 9_999, 1), &mut [0]).unwrap();
    let stats = ring.stats();
    assert_eq!((stats.reads, stats.read_bytes, stats.device_bytes), (4, 515, 512 + 1024 + 512));
    assert_eq!(ring.stats(), stats, "no time passes with nothing in flight");
}

#[test]
fn what_stays_lies_beside_the_ring_and_holds_up_nothing() {
    on_every_kind(2, |ring, contents, kind| {
        let order = order(30);
        let slots = ring.cache_slots(&[5000, 4100, 4100]).unwrap();
        // Every third extent stays; more of them than the ring has slots.
        let mut stays = Vec::new();
        for (i, extent) in order[..9].iter().enumerate() {
            match i % 3 {
                1 => ring.request_into(*extent, &slots[i / 3]).unwrap(),
                _ => ring.request(&[*extent]).unwrap(),
            }
        }
        for (i, extent) in order[..9].iter().enumerate() {
            let tile = ring.next().unwrap();
            assert!(*tile == *expected(contents, *extent), "{kind:?}");
            if i % 3 == 1 {
                stays.push((tile, *extent));
            }
        }
        // The ring's own slots are all free, and a slot beside it is used again when what it held has dropped.
        ring.request(&order[9..11]).unwrap();
        let passing = [ring.next().unwrap(), ring.next().unwrap()];
        ring.request_into(order[11], &slots[0]).unwrap();
        assert_eq!(ring.next().err().unwrap().kind(), ErrorKind::Full, "{kind:?}");
        stays.remove(0);
        stays.push((ring.next().unwrap(), order[11]));
        assert!(stays.iter().all(|(tile, extent)| **tile == *expected(contents, *extent)));
        // What was forgotten while it was read leaves its slot free.
        drop(passing);
        stays.clear();
        ring.request_into(order[12], &slots[1]).unwrap();
        ring.cancel();
        ring.request_into(order[13], &slots[1]).unwrap();
        assert!(*ring.next().unwrap() == *expected(contents, order[13]));
        let error = ring.request_into(extent(0, 0, 4101), &slots[2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    });
}
