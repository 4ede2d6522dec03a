//! What layers take from others, and how wide their MLPs are for it.

use super::keys::Keys;
use crate::error::Error;
use crate::family::{Family, keys};

/// Elements of the further input that each layer reads, if there are such inputs.
pub(super) fn layer_inputs(keys: &Keys<'_>, family: &Family) -> Result<Option<usize>, Error> {
    match keys.number(&keys::LAYER_INPUT)? {
        Some(width) if family.layer_inputs && width != 0.0 => keys.count(&keys::LAYER_INPUT).map(Some),
        _ => Ok(None),
    }
}

/// For each layer the one whose keys and values it reads in place of own: of those that have some the last of its kind, with a
/// window or without.
pub(super) fn keys_of(
    keys: &Keys<'_>,
    family: &Family,
    windows: &[Option<usize>],
) -> Result<Vec<Option<usize>>, Error> {
    let shared = match keys.number(&keys::SHARED_KV)? {
        Some(shared) if family.shares_kv && shared != 0.0 => keys.count(&keys::SHARED_KV)?,
        _ => 0,
    };
    let Some(first) = windows.len().checked_sub(shared) else {
        return Err(keys.config(format!("{shared} of {} layers cannot share keys", windows.len())));
    };
    let own = windows.iter().take(first);
    let of = |(i, window): (usize, &Option<usize>)| {
        if i < first {
            return Ok(None);
        }
        let last = own.clone().rposition(|own| own.is_some() == window.is_some());
        let none =
            || keys.config(format!("no layer of its kind has keys and values that layer {i} could share"));
        last.map(Some).ok_or_else(none)
    };
    windows.iter().enumerate().map(of).collect()
}

/// The width of each layer's MLP: twice the usual where keys are shared, if the configuration says so; GGUF lists them.
pub(super) fn mlp_widths(
    keys: &Keys<'_>,
    family: &Family,
    intermediate: usize,
    kv_of: &[Option<usize>],
) -> Result<Vec<usize>, Error> {
    if family.shares_kv
        && let Some(list) = keys.counts_listed(&keys::INTERMEDIATE)?
    {
        return match list.len() == kv_of.len() {
            true => Ok(list),
            false => Err(keys.config(format!(
                "{} widths of MLPs are listed for {} layers",
                list.len(),
                kv_of.len()
            ))),
        };
    }
    let double = family.shares_kv && keys.flag("use_double_wide_mlp", false)?;
    Ok(kv_of.iter().map(|of| if double && of.is_some() { 2 * intermediate } else { intermediate }).collect())
}
