//! One block.

use super::attention::AttentionSpec;
use super::delta::DeltaNet;
use super::experts::Experts;
use super::latent::Latent;
use super::matrix::{Linear, Role};
use super::mlp::MlpSpec;
use super::norm::Norm;
use super::vector::Vector;

/// The token mixer of a block: what lets positions see those before them.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has few of them, and both are large")]
pub enum Mixer {
    /// Attention to what the KV cache holds.
    Attention(AttentionSpec),
    /// A gated delta net, which has a recurrent state.
    Delta(DeltaNet),
}

/// One block: token mixer and MLP, the outputs of which are added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// Makes the residual stream of the embeddings, `[hidden, embedding width]`, in the first block of models whose embeddings
    /// have a width of their own.
    pub project_in: Option<Linear>,
    /// Norm of what the token mixer reads; `None`: it reads the residual stream itself.
    pub attention_norm: Option<Norm>,
    /// Attention, or what stands in its place.
    pub mixer: Mixer,
    /// Norm of the token mixer's output, before it is added.
    pub attention_post_norm: Option<Norm>,
    /// Norm of what the MLP reads; `None`: it reads what attention reads in a parallel block, else the stream itself.
    pub mlp_norm: Option<Norm>,
    /// The MLP that every row uses; with experts, the one they share.
    pub mlp: Option<MlpSpec>,
    /// MLPs of which each row uses some; their outputs are added to that of `mlp`.
    pub experts: Option<Experts>,
    /// Norm of the MLP's output, before it is added.
    pub mlp_post_norm: Option<Norm>,
    /// Whether the MLP reads the residual stream as it was before attention.
    pub parallel: bool,
    /// Whether what `attention_norm` and `mlp_norm` give takes the place of the residual stream.
    pub norms_replace: bool,
    /// Factor on the outputs of token mixer and MLP, before they are added; `None`: 1.
    pub residual_scale: Option<f32>,
    /// Norm of the residual stream at the end of the block, which takes its place.
    pub end_norm: Option<Norm>,
    /// Factor on the residual stream at the end of the block, `[1]`; `None`: 1.
    pub scale: Option<Vector>,
    /// Makes what the head reads, `[embedding width, hidden]`, after the final norm, in the last block of models whose
    /// embeddings have a width of their own.
    pub project_out: Option<Linear>,
}

impl Block {
    /// The linear maps that every sweep uses, in the order of use, which is the order of the plan's steps and of the program's products: all but those of experts.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let attention = self.attention().into_iter().flat_map(AttentionSpec::linears);
        let mixer = attention.chain(self.delta().into_iter().flat_map(DeltaNet::linears));
        let router = self.experts.iter().flat_map(|experts| {
            let shared = experts.shared_gate.iter().map(|linear| (Role::SharedGate, linear));
            shared.chain([(Role::Router, &experts.router)])
        });
        let project_in = self.project_in.iter().map(|linear| (Role::ProjectIn, linear));
        let project_out = self.project_out.iter().map(|linear| (Role::ProjectOut, linear));
        let own = mixer.chain(router).chain(self.mlp.iter().flat_map(MlpSpec::linears));
        project_in.chain(own).chain(project_out)
    }

    /// Its attention; `None`: it has a delta net.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::Delta(_) => None,
        }
    }

    /// Its delta net; `None`: it has attention.
    pub fn delta(&self) -> Option<&DeltaNet> {
        match &self.mixer {
            Mixer::Delta(delta) => Some(delta),
            Mixer::Attention(_) => None,
        }
    }

    /// How its keys and values are compressed, if they are.
    pub fn latent(&self) -> Option<&Latent> {
        self.attention().and_then(|attention| attention.latent.as_ref())
    }

    /// Key/value heads that the KV cache holds of it; 1 of compressed ones, and 1 (of no elements) of a delta net.
    pub fn cache_heads(&self) -> usize {
        self.attention()
            .map_or(1, |attention| if attention.latent.is_some() { 1 } else { attention.kv_heads })
    }

    /// All its linear maps, those of experts too, in no particular order, to change them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let (attention, delta) = match &mut self.mixer {
            Mixer::Attention(attention) => (Some(attention.linears_mut()), None),
            Mixer::Delta(delta) => (None, Some(delta.linears_mut())),
        };
        let mixer = attention.into_iter().flatten().chain(delta.into_iter().flatten());
        let (routers, mlps) = match &mut self.experts {
            Some(Experts { router, shared_gate, mlps, .. }) => {
                (Some([router].into_iter().chain(shared_gate)), mlps.as_mut_slice())
            }
            None => (None, [].as_mut_slice()),
        };
        let mlps = self.mlp.iter_mut().chain(mlps);
        let mlps = mlps.flat_map(|m| m.gate.iter_mut().chain([&mut m.up, &mut m.down]));
        let routers = routers.into_iter().flatten();
        mixer.chain(routers).chain(mlps).chain(&mut self.project_in).chain(&mut self.project_out)
    }

    /// Its small tensors: norms, biases and what its parts have besides.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let (before, after) =
            ([&self.attention_norm, &self.mlp_norm], [&self.attention_post_norm, &self.mlp_post_norm]);
        let around = before.into_iter().chain(after).chain([&self.end_norm]);
        let heads = self.attention().into_iter().flat_map(|a| [&a.q_norm, &a.k_norm, &a.v_norm]);
        let norms = around.chain(heads).flatten().chain(self.delta().map(|delta| &delta.norm));
        let norms = norms.chain(self.latent().into_iter().flat_map(Latent::norms)).flat_map(Norm::vectors);
        let sinks = self.attention().and_then(|a| a.sinks.as_ref());
        let delta = self.delta().into_iter().flat_map(DeltaNet::vectors);
        let experts = self.experts.iter().flat_map(Experts::linears);
        let correction = self.experts.iter().filter_map(|e| e.routing.correction.as_ref());
        let biases = self.linears().chain(experts).filter_map(|(_, linear)| linear.bias.as_ref());
        norms.chain(correction).chain(biases).chain(sinks).chain(delta).chain(&self.scale)
    }
}
