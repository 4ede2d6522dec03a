//! The tests of this crate that need fixtures or a whole device.

mod formats;
mod quantised;
mod reference;
