//! Jobs over real models of the fixtures, and over disks that fail.

mod batches;
mod durability;
mod grammars;
mod mutations;
mod schema;
mod sessions;
mod shards;
mod support;
mod tables;
mod vocabulary;
