//! Shapes of tensors from `config.json` and the index of the shards alone, for folders that have nothing else.
//!
//! Names tell what tensors are in the families that name them as Llama does. What comes of it is believed only if all bytes
//! add up to the size that the index states.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Error, ErrorKind};

/// Headers of shards, by file: JSON as safetensors have it, and the bytes of the data behind it.
pub(crate) type Headers = BTreeMap<String, (Map<String, Value>, u64)>;

/// The headers that the shards must have.
pub(crate) fn headers(config: &Value, index: &Value) -> Result<Headers, Error> {
    let refuse = |why: String| {
        let message = format!(
            "{why}: an index without the files that it names says too little. Give the model's id, or put the first bytes of \
             each file there"
        );
        Error::new(ErrorKind::Unsupported, message)
    };
    let sizes = Sizes::of(config)
        .ok_or_else(|| refuse("config.json does not tell the shapes of tensors".to_owned()))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| refuse("the index has no `weight_map`".to_owned()))?;
    let (mut headers, mut total) = (Headers::new(), 0);
    for (name, file) in map {
        let file = file.as_str().filter(|file| crate::id::is_path(file) && file.ends_with(".safetensors"));
        let file =
            file.ok_or_else(|| refuse("the index names a file that is none of safetensors".to_owned()))?;
        let shape = sizes.shape(name).ok_or_else(|| refuse(format!("the shape of `{name}` is not known")))?;
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let bytes = elements.and_then(|n| n.checked_mul(sizes.bytes)).filter(|bytes| *bytes < 1 << 44);
        let bytes = bytes.ok_or_else(|| refuse(format!("`{name}` would be too large")))?;
        let (header, data) = headers.entry(file.to_owned()).or_default();
        let end = *data + bytes;
        header.insert(
            name.clone(),
            json!({"dtype": sizes.dtype, "shape": shape, "data_offsets": [*data, end]}),
        );
        *data = end;
        total += bytes;
    }
    let stated =
        index.get("metadata").and_then(|metadata| metadata.get("total_size")).and_then(Value::as_u64);
    match stated {
        Some(stated) if stated == total => Ok(headers),
        Some(stated) => {
            Err(refuse(format!("the index states {stated} bytes, and the tensors would have {total}")))
        }
        None => Err(refuse("the index states no size".to_owned())),
    }
}

/// What the configuration says of sizes.
struct Sizes {
    dtype: &'static str,
    bytes: u64,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    head: u64,
    inter: u64,
    expert_inter: u64,
    shared_inter: u64,
    experts: u64,
    vocab: u64,
}

impl Sizes {
    fn of(config: &Value) -> Option<Self> {
        let number = |keys: &[&str]| keys.iter().find_map(|key| config.get(key)?.as_u64());
        if config.get("quantization_config").is_some() {
            return None;
        }
        let dtype = ["torch_dtype", "dtype"].iter().find_map(|key| config.get(key)?.as_str())?;
        let (dtype, bytes) = match dtype {
            "bfloat16" => ("BF16", 2),
            "float16" => ("F16", 2),
            "float32" => ("F32", 4),
            _ => return None,
        };
        let (hidden, heads) = (number(&["hidden_size"])?, number(&["num_attention_heads"])?);
        let inter = number(&["intermediate_size"])?;
        let expert_inter = number(&["moe_intermediate_size"]).unwrap_or(inter);
        let shared = number(&["n_shared_experts"]).and_then(|n| n.checked_mul(expert_inter));
        Some(Self {
            dtype,
            bytes,
            hidden,
            heads,
            kv_heads: number(&["num_key_value_heads"]).unwrap_or(heads),
            head: number(&["head_dim"]).or_else(|| hidden.checked_div(heads))?,
            inter,
            expert_inter,
            shared_inter: number(&["shared_expert_intermediate_size"]).or(shared).unwrap_or(expert_inter),
            experts: number(&["num_experts", "num_local_experts", "n_routed_experts"]).unwrap_or(0),
            vocab: number(&["vocab_size"])?,
        })
    }

    fn shape(&self, name: &str) -> Option<Vec<u64>> {
        let (path, kind) = name.rsplit_once('.')?;
        let last = path.rsplit('.').next()?;
        let (queries, keys) = (self.heads.checked_mul(self.head)?, self.kv_heads.checked_mul(self.head)?);
        let inter = match () {
            () if path.contains(".experts.") => self.expert_inter,
            () if path.contains(".shared_expert") => self.shared_inter,
            () => self.inter,
        };
        let (rows, cols) = match last {
            "embed_tokens" | "lm_head" => (self.vocab, self.hidden),
            "q_proj" => (queries, self.hidden),
            "k_proj" | "v_proj" => (keys, self.hidden),
            "o_proj" => (self.hidden, queries),
            "gate_proj" | "up_proj" | "w1" | "w3" => (inter, self.hidden),
            "down_proj" | "w2" => (self.hidden, inter),
            "gate" if self.experts > 0 => (self.experts, self.hidden),
            "shared_expert_gate" => (1, self.hidden),
            "q_norm" | "k_norm" => return (kind == "weight").then(|| vec![self.head]),
            norm if norm == "norm" || norm.ends_with("layernorm") || norm.ends_with("_norm") => {
                return (kind == "weight").then(|| vec![self.hidden]);
            }
            _ => return None,
        };
        match kind {
            "weight" => Some(vec![rows, cols]),
            "bias" => Some(vec![rows]),
            _ => None,
        }
    }
}
