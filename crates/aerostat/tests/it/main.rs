//! Runs of whole models against independent results and against each other.

mod batch;
mod exactness;
mod faults;
mod golden;
mod tasks;
