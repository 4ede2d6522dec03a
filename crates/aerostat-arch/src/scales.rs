//! Matrices of codes, and the small tensors that scale them: what `quantization_config` says.

use aerostat_checkpoint::{Code, DType, Tensor};
use serde_json::Value;

use crate::beside::Scales;
use crate::error::Error;
use crate::keys::Keys;
use crate::spec::Vector;
use crate::tensors::{Part, Tensors};

/// Refuses quantised checkpoints but those whose codes and scales are found here or in [`crate::codes`].
pub(crate) fn refuse_unknown(keys: &Keys<'_>) -> Result<(), Error> {
    let Some(config) = config(keys) else { return Ok(()) };
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    // Refuses what a key says, unless it is absent or one of these.
    let only = |key: &str, known: &[&str]| match config.get(key).filter(|value| !value.is_null()) {
        Some(value) => {
            let named = value.as_str().map_or_else(|| value.to_string(), str::to_ascii_lowercase);
            match known.contains(&named.as_str()) {
                true => Ok(()),
                false => Err(keys.unsupported(format!(
                    "weights quantised with `{key}`: {value} are not supported (`quant_method`: {}, supported: {})",
                    text("quant_method").unwrap_or("none"),
                    known.join(", ")
                ))),
            }
        }
        None => Ok(()),
    };
    match text("quant_method").unwrap_or("unknown") {
        "fp8" | "mxfp4" => Ok(()),
        "compressed-tensors" => match text("format") {
            None => Err(keys.config("`quantization_config` names no `format`")),
            Some(_) => only("format", &["float-quantized", "pack-quantized"]),
        },
        "bitsandbytes" => match is_int8(config) {
            true => Ok(()),
            false => only("load_in_4bit", &["true"]).and(only("bnb_4bit_quant_storage", &["uint8"])),
        },
        "gptq" => {
            only("bits", &["2", "3", "4", "8"])?;
            only("checkpoint_format", &["gptq", "gptq_v2"])?;
            only("pack_dtype", &["int32"])?;
            only("is_marlin_format", &["false"])
        }
        "awq" => {
            only("bits", &["4"])?;
            only("version", &["gemm"])?;
            only("backend", &["autoawq"])
        }
        method => Err(keys.unsupported(format!("weights quantised by `{method}` are not supported"))),
    }
}

/// Whether a tensor is a matrix of codes that [`find`] can find scales for.
pub(crate) fn are_codes(keys: &Keys<'_>, tensor: &Tensor) -> bool {
    let Some(config) = config(keys) else { return false };
    match tensor.dtype {
        DType::F8_E4M3 | DType::F8_E5M2 => !is_int8(config),
        DType::I8 => is_int8(config),
        _ => false,
    }
}

/// What is said of quantisation: of a model of several towers, beside them.
pub(crate) fn config<'a>(keys: &Keys<'a>) -> Option<&'a Value> {
    keys.whole("quantization_config").or(keys.json("quantization_config"))
}

fn is_int8(config: &Value) -> bool {
    config.get("load_in_8bit").and_then(Value::as_bool) == Some(true)
}

/// The scales of a part of a matrix of codes, if it is one: of 128 x 128 blocks or whatever the configuration says, of rows,
/// or one for all. What is rounded to is what the libraries round to: transformers to the model's type, compressed-tensors
/// and bitsandbytes to that of the scales.
pub(crate) fn find(
    tensors: &Tensors<'_>,
    codes: &Tensor,
    part: Part,
    cols: usize,
) -> Result<Option<Scales>, Error> {
    let Some(config) = config(tensors.keys).filter(|_| are_codes(tensors.keys, codes)) else {
        return Ok(None);
    };
    let by_transformers = config.get("quant_method").and_then(Value::as_str) == Some("fp8");
    let names = match is_int8(config) {
        true => vec![format!("{}.SCB", codes.name.trim_end_matches(".weight"))],
        false => vec![format!("{}_scale_inv", codes.name), format!("{}_scale", codes.name)],
    };
    let Some(scales) = names.iter().find_map(|name| tensors.catalog.get(name)) else {
        return Err(
            tensors.bad(codes, format!("it is {}, but there is no `{}`", codes.dtype.name(), names[0]))
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
        _ => return Err(tensors.bad(scales, format!("they are not the scales of {:?}", codes.shape))),
    };
    let wanted = [part.total.div_ceil(blocks.0.max(1)) as u64, cols.div_ceil(blocks.1.max(1)) as u64];
    let is_grid =
        scales.shape == wanted || wanted.iter().product::<u64>() == scales.elements() && wanted[1] == 1;
    if !is_grid {
        return Err(tensors.bad(scales, format!("{wanted:?} are the blocks of {:?}", codes.shape)));
    }
    if !matches!(scales.dtype, DType::F32 | DType::BF16 | DType::F16) {
        return Err(tensors.bad(scales, format!("scales in {} are not supported yet", scales.dtype.name())));
    }
    let rounding = if by_transformers { model_type(tensors.keys) } else { scales.dtype };
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
pub(crate) fn whole(tensor: &Tensor) -> Vector {
    Vector {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        len: tensor.elements() as usize,
        extent: tensor.extent,
        runs: None,
        offset: 0.0,
    }
}

/// The type that the configuration gives the model; bf16 where it gives none.
pub(crate) fn model_type(keys: &Keys<'_>) -> DType {
    let named = keys.json("dtype").or_else(|| keys.json("torch_dtype")).and_then(Value::as_str);
    match named {
        Some("float16") => DType::F16,
        Some("float32") => DType::F32,
        _ => DType::BF16,
    }
}
