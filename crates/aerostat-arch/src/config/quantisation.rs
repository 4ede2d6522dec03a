//! What `quantization_config` says.

use aerostat_checkpoint::DType;
use serde_json::Value;

use super::keys::Keys;
use crate::error::Error;

/// Refuses quantised checkpoints but those whose codes and scales are found by the layer that finds tensors.
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

/// What is said of quantisation: of a model of several towers, beside them.
pub(crate) fn config<'a>(keys: &Keys<'a>) -> Option<&'a Value> {
    keys.whole("quantization_config").or(keys.json("quantization_config"))
}

pub(crate) fn is_int8(config: &Value) -> bool {
    config.get("load_in_8bit").and_then(Value::as_bool) == Some(true)
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
