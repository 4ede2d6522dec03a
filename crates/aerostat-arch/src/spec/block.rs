//! One block.

use super::attention::AttentionSpec;
use super::delta::DeltaNet;
use super::experts::Experts;
use super::latent::Latent;
use super::layer_input::LayerInput;
use super::matrix::{Linear, Role};
use super::mlp::MlpSpec;
use super::norm::Norm;
use super::space::{GatedConvolution, Lightning, StateSpace};
use super::streams::{Mixing, Shortcut};
use super::vector::Vector;

/// The token mixer of a block: what lets positions see those before them.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has few of them, and both are large")]
pub enum Mixer {
    /// Attention to what the KV cache holds.
    Attention(AttentionSpec),
    /// A gated delta net, which has a recurrent state.
    Delta(DeltaNet),
    /// A state space, which has a recurrent state.
    Space(StateSpace),
    /// A gated short convolution, which keeps its last inputs.
    Convolution(GatedConvolution),
    /// Lightning attention, which has a recurrent state.
    Lightning(Lightning),
    /// Attention and a state space that read the same; their outputs are added.
    Beside {
        /// The attention.
        attention: AttentionSpec,
        /// Factor on attention's output.
        attention_factor: f32,
        /// The state space.
        space: StateSpace,
    },
    /// None: the block is an MLP alone.
    Nothing,
}

/// One block: token mixer and MLP, the outputs of which are added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// Makes the residual stream of the embeddings, `[hidden, embedding width]`, in the first block of models whose embeddings
    /// have a width of their own.
    pub project_in: Option<Linear>,
    /// Makes further inputs of all blocks of the embeddings, `[blocks * width, hidden]`, in the first block of models that have some
    /// ([`LayerInputs`](super::LayerInputs)).
    pub layer_inputs: Option<Linear>,
    /// Make further residual streams of the embeddings, `[hidden, hidden]`, in the first block of models that have several.
    pub streams_in: Vec<Linear>,
    /// How residual streams are mixed before and after the block; `None`: there is one.
    pub mixing: Option<Mixing>,
    /// A shortcut beside attention; `None`: there is none.
    pub shortcut: Option<Shortcut>,
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
    /// For token mixer and MLP, the factor on the residual stream before their output is added to it, and that on the output; `None`:
    /// 1 each.
    pub stream_scales: Option<[(f32, f32); 2]>,
    /// What is made of the block's part of further inputs, and added after the MLP; `None`: there are none.
    pub layer_input: Option<LayerInput>,
    /// Norm of the residual stream at the end of the block, which takes its place.
    pub end_norm: Option<Norm>,
    /// Factor on the residual stream at the end of the block, `[1]`; `None`: 1.
    pub scale: Option<Vector>,
    /// Make what the head reads of further residual streams, `[hidden, hidden]`, in the last block of models that have several.
    pub streams_out: Vec<Linear>,
    /// Makes what the head reads, `[embedding width, hidden]`, after the final norm, in the last block of models whose
    /// embeddings have a width of their own.
    pub project_out: Option<Linear>,
}

impl Block {
    /// The linear maps that every sweep uses, in the order of use, which is the order of the plan's steps and of the program's products: all but those of experts.
    pub fn linears(&self) -> impl Iterator<Item = (Role, &Linear)> {
        let attention = self.attention().into_iter().flat_map(AttentionSpec::linears);
        let mixer = attention
            .chain(self.delta().into_iter().flat_map(DeltaNet::linears))
            .chain(self.space().into_iter().flat_map(StateSpace::linears))
            .chain(self.convolution().into_iter().flat_map(GatedConvolution::linears))
            .chain(self.lightning().into_iter().flat_map(Lightning::linears));
        let router = self.experts.iter().flat_map(|experts| {
            let shared = experts.shared_gate.iter().map(|linear| (Role::SharedGate, linear));
            let down = experts.latent.iter().map(|(down, _)| (Role::ExpertsDown, down));
            shared.chain([(Role::Router, &experts.router)]).chain(down)
        });
        let experts_up = self.experts.iter().filter_map(|experts| experts.latent.as_ref());
        let experts_up = experts_up.map(|(_, up)| (Role::ExpertsUp, up));
        let project_in = self.project_in.iter().map(|linear| (Role::ProjectIn, linear));
        let project_out = self.project_out.iter().map(|linear| (Role::ProjectOut, linear));
        let own = mixer.chain(router).chain(self.mlp.iter().flat_map(MlpSpec::linears)).chain(experts_up);
        let layer_inputs = self.layer_inputs.iter().map(|linear| (Role::LayerInputs, linear));
        let layer_input = self.layer_input.iter().flat_map(LayerInput::linears);
        let (streams_in, streams_out) = (self.streams_in.iter(), self.streams_out.iter());
        let streams_in = (1u8..).zip(streams_in).map(|(i, linear)| (Role::StreamIn(i), linear));
        let streams_out = (1u8..).zip(streams_out).map(|(i, linear)| (Role::StreamOut(i), linear));
        let shortcut = self.shortcut.iter().flat_map(Shortcut::linears);
        let before = project_in.chain(layer_inputs).chain(streams_in).chain(shortcut);
        before.chain(own).chain(layer_input).chain(streams_out).chain(project_out)
    }

    /// Its attention; `None`: it has none.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) | Mixer::Beside { attention, .. } => Some(attention),
            _ => None,
        }
    }

    /// Its delta net; `None`: it has none.
    pub fn delta(&self) -> Option<&DeltaNet> {
        match &self.mixer {
            Mixer::Delta(delta) => Some(delta),
            _ => None,
        }
    }

    /// Its state space; `None`: it has none.
    pub fn space(&self) -> Option<&StateSpace> {
        match &self.mixer {
            Mixer::Space(space) | Mixer::Beside { space, .. } => Some(space),
            _ => None,
        }
    }

    /// Its gated convolution; `None`: it has none.
    pub fn convolution(&self) -> Option<&GatedConvolution> {
        match &self.mixer {
            Mixer::Convolution(convolution) => Some(convolution),
            _ => None,
        }
    }

    /// Its lightning attention; `None`: it has none.
    pub fn lightning(&self) -> Option<&Lightning> {
        match &self.mixer {
            Mixer::Lightning(lightning) => Some(lightning),
            _ => None,
        }
    }

    /// Elements of recurrent states, in f32, that a sequence keeps of it.
    pub fn state_elements(&self) -> usize {
        self.delta().map_or(0, |delta| delta.shape.history() + delta.shape.state())
            + self.space().map_or(0, |space| space.shape.history() + space.shape.state())
            + self.convolution().map_or(0, GatedConvolution::history)
            + self.lightning().map_or(0, Lightning::state)
    }

    /// How its keys and values are compressed, if they are.
    pub fn latent(&self) -> Option<&Latent> {
        self.attention().and_then(|attention| attention.latent.as_ref())
    }

    /// Key/value heads that the KV cache holds of it; 1 of compressed ones, and 1 (of no elements) where it has no attention, or
    /// attends to what another block wrote.
    pub fn cache_heads(&self) -> usize {
        self.attention()
            .filter(|attention| attention.latent.is_none() && attention.kv_of.is_none())
            .map_or(1, |attention| attention.kv_heads)
    }

    /// All its linear maps, those of experts too, in no particular order, to change them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let (mut attention, mut delta, mut space, mut convolution, mut lightning) =
            (None, None, None, None, None);
        match &mut self.mixer {
            Mixer::Attention(own) => attention = Some(own.linears_mut()),
            Mixer::Delta(own) => delta = Some(own.linears_mut()),
            Mixer::Space(own) => space = Some(own.linears_mut()),
            Mixer::Convolution(own) => convolution = Some(own.linears_mut()),
            Mixer::Lightning(own) => lightning = Some(own.linears_mut()),
            Mixer::Beside { attention: own, space: beside, .. } => {
                (attention, space) = (Some(own.linears_mut()), Some(beside.linears_mut()));
            }
            Mixer::Nothing => {}
        }
        let mixer = attention.into_iter().flatten().chain(delta.into_iter().flatten());
        let mixer = mixer.chain(space.into_iter().flatten()).chain(convolution.into_iter().flatten());
        let mixer = mixer.chain(lightning.into_iter().flatten());
        let (routers, mlps) = match &mut self.experts {
            Some(Experts { router, shared_gate, latent, mlps, .. }) => {
                let latent = latent.iter_mut().flat_map(|(down, up)| [down, up]);
                (Some([router].into_iter().chain(shared_gate).chain(latent)), mlps.as_mut_slice())
            }
            None => (None, [].as_mut_slice()),
        };
        let mlps = self.mlp.iter_mut().chain(mlps);
        let mlps = mlps.flat_map(|m| m.gate.iter_mut().chain([&mut m.up, &mut m.down]));
        let routers = routers.into_iter().flatten();
        let inputs = self.layer_input.iter_mut().flat_map(LayerInput::linears_mut);
        let own = mixer.chain(routers).chain(mlps).chain(inputs).chain(&mut self.layer_inputs);
        let shortcut = self.shortcut.iter_mut().flat_map(Shortcut::linears_mut);
        let own = own.chain(shortcut).chain(&mut self.streams_in).chain(&mut self.streams_out);
        own.chain(&mut self.project_in).chain(&mut self.project_out)
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
        let mixture = self.experts.iter().flat_map(Experts::vectors);
        let input = self.layer_input.iter().flat_map(LayerInput::vectors);
        let mixing = self.mixing.iter().flat_map(Mixing::vectors);
        let input = input.chain(mixing).chain(self.shortcut.iter().flat_map(Shortcut::vectors));
        let biases = self.linears().chain(experts).filter_map(|(_, linear)| linear.bias.as_ref());
        let space = self.space().into_iter().flat_map(StateSpace::vectors);
        let convolution = self.convolution().into_iter().flat_map(GatedConvolution::vectors);
        let lightning = self.lightning().into_iter().flat_map(Lightning::vectors);
        let recurrent = delta.chain(space).chain(convolution).chain(lightning);
        norms.chain(mixture).chain(input).chain(biases).chain(sinks).chain(recurrent).chain(&self.scale)
    }
}
