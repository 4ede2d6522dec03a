//! Where the tensors of a model are found: a catalogue is searched for what family and configuration call for.

mod attention;
mod block;
mod codes;
mod delta;
mod encoder;
mod latent;
mod layer_input;
mod mixture;
mod part;
mod rope;
mod scales;
mod space;
mod stored;
mod streams;
mod tensors;

pub(crate) use stored::PARAMETRISED;
pub(crate) use tensors::Tensors;
