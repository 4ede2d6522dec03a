//! Model families as data: from a configuration and a catalogue to a [`ModelSpec`].
//!
//! A family is one file of data in `families/`; [`describe`] joins it with a checkpoint's configuration and tensors.
//! There is no forward code here: `aerostat-model` runs every [`ModelSpec`] through one block forward.

#![forbid(unsafe_code)]

mod attention;
mod beside;
mod build;
mod codes;
mod delta;
mod error;
mod families;
mod family;
mod keys;
mod latent;
mod mixture;
mod rope;
mod scales;
mod shape;
mod spec;
mod tensors;
mod towers;

pub use attention::{Alibi, AttentionSpec, AttentionWidths, Growth, Window};
pub use beside::{Beside, Companion, Nested, Scales, State};
pub use build::describe;
pub use delta::{DeltaFamily, DeltaNames, DeltaNet, DeltaShape};
pub use error::{Error, ErrorKind};
pub use families::FAMILIES;
pub use family::{
    AlibiRule, Bias, Defaults, Factor, Family, Fused, HeadNorms, Names, PostNorms, Refused, Rotated, Softcap,
    StreamNorms, Switch, Temperature, Windows,
};
pub use keys::Key;
pub use latent::{Indexer, Latent, LatentFamily, LatentNames, Selection};
pub use mixture::{Mixture, MixtureNames};
pub use rope::{Divisors, RopeSpec, Scaling};
pub use spec::{
    Activation, Block, Experts, Groups, Head, Joined, Linear, Matrix, Mixer, MlpSpec, ModelSpec, Norm,
    NormKind, Positions, Role, RopeStyle, Routing, Runs, Score, Vector,
};
pub use towers::TOWERS;
