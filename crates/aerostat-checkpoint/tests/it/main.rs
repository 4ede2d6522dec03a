//! Tests of opening checkpoints: valid, broken, hostile, and written by other programs.

mod corpus;
mod folder;
mod oracle;
mod pickles;
mod seeds;
mod write;
