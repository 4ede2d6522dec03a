//! Model families as data: from a configuration and a catalogue to a [`ModelSpec`].
//!
//! A family is one file of data in `families/`; [`describe`] joins it with a checkpoint's configuration and tensors.
//! There is no forward code here: `aerostat-model` runs every [`ModelSpec`] through one block forward.

#![forbid(unsafe_code)]

mod build;
mod error;
mod families;
mod family;
mod keys;
mod mixture;
mod rope;
mod scales;
mod shape;
mod spec;
mod tensors;

pub use build::describe;
pub use error::{Error, ErrorKind};
pub use families::FAMILIES;
pub use family::{
    Bias, Defaults, Factor, Family, Fused, HeadNorms, Names, Refused, Rotated, Softcap, Switch, Windows,
};
pub use keys::Key;
pub use mixture::{Mixture, MixtureNames};
pub use rope::{Divisors, RopeSpec, Scaling};
pub use spec::{
    Activation, AttentionSpec, Block, Experts, Groups, Head, Joined, Linear, Matrix, MlpSpec, ModelSpec,
    Norm, NormKind, Positions, Role, RopeStyle, Routing, Runs, Scales, Score, Vector,
};
