//! The tokens that begin and end a text, as configurations name them.

use aerostat_checkpoint::Config;
use serde_json::Value;

use super::keys::text_config;

const GGUF_EOS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Ids of the tokens that end a sequence.
pub(crate) fn eos(config: &Config) -> Vec<u32> {
    special_tokens(config, "eos_token_id", GGUF_EOS)
}

/// Id of the token that begins a text, if the configuration names one.
pub(crate) fn bos(config: &Config) -> Option<u32> {
    special_tokens(config, "bos_token_id", &["tokenizer.ggml.bos_token_id"]).first().copied()
}

/// Token ids under a key of `generation_config.json`, else of `config.json`, or under GGUF keys.
fn special_tokens(config: &Config, key: &str, gguf: &[&str]) -> Vec<u32> {
    let ids = |v: &Value| -> Vec<u32> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        v.as_array().map_or_else(|| one(v).into_iter().collect(), |a| a.iter().filter_map(one).collect())
    };
    match config {
        Config::HuggingFace(hf) => {
            let generation = hf.generation.as_ref().and_then(|g| g.get(key)).map(ids).unwrap_or_default();
            let own =
                || [text_config(hf), &hf.config].iter().find_map(|c| c.get(key).map(ids)).unwrap_or_default();
            if generation.is_empty() { own() } else { generation }
        }
        Config::Gguf(meta) => {
            let mut found: Vec<u32> =
                gguf.iter().filter_map(|k| meta.u64(k)).filter_map(|n| u32::try_from(n).ok()).collect();
            found.dedup();
            found
        }
    }
}
