//! Real files: which way of reading is chosen, and what is refused at the door.

use aerostat_stream::{DEPTH_DEFAULT, DEPTH_URING_DEFAULT, ErrorKind, IoKind, Ring};

use super::*;

const CHOICES: [IoChoice; 4] = [IoChoice::Auto, IoChoice::Direct, IoChoice::Uring, IoChoice::Buffered];

fn options(io: IoChoice) -> SourceOptions {
    SourceOptions { io, depth: None }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, claimed) in [(100u64, 101), (100, 99), (0, 1)] {
        let mut files = write(folder.path(), &[vec![0; 10], vec![0; bytes as usize]]);
        files[1].bytes = claimed;
        let error = open(&files, options(IoChoice::Buffered)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Changed);
        assert!(error.to_string().contains("shard-1: the file has"), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = [File { path: folder.path().join("nowhere"), bytes: 1 }];
    for io in CHOICES {
        // Systems without direct reads say so before they look for the file.
        if cfg!(not(target_os = "linux")) && matches!(io, IoChoice::Direct | IoChoice::Uring) {
            continue;
        }
        let error = open(&files, options(io)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("nowhere: cannot be opened"), "{error}");
    }
}

#[test]
fn hundreds_of_shards_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = (0..300).map(|file| vec![file as u8; 1 + file]).collect();
    let files = write(folder.path(), &contents);
    for io in [IoChoice::Auto, IoChoice::Buffered] {
        let mut ring = Ring::new(open(&files, options(io)).unwrap(), 5, 300).unwrap();
        let order: Vec<_> = (0..300).map(|file| extent(file, 0, u64::from(file) + 1)).collect();
        ring.request(&order).unwrap();
        assert!(contents.iter().all(|contents| *ring.next().unwrap() == **contents));
    }
}

#[test]
fn nothing_to_read_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path(), &[vec![], vec![]]);
    for files in [&[][..], &empty] {
        assert!(Ring::new(open(files, options(IoChoice::Auto)).unwrap(), 1, 1).unwrap().next().is_err());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_in_memory_are_read_buffered_and_direct_by_name_is_refused() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: /dev/shm cannot be written to");
        return;
    };
    let contents = contents();
    let files = write(folder.path(), &contents);
    for io in [IoChoice::Direct, IoChoice::Uring] {
        let error = open(&files, options(io)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().ends_with("use --io buffered (or auto)"), "{error}");
    }
    let source = open(&files, options(IoChoice::Auto)).unwrap();
    assert_eq!((source.kind(), source.alignment()), (IoKind::Buffered, 1));
    let mut ring = Ring::new(source, 2, LENGTHS[0]).unwrap();
    let whole = extent(0, 0, LENGTHS[0] as u64);
    ring.request(&[whole, whole, whole]).unwrap();
    assert!((0..3).all(|_| *ring.next().unwrap() == *contents[0]));
}

#[test]
fn a_real_file_that_shrinks_is_named() {
    for io in CHOICES {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), &contents());
        let source = match open(&files, options(io)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            opened => opened.unwrap(),
        };
        let mut ring = Ring::new(source, 1, 100_000).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&files[0].path).unwrap();
        for left in [299_999, 250_000, 200_704, 0] {
            file.set_len(left).unwrap();
            ring.request(&[extent(0, 200_001, 100_000)]).unwrap();
            assert_eq!(ring.next().err().unwrap().kind(), ErrorKind::Shrunk, "{left} bytes left");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn io_uring_is_used_or_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &contents());
    match open(&files, options(IoChoice::Uring)) {
        Ok(source) => {
            assert_eq!((source.kind(), source.depth_max()), (IoKind::Uring, DEPTH_URING_DEFAULT));
            assert_eq!(source.kind().name(), "uring");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("use --io"), "{error}");
        }
    }
}

#[test]
fn the_depth_asked_for_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &contents());
    let depth = std::num::NonZeroUsize::new(3);
    assert_eq!(open(&files, SourceOptions { depth, ..SourceOptions::default() }).unwrap().depth_max(), 3);
    let source = open(&files, SourceOptions::default()).unwrap();
    let expected = match source.kind() {
        IoKind::Uring => DEPTH_URING_DEFAULT,
        _ => DEPTH_DEFAULT,
    };
    assert_eq!(source.depth_max(), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn shards_on_two_devices_are_read_as_one() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: /dev/shm cannot be written to");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let contents = contents();
    let mut files = write(folder.path(), &contents);
    files[1] = write(other.path(), &contents)[1].clone();
    for io in [IoChoice::Auto, IoChoice::Buffered] {
        let mut ring = Ring::new(open(&files, options(io)).unwrap(), 3, 8192).unwrap();
        let order: Vec<Extent> = (0..20).map(|at| extent(at % 3, u64::from(at) * 100, 5000)).collect();
        ring.request(&order).unwrap();
        assert!(order.iter().all(|at| *ring.next().unwrap() == *expected(&contents, *at)));
    }
}
