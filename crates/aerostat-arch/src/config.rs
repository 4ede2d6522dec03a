//! What a configuration says: the family it is of, and the numbers that the family leaves open.

mod attention;
mod choice;
mod class;
mod delta;
mod factors;
mod keys;
mod latent;
mod layers;
mod mixers;
mod mixture;
pub(crate) mod quantisation;
mod rope;
mod shape;
mod sharing;
mod space;
mod special_tokens;
mod streams;
mod towers;

pub(crate) use choice::{CLASSIFIES, find_family, refuse};
pub(crate) use keys::Keys;
pub(crate) use latent::{IndexShape, LatentShape};
pub(crate) use mixture::MixtureShape;
pub(crate) use rope::RopeConfig;
pub(crate) use shape::{LayerShape, Norms, Shape};
pub(crate) use space::SelectiveShape;
pub(crate) use special_tokens::{bos, eos};
pub use towers::TOWERS;
