//! Runs of whole models against independent results and against each other.

mod batch;
mod exactness;
mod experts;
mod faults;
mod golden;
mod tasks;
