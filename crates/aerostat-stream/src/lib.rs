//! Extents of files into aligned buffers: sources, the ring, statistics.
//!
//! [`open`] makes a [`Source`] of files, by direct or buffered reads; a [`Ring`] over it reads extents
//! ahead through a fixed number of slots and hands them out in order, as [`Tile`]s.
//!
//! ```
//! use aerostat_checkpoint::{Extent, File, FileId};
//! use aerostat_stream::{Ring, SourceOptions, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("weights");
//! # std::fs::write(&path, [7; 10_000])?;
//! let source = open(&[File { path, bytes: 10_000 }], SourceOptions::default())?;
//! let mut ring = Ring::new(source, 4, 4096)?;
//! let at = |offset| Extent { file: FileId(0), offset, bytes: 3000 };
//! ring.request(&[at(0), at(3000), at(6000)])?;
//! while ring.pending() > 0 {
//!     let tile = ring.next()?;
//!     assert_eq!(*tile, [7; 3000]);
//! } // each tile drops here, and its slot is read into again
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

#[allow(unsafe_code)] // memory of the system's own, see the SAFETY comments there
mod buffer;
mod error;
mod files;
mod gather;
mod overlap;
mod queues;
mod reader;
mod readers;
mod ring;
pub mod simulated;
mod source;
mod system;

pub use buffer::{AlignedBuffer, PAGE_BYTES};
pub use error::{Error, ErrorKind};
pub use files::{DEPTH_DEFAULT, DEPTH_URING_DEFAULT, IoChoice, SourceOptions, open};
pub use reader::Positional;
pub use ring::{CacheSlot, Ring, Stats, Tile};
pub use source::{Done, Gathered, IoKind, Read, Source, buffer_bytes};
