//! The numbers of a configuration.

use serde_json::Value;

use super::attention::{alibi, clip, growth, kv_heads, looks_ahead, score_scale, wide_heads};
use super::delta::DeltaLayers;
use super::factors::{activation, factor, softcap, switch};
use super::keys::Keys;
use super::latent::{self, LatentShape};
use super::layers::{listed_rotation, own_bases, ropes, rotated, windows, with_bases};
use super::mixers::{listed_count, mixers};
use super::mixture::MixtureShape;
use super::rope::RopeConfig;
use super::sharing::{keys_of, layer_inputs, mlp_widths};
use super::space::Spaces;
use super::streams::{StreamShape, cuts};
use crate::error::Error;
use crate::family::{Family, HeadNorms, Key, MixerKind, Mixers, PostNorms, StreamNorms, Windows, keys};
use crate::spec::{Activation, Alibi, Growth, Window};

/// Positions of a model that does not say how many it was made for.
const CONTEXT_UNSAID: usize = 2048;

/// The numbers of a configuration.
pub(crate) struct Shape {
    /// First to last.
    pub(crate) layers: Vec<LayerShape>,
    pub(crate) hidden: usize,
    /// The width of embeddings.
    pub(crate) embedding: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) context: usize,
    pub(crate) eps: f32,
    pub(crate) scale: f32,
    /// It is divided by the layer's number, from 1.
    pub(crate) scale_by_layer: bool,
    pub(crate) embedding_scale: Option<f32>,
    pub(crate) residual_scale: Option<f32>,
    pub(crate) stream_scales: Option<StreamFactors>,
    pub(crate) logit_scale: Option<f32>,
    pub(crate) attention_softcap: Option<f32>,
    pub(crate) final_softcap: Option<f32>,
    pub(crate) activation: Activation,
    pub(crate) parallel: bool,
    pub(crate) stream_norms: Norms,
    pub(crate) final_norm: bool,
    /// The rows of the head are divided by their norms.
    pub(crate) normalised_head: bool,
    pub(crate) post_norms: bool,
    pub(crate) alibi: Option<Alibi>,
    /// Rows also see what follows them.
    pub(crate) ahead: bool,
    /// Queries and keys are normalised; in GGUF, tensors decide where the family leaves it open.
    pub(crate) head_norms: bool,
    pub(crate) clip: Option<f32>,
    pub(crate) growth: Option<Growth>,
    /// Size and number of key/value heads of layers without a window, and whether their values are their keys, where
    /// they differ from others.
    pub(crate) wide: Option<(usize, usize, bool)>,
    /// Elements of a further input that each layer reads; `None`: there is none.
    pub(crate) layer_inputs: Option<usize>,
    /// Several residual streams; `None`: there is one.
    pub(crate) streams: Option<StreamShape>,
    /// The rotations that layers choose from.
    pub(crate) ropes: Vec<RopeConfig>,
    pub(crate) latent: Option<LatentShape>,
    pub(crate) delta: Option<DeltaLayers>,
    pub(crate) spaces: Spaces,
    pub(crate) half_factors: HalfFactors,
    pub(crate) mixture: Option<MixtureShape>,
}

/// What differs from layer to layer.
pub(crate) struct LayerShape {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// The positions it sees; `None`: all up to a row's own.
    pub(crate) window: Option<Window>,
    /// Its rotation among [`Shape::ropes`]; `None`: it is not rotated.
    pub(crate) rope: Option<usize>,
    pub(crate) mixer: MixerKind,
    /// The layer whose keys and values it reads; `None`: it has its own.
    pub(crate) kv_of: Option<usize>,
    /// So many standard deviations above their mean inputs of its MLP's gate are cut at; `None`: they are not.
    pub(crate) cut: Option<f32>,
    /// The width of its MLP, if that is no expert.
    pub(crate) intermediate: usize,
    /// Whether it has an indexer of its own.
    pub(crate) has_indexer: bool,
}

/// What norms before attention and MLP do to the stream.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Norms {
    Kept,
    Replaced,
    Sums,
}

impl Shape {
    pub(crate) fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, Error> {
        let count = layer_count(keys, family)?;
        let hidden = keys.count(&keys::HIDDEN)?;
        let attends = !matches!(family.mixers, Mixers::Spaces);
        let heads = if attends { keys.count(&keys::HEADS)? } else { 1 };
        let kv_heads = if attends { kv_heads(keys, family, heads)? } else { 1 };
        let latent = match &family.latent {
            Some(family) => Some(LatentShape::read(keys, family, count, (hidden / heads).max(1))?),
            None => None,
        };
        let head_dim = match &latent {
            Some(latent) => latent.nope + latent.rope,
            None => head_dim(keys, family, (hidden / heads).max(1))?,
        };
        let intermediate = if attends { intermediate(keys, family, hidden)? } else { hidden };
        let half_factors = HalfFactors::read(keys, family)?;
        let activation = activation(keys, family)?;
        let delta = delta_layers(keys, family, activation, count)?;
        let alibi = alibi(keys, family)?;
        let ahead = looks_ahead(keys, family)?;
        let stream_norms = stream_norms(keys, family)?;
        let own_head = keys.has_own_head();
        let (layers, ropes) =
            read_layers(keys, family, (count, ahead, intermediate), alibi, latent.as_ref(), delta.as_ref())?;
        Ok(Self {
            layers,
            hidden,
            embedding: embedding_width(keys, family, hidden)?,
            heads,
            kv_heads,
            head_dim,
            context: keys.positions_if_given(&keys::CONTEXT)?.unwrap_or(CONTEXT_UNSAID),
            eps: eps(keys, family)?,
            scale: score_scale(keys, family, count, hidden / heads, head_dim)?
                * latent.as_ref().map_or(1.0, |latent| latent.scale)
                * half_factors.scores,
            half_factors,
            scale_by_layer: family.score_switches && keys.flag("scale_attn_by_inverse_layer_idx", false)?,
            embedding_scale: factor(keys, family.embedding_scale, hidden, count)?,
            residual_scale: factor(keys, family.residual_scale, hidden, count)?,
            stream_scales: StreamFactors::read(keys, family)?,
            logit_scale: factor(keys, family.logit_scale, hidden, count)?.filter(|_| own_head),
            attention_softcap: softcap(keys, &keys::ATTENTION_SOFTCAP, family.softcaps.0)?,
            final_softcap: softcap(keys, &keys::FINAL_SOFTCAP, family.softcaps.1)?.filter(|_| own_head),
            activation,
            parallel: switch(keys, family.parallel)?,
            stream_norms,
            final_norm: stream_norms != Norms::Sums && has_final_norm(keys, family)?,
            normalised_head: normalised_head(keys, family),
            post_norms: post_norms(keys, family)?,
            alibi,
            ahead,
            head_norms: head_norms(keys, family)?,
            growth: growth(keys, family)?,
            clip: if family.clip_qkv { clip(keys)? } else { None },
            wide: if family.wide_heads { Some(wide_heads(keys, family, heads, kv_heads)?) } else { None },
            layer_inputs: layer_inputs(keys, family)?,
            streams: StreamShape::read(keys, family)?,
            ropes,
            latent,
            delta,
            spaces: Spaces::read(keys, family, hidden)?,
            mixture: match &family.mixture {
                Some(mixture) => MixtureShape::read(keys, mixture, intermediate)?,
                None => None,
            },
        })
    }

    /// Size and number of key/value heads of a layer, and whether its values are its keys.
    pub(crate) fn heads_of(&self, layer: &LayerShape) -> (usize, usize, bool) {
        self.wide.filter(|_| layer.window.is_none()).unwrap_or((self.head_dim, self.kv_heads, false))
    }
}

/// The delta nets of a family that has some.
fn delta_layers(
    keys: &Keys<'_>,
    family: &Family,
    activation: Activation,
    count: usize,
) -> Result<Option<DeltaLayers>, Error> {
    match &family.delta {
        Some(_) if activation != Activation::Silu => {
            Err(keys
                .unsupported("short convolutions with another `hidden_act` than `silu` are not supported"))
        }
        Some(delta) => DeltaLayers::read(keys, delta, count).map(Some),
        None => Ok(None),
    }
}

/// The layers, and the rotations that they choose from.
fn read_layers(
    keys: &Keys<'_>,
    family: &Family,
    (count, ahead, intermediate): (usize, bool, usize),
    alibi: Option<Alibi>,
    latent: Option<&LatentShape>,
    delta: Option<&DeltaLayers>,
) -> Result<(Vec<LayerShape>, Vec<RopeConfig>), Error> {
    let listed = listed_rotation(keys, family, count)?;
    let windows = windows(keys, family, &listed)?;
    let (bases, distinct) = own_bases(keys, count)?;
    let rotated = rotated(keys, family, &windows, &bases, listed)?;
    let ropes = match latent {
        None if !distinct.is_empty() => with_bases(keys, &distinct)?,
        None => ropes(keys, family)?,
        Some(_) => latent::ropes(keys, ropes(keys, family)?),
    };
    let whole = !keys.flag("is_causal", true)?;
    let mixers = mixers(keys, family, delta, count)?;
    let kv_of = keys_of(keys, family, &windows)?;
    let cuts = cuts(keys, family, count)?;
    let widths = mlp_widths(keys, family, intermediate, &kv_of)?;
    let of = |index: usize| {
        let nothing = || keys.defect(format!("nothing is known of layer {index} of {count}"));
        let window = *windows.get(index).ok_or_else(nothing)?;
        let is_rotated = *rotated.get(index).ok_or_else(nothing)? && alibi.is_none();
        let rope = match bases.get(index).filter(|_| is_rotated) {
            _ if !is_rotated => None,
            Some(base) => Some(distinct.iter().position(|b| b == base).ok_or_else(nothing)?),
            None => Some(usize::from(window.is_some() && ropes.len() > 1)),
        };
        let own = latent.and_then(|latent| latent.index.as_ref()).map(|index| &index.own);
        Ok(LayerShape {
            index,
            window: window.map(match family.windows {
                // Of causal models that were made to look ahead all of it lies on each side, else half.
                _ if ahead && whole => Window::Around,
                _ if ahead => |n| Window::Around(n / 2),
                Windows::ChunksOfRotated => Window::Chunk,
                _ => Window::Last,
            }),
            rope,
            mixer: *mixers.get(index).ok_or_else(nothing)?,
            kv_of: *kv_of.get(index).ok_or_else(nothing)?,
            cut: *cuts.get(index).ok_or_else(nothing)?,
            intermediate: *widths.get(index).ok_or_else(nothing)?,
            has_indexer: match own {
                Some(own) => *own.get(index).ok_or_else(nothing)?,
                None => false,
            },
        })
    };
    Ok(((0..count).map(of).collect::<Result<_, _>>()?, ropes))
}

/// How many layers there are.
fn layer_count(keys: &Keys<'_>, family: &Family) -> Result<usize, Error> {
    const LAYERS_MAX: usize = 10_000;
    // GGUF counts the layers that predict further tokens, which come last and are not used.
    let further = keys.gguf_number("nextn_predict_layers").unwrap_or(0.0) as usize;
    let layers = match (keys.count_if_given(&keys::LAYERS)?, listed_count(keys, family)?) {
        (None, Some(listed)) => listed,
        _ => keys.count(&keys::LAYERS)?.saturating_sub(further),
    };
    match layers > LAYERS_MAX {
        true => Err(keys.config(format!("{layers} layers are more than any model has"))),
        false => Ok(layers),
    }
}

/// What norms add to the mean of squares: of GGUF too nobody guesses it, since llama.cpp asks for it.
fn eps(keys: &Keys<'_>, family: &Family) -> Result<f32, Error> {
    if let Some(eps) = family.eps.filter(|_| !keys.is_gguf()) {
        return Ok(eps);
    }
    let key = family.eps_key();
    // GGUF has a key for each kind of norm, and some converters take the other.
    let other = || match keys.is_gguf() {
        true => [&keys::EPS, &keys::LAYER_EPS]
            .into_iter()
            .find_map(|key| keys.number(key).transpose())
            .transpose(),
        false => Ok(None),
    };
    let given = match keys.number(key)? {
        None => other()?,
        given => given,
    };
    match given {
        Some(eps) if eps >= 0.0 && eps.is_finite() => Ok(eps as f32),
        Some(eps) => {
            Err(keys.config(format!("`{}` is {eps}; a number of at least 0 is needed", keys.name(key)?)))
        }
        None => Err(keys.config(format!("`{}` is missing", keys.name(key)?))),
    }
}

fn embedding_width(keys: &Keys<'_>, family: &Family, hidden: usize) -> Result<usize, Error> {
    match family.projections {
        Some(_) if !keys.is_gguf() => keys.count_or(&keys::EMBEDDING_WIDTH, hidden),
        _ => Ok(hidden),
    }
}

fn stream_norms(keys: &Keys<'_>, family: &Family) -> Result<Norms, Error> {
    Ok(match family.stream_norms {
        StreamNorms::ReplacedIf(key) if keys.flag(key, false)? => Norms::Replaced,
        StreamNorms::Replaced => Norms::Replaced,
        StreamNorms::Kept | StreamNorms::ReplacedIf(_) => Norms::Kept,
        StreamNorms::SumsUnless(key) if keys.flag(key, true)? => Norms::Kept,
        StreamNorms::Sums | StreamNorms::SumsUnless(_) => Norms::Sums,
    })
}

/// Whether outputs of attention and MLP are normalised.
fn post_norms(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    match family.post_norms {
        PostNorms::Never | PostNorms::StoredMlp => Ok(false),
        PostNorms::Always => Ok(true),
        PostNorms::Key(key, default) => keys.flag(key, default),
    }
}

/// Whether queries and keys are.
fn head_norms(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    match family.head_norms {
        HeadNorms::Never => Ok(false),
        HeadNorms::Shared | HeadNorms::Row => Ok(true),
        HeadNorms::Bare(_) if keys.is_gguf() => Ok(keys.number(&keys::EXPERTS)? != Some(128.0)),
        HeadNorms::Bare(key) => keys.flag(key, true),
        HeadNorms::Own(key) | HeadNorms::SharedIf(key) => Ok(keys.is_gguf() || keys.flag(key, false)?),
    }
}

fn has_final_norm(keys: &Keys<'_>, family: &Family) -> Result<bool, Error> {
    Ok(family.no_final_norm.is_empty() || !keys.flag(family.no_final_norm, false)?)
}

/// Whether the rows of the head are divided by their norms, as of models that say so.
fn normalised_head(keys: &Keys<'_>, family: &Family) -> bool {
    let large = keys.json("vocab_size").and_then(Value::as_u64) == Some(125_696);
    family.normalised_head && !keys.is_gguf() && (large || keys.json("z_loss_weight").is_some())
}

/// Elements of a head, of layers with a window where others differ.
fn head_dim(keys: &Keys<'_>, family: &Family, usual: usize) -> Result<usize, Error> {
    const SLIDING: Key = Key { hugging_face: &["head_dim"], gguf: "attention.key_length_swa" };
    match if family.wide_heads { keys.count_if_given(&SLIDING)? } else { None } {
        Some(dim) => Ok(dim),
        None => keys.count_or(&keys::HEAD_DIM, usual),
    }
}

/// The width of an MLP that is not an expert.
fn intermediate(keys: &Keys<'_>, family: &Family, hidden: usize) -> Result<usize, Error> {
    if family.shares_kv
        && let Some(least) = keys.counts_listed(&keys::INTERMEDIATE)?.and_then(|list| list.into_iter().min())
    {
        return Ok(least);
    }
    // 0 is said where all layers have experts that share no MLP.
    let given = match keys.number(&keys::DENSE_INTERMEDIATE)?.filter(|dense| *dense != 0.0) {
        Some(_) => keys.count_if_given(&keys::DENSE_INTERMEDIATE)?,
        None => keys.count_if_given(&keys::INTERMEDIATE)?,
    };
    let whole = match given {
        None if !family.gated => 4 * hidden,
        None => keys.count(&keys::INTERMEDIATE)?,
        Some(n) => n,
    };
    match family.convolution {
        Some(_) if keys.flag("block_auto_adjust_ff_dim", false)? => rounded(keys, whole),
        _ => Ok(if family.halved_width { whole / 2 } else { whole }),
    }
}

/// Two thirds of a width, times a factor, up to a whole number of `block_multiple_of`.
fn rounded(keys: &Keys<'_>, whole: usize) -> Result<usize, Error> {
    let multiple = keys.json_whole("block_multiple_of")?.filter(|n| (1..1 << 20).contains(n)).unwrap_or(256);
    let factor = keys.json_number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    let width = (factor * (2 * whole / 3) as f64) as usize;
    match width {
        1..=0x10_0000 => Ok(width.next_multiple_of(multiple as usize)),
        _ => Err(keys.config(format!("`block_ffn_dim_multiplier` makes the MLP {width} wide"))),
    }
}

/// Factors on the stream before something is added to it, and on what is added: attention, lightning attention, the MLP.
#[derive(Clone, Copy)]
pub(crate) struct StreamFactors {
    pub(crate) attention: (f32, f32),
    pub(crate) lightning: (f32, f32),
    pub(crate) mlp: (f32, f32),
}

impl StreamFactors {
    fn read(keys: &Keys<'_>, family: &Family) -> Result<Option<Self>, Error> {
        let Some(own) = family.stream_scales else { return Ok(None) };
        let number = |key: &str| Ok::<_, Error>(keys.json_number(key)?.unwrap_or(1.0) as f32);
        let both = |(stream, added): (&str, &str)| Ok::<_, Error>((number(stream)?, number(added)?));
        Ok(Some(Self {
            attention: both(own.attention)?,
            lightning: both(own.lightning)?,
            mlp: both(own.mlp)?,
        }))
    }
}

/// Factors on the inputs and outputs of attention and MLP, as far as they can be joined.
#[derive(Clone, Copy)]
pub(crate) struct HalfFactors {
    scores: f32,
    /// On attention's output, where a state space lies beside it.
    pub(crate) attention: f32,
    /// On what the MLP's activation is applied to, and on its output.
    pub(crate) mlp: (f32, f32),
}

impl HalfFactors {
    fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, Error> {
        if !family.half_factors {
            return Ok(Self { scores: 1.0, attention: 1.0, mlp: (1.0, 1.0) });
        }
        let number = |key: &str| Ok::<_, Error>(keys.json_number(key)?.unwrap_or(1.0) as f32);
        let input = number("attention_in_multiplier")?;
        if input != 1.0 && keys.flag("attention_bias", false)? {
            return Err(keys.unsupported("`attention_in_multiplier` with `attention_bias` is not supported"));
        }
        let mlp = match keys.json_list("mlp_multipliers")? {
            None => (1.0, 1.0),
            Some(list) => match list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>().as_deref() {
                Some([gate, down]) => (*gate as f32, *down as f32),
                _ => return Err(keys.config("`mlp_multipliers` must be two numbers")),
            },
        };
        // Rotation and attention are linear in keys, queries and values.
        let scores = input * input * number("key_multiplier")?;
        Ok(Self { scores, attention: input * number("attention_out_multiplier")?, mlp })
    }
}
