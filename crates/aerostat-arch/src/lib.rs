//! Model families as data: from a configuration and a catalogue to a [`ModelSpec`].
//!
//! A family is one file of data in `families/`; [`describe`] joins it with a checkpoint's configuration and tensors.
//! There is no forward code here: `aerostat-model` compiles every [`ModelSpec`] to a program and runs that.
//!
//! The crate is cut by layer, each of which imports those before it alone: what a model is (`spec`), what a family says
//! (`family`, `families`), what a configuration says (`config`), where tensors are found (`find`), and [`describe`], which
//! joins them (`build`). A feature (compressed keys and values, delta nets, experts, rotation) has a part in each.

#![forbid(unsafe_code)]

mod adapter;
mod build;
mod config;
mod error;
mod families;
mod family;
mod find;
#[doc(hidden)]
pub mod fuzzing;
mod spec;

pub use adapter::adapt;
pub use build::describe;
pub use config::TOWERS;
pub use error::{Error, ErrorKind};
pub use families::FAMILIES;
pub use family::{
    AlibiRule, ApartNames, Bias, ConvolutionNames, DeltaFamily, DeltaNames, Encoder, Factor, Family, Fused,
    HeadNorms, Key, LatentFamily, LatentNames, LightningFamily, MixerKind, Mixers, Mixture, MixtureNames,
    Names, PostNorms, Refused, Rotated, SelectiveFamily, SelectiveNorms, Softcap, SpaceFamily, SpaceNames,
    Steps, StreamNorms, StreamScales, Switch, Temperature, Windows,
};
pub use spec::{
    Activation, Alibi, Apart, AttentionSpec, Beside, Block, Companion, DeltaNet, DeltaShape, DistanceBiases,
    Divisors, Experts, GatedConvolution, Groups, Growth, Head, Indexer, Joined, Latent, LayerInput,
    LayerInputs, Lightning, Linear, Matrix, Mixer, Mixing, MlpSpec, ModelSpec, Nested, Norm, NormKind,
    Positions, Role, RopeSpec, RopeStyle, Routing, Runs, Scales, Scaling, Score, Selection, Selective,
    Shortcut, SpaceShape, State, StateSpace, Streams, TokenTypes, Update, Vector, Window,
};
