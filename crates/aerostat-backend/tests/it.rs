//! The tests of this crate that need fixtures or a whole device.

mod coded;
mod formats;
mod reference;
