//! The numbers of mixtures of experts.

use super::factors;
use super::keys::Keys;
use crate::error::Error;
use crate::family::{Key, Mixture, keys};
use crate::spec::{Groups, Score};

const LATENT: Key = Key { hugging_face: &["moe_latent_size"], gguf: "moe_latent_size" };

/// The numbers of a mixture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixtureShape {
    pub(crate) experts: usize,
    pub(crate) width: usize,
    pub(crate) chosen: usize,
    pub(crate) groups: Option<Groups>,
    pub(crate) normalise: Option<(f32, f32)>,
    pub(crate) score: Score,
    pub(crate) scale: f32,
    /// Elements of what experts read and give; `None`: as many as of the stream.
    pub(crate) latent: Option<usize>,
}

impl MixtureShape {
    /// `None` where the configuration names no experts.
    pub(crate) fn read(
        keys: &Keys<'_>,
        mixture: &Mixture,
        intermediate: usize,
    ) -> Result<Option<Self>, Error> {
        const EXPERTS_MAX: usize = 1 << 16;
        if !mixture.enabled.is_empty() && !keys.is_gguf() && !keys.flag(mixture.enabled, false)? {
            return Ok(None);
        }
        if keys.number(&keys::EXPERTS)? == Some(0.0) {
            return Ok(None);
        }
        let Some(experts) = keys.count_if_given(&keys::EXPERTS)? else { return Ok(None) };
        let chosen = match keys.count_if_given(&keys::EXPERTS_CHOSEN)?.or(mixture.chosen) {
            Some(_) if matches!(mixture.score, Score::SparseMixer(_)) => 2,
            Some(chosen) => chosen,
            None => keys.count(&keys::EXPERTS_CHOSEN)?,
        };
        // No router chooses among one.
        if experts == 1 && chosen > 1 {
            return Ok(None);
        }
        if chosen > experts || experts > EXPERTS_MAX {
            return Err(keys.config(format!("a row cannot use {chosen} of {experts} experts")));
        }
        let width = keys.count_or(&keys::EXPERT_WIDTH, intermediate)?;
        let normalised = match keys.is_gguf() {
            true => keys.switch(&keys::EXPERT_NORMALISE, mixture.gguf_normalise)?,
            false => factors::switch(keys, mixture.normalise)?,
        };
        let groups = groups(keys, mixture, experts)?;
        // Where a group is as good as its best expert, those of closed groups that are chosen count nothing.
        let chosen = match groups {
            Some(Groups { count, open, best: 1, .. }) => chosen.min(open * (experts / count)),
            _ => chosen,
        };
        let (added, least) = mixture.normalise_guard;
        let least = keys.number(&keys::EXPERT_NORMALISE_LEAST)?.map_or(least, |n| n as f32);
        let jitter = keys.number(&keys::EXPERT_JITTER)?;
        let latent = match mixture.names.latent_down {
            "" => None,
            _ => keys.count_if_given(&LATENT)?,
        };
        Ok(Some(Self {
            experts,
            width,
            chosen,
            groups,
            normalise: normalised.then_some((added, least)),
            score: match mixture.score {
                Score::SparseMixer(default) => Score::SparseMixer(jitter.map_or(default, |n| n as f32)),
                other => other,
            },
            scale: factors::factor(keys, mixture.scale, 1, 1)?.unwrap_or(1.0),
            latent,
        }))
    }
}

fn groups(keys: &Keys<'_>, mixture: &Mixture, experts: usize) -> Result<Option<Groups>, Error> {
    let Some(rule) = mixture.groups else { return Ok(None) };
    // GGUF files of DeepSeek V2 and V3 differ by what router outputs become.
    let (best, closed_score_zero) = match keys.gguf_number("expert_gating_func") {
        Some(2.0) => (2, false),
        _ => rule,
    };
    // Where a group is as good as its best expert, groups count by this method alone.
    if best == 1 && !keys.is_gguf() && keys.text("topk_method")? != Some("group_limited_greedy") {
        return Ok(None);
    }
    let count = keys.count_or(&keys::EXPERT_GROUPS, 1)?;
    let open = keys.count_or(&keys::EXPERT_GROUPS_OPEN, count)?;
    if count == 1 || open == count && closed_score_zero {
        return Ok(None);
    }
    let size = experts / count;
    if !experts.is_multiple_of(count) || open > count || best > size {
        return Err(keys.config(format!(
            "{experts} experts cannot be {count} groups of which {open} are open by their best {best}"
        )));
    }
    Ok(Some(Groups { count, open, best, closed_score_zero }))
}
