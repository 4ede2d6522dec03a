//! Matrices of codes of a byte each (FP8, LLM.int8), and the small tensors that scale them.

use aerostat_checkpoint::{Code, DType, Tensor};
use serde_json::Value;

use super::part::Part;
use super::stored::Stored;
use crate::config::Keys;
use crate::config::quantisation::{config, is_int8, model_type};
use crate::error::Error;
use crate::spec::{Scales, Vector};

/// Whether a tensor is a matrix of codes that [`find`] can find scales for.
pub(super) fn are_codes(keys: &Keys<'_>, tensor: &Tensor) -> bool {
    let Some(config) = config(keys) else { return false };
    match tensor.dtype {
        DType::F8_E4M3 | DType::F8_E5M2 => !is_int8(config),
        DType::I8 => is_int8(config),
        _ => false,
    }
}

/// The scales of a part of a matrix of codes, if it is one: of 128 x 128 blocks or whatever the configuration says, of rows,
/// or one for all. What is rounded to is what the libraries round to: transformers to the model's type, compressed-tensors
/// and bitsandbytes to that of the scales.
pub(super) fn find(
    stored: Stored<'_>,
    codes: &Tensor,
    part: Part,
    cols: usize,
) -> Result<Option<Scales>, Error> {
    let Some(config) = config(stored.keys).filter(|_| are_codes(stored.keys, codes)) else {
        return Ok(None);
    };
    let by_transformers = config.get("quant_method").and_then(Value::as_str) == Some("fp8");
    let names = match is_int8(config) {
        true => vec![format!("{}.SCB", codes.name.trim_end_matches(".weight"))],
        false => vec![format!("{}_scale_inv", codes.name), format!("{}_scale", codes.name)],
    };
    let Some(scales) = names.iter().find_map(|name| stored.get(name)) else {
        return Err(
            stored.bad(codes, format!("it is {}, but there is no `{}`", codes.dtype.name(), names[0]))
        );
    };
    let size = |key: usize| {
        let size = config.get("weight_block_size").and_then(|sizes| sizes.get(key)).and_then(Value::as_u64);
        size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)
    };
    let blocks = match (scales.shape.as_slice(), size(0).zip(size(1))) {
        ([] | [1] | [1, 1], None) => (part.total, cols),
        (&[rows] | &[rows, 1], None) if rows == part.total as u64 => (1, cols),
        (_, Some(blocks)) => blocks,
        _ => return Err(stored.bad(scales, format!("they are not the scales of {:?}", codes.shape))),
    };
    let wanted = [part.total.div_ceil(blocks.0.max(1)) as u64, cols.div_ceil(blocks.1.max(1)) as u64];
    let is_grid =
        scales.shape == wanted || wanted.iter().product::<u64>() == scales.elements() && wanted[1] == 1;
    if !is_grid {
        return Err(stored.bad(scales, format!("{wanted:?} are the blocks of {:?}", codes.shape)));
    }
    if !matches!(scales.dtype, DType::F32 | DType::BF16 | DType::F16) {
        return Err(stored.bad(scales, format!("scales in {} are not supported yet", scales.dtype.name())));
    }
    let rounding = if by_transformers { model_type(stored.keys) } else { scales.dtype };
    let code = match codes.dtype {
        DType::F8_E5M2 => Code::E5M2,
        DType::I8 => Code::I8,
        _ => Code::E4M3,
    };
    Ok(Some(Scales {
        code,
        kept: Some(whole(scales)),
        companions: Vec::new(),
        nested: None,
        block_rows: blocks.0,
        block_cols: blocks.1,
        first_row: part.first,
        rounding,
        state: None,
    }))
}

/// All of a small tensor.
pub(super) fn whole(tensor: &Tensor) -> Vector {
    Vector {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        len: tensor.elements() as usize,
        extent: tensor.extent,
        runs: None,
        offset: 0.0,
    }
}
