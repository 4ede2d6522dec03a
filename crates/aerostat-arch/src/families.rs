//! The families that are known, one file each.

mod arcee;
mod axk1;
mod baichuan;
mod bamba;
mod bert;
mod bloom;
mod chatglm;
mod codegen;
mod cohere;
mod cohere2;
mod cwm;
mod deepseek_v2;
mod deepseek_v3;
mod deepseek_v32;
mod distilbert;
mod dots1;
mod ernie4_5;
mod ernie4_5_moe;
mod eurobert;
mod exaone4;
mod exaone_moe;
mod falcon;
mod falcon_h1;
mod falcon_mamba;
mod flex_olmo;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod glm4v;
mod glm4v_moe;
mod glm_moe_dsa;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod granite_swa;
mod granitemoe;
mod granitemoe_swa;
mod granitemoehybrid;
mod gte;
mod helium;
mod hunyuan;
mod hy_v3;
mod hyperclovax;
mod internlm;
mod internlm2;
mod internlm3;
mod iquestcoder;
mod jais2;
mod jamba;
mod jina_v2;
mod jina_v3;
mod lfm2;
mod lfm2_moe;
mod llama;
mod llama4;
mod mamba;
mod mamba2;
mod mellum;
mod minicpm;
mod minicpm3;
mod minimax;
mod minimax_m2;
mod ministral;
mod ministral3;
mod mistral;
mod mistral4;
mod mixtral;
mod modernbert;
mod mpnet;
mod mpt;
mod nanochat;
mod nemotron;
mod nemotron_h;
mod nomic_bert;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod openai_gpt;
mod opt;
mod persimmon;
mod phi;
mod phi3;
mod phimoe;
mod qwen;
mod qwen2;
mod qwen2_moe;
mod qwen2_vl;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod qwen3_vl;
mod qwen3_vl_moe;
mod roberta;
mod seed_oss;
mod smollm3;
mod solar_open;
mod stablelm;
mod starcoder2;
mod vaultgemma;
mod youtu;

use crate::family::Family;

/// Every family, in the order in which GGUF architectures are looked up.
pub const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &iquestcoder::FAMILY,
    &llama4::FAMILY,
    &cwm::FAMILY,
    &gpt_oss::FAMILY,
    &mistral::FAMILY,
    &ministral::FAMILY,
    &ministral3::FAMILY,
    &mistral4::FAMILY,
    &qwen::FAMILY,
    &qwen2::FAMILY,
    &qwen2_vl::FAMILY,
    &qwen3::FAMILY,
    &qwen3_vl::FAMILY,
    &mixtral::FAMILY,
    &qwen2_moe::FAMILY,
    &qwen3_moe::FAMILY,
    &qwen3_vl_moe::FAMILY,
    &qwen3_next::FAMILY,
    &qwen3_5::FAMILY,
    &qwen3_5_moe::FAMILY,
    &mellum::FAMILY,
    &minimax_m2::FAMILY,
    &minimax::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &vaultgemma::FAMILY,
    &gemma3::FAMILY,
    &gemma3n::FAMILY,
    &gemma4::FAMILY,
    &phi3::FAMILY,
    &phi::FAMILY,
    &phimoe::FAMILY,
    &smollm3::FAMILY,
    &olmo::FAMILY,
    &olmo2::FAMILY,
    &olmo3::FAMILY,
    &olmoe::FAMILY,
    &flex_olmo::FAMILY,
    &granite::FAMILY,
    &granitemoe::FAMILY,
    &granite_swa::FAMILY,
    &granitemoe_swa::FAMILY,
    &granitemoehybrid::FAMILY,
    &hyperclovax::FAMILY,
    &minicpm::FAMILY,
    &minicpm3::FAMILY,
    &cohere::FAMILY,
    &cohere2::FAMILY,
    &chatglm::FAMILY,
    &glm::FAMILY,
    &glm4::FAMILY,
    &glm4v::FAMILY,
    &glm4_moe::FAMILY,
    &glm4v_moe::FAMILY,
    &solar_open::FAMILY,
    &dots1::FAMILY,
    &starcoder2::FAMILY,
    &stablelm::FAMILY,
    &persimmon::FAMILY,
    &gpt_neox::FAMILY,
    &gptj::FAMILY,
    &codegen::FAMILY,
    &gpt2::FAMILY,
    &openai_gpt::FAMILY,
    &gpt_bigcode::FAMILY,
    &gpt_neo::FAMILY,
    &falcon::FAMILY,
    &falcon_h1::FAMILY,
    &opt::FAMILY,
    &baichuan::FAMILY,
    &bloom::FAMILY,
    &mpt::FAMILY,
    &hunyuan::FAMILY,
    &hy_v3::FAMILY,
    &internlm::FAMILY,
    &internlm2::FAMILY,
    &internlm3::FAMILY,
    &ernie4_5::FAMILY,
    &ernie4_5_moe::FAMILY,
    &nemotron::FAMILY,
    &nemotron_h::FAMILY,
    &arcee::FAMILY,
    &lfm2::FAMILY,
    &lfm2_moe::FAMILY,
    &mamba2::FAMILY,
    &mamba::FAMILY,
    &falcon_mamba::FAMILY,
    &jamba::FAMILY,
    &bamba::FAMILY,
    &jais2::FAMILY,
    &exaone4::FAMILY,
    &exaone_moe::FAMILY,
    &seed_oss::FAMILY,
    &helium::FAMILY,
    &nanochat::FAMILY,
    &deepseek_v2::FAMILY,
    &deepseek_v3::FAMILY,
    &youtu::FAMILY,
    &axk1::FAMILY,
    &deepseek_v32::FAMILY,
    &glm_moe_dsa::FAMILY,
    &glm4_moe_lite::FAMILY,
    &bert::FAMILY,
    &roberta::FAMILY,
    &distilbert::FAMILY,
    &mpnet::FAMILY,
    &modernbert::FAMILY,
    &eurobert::FAMILY,
    &nomic_bert::FAMILY,
    &gte::FAMILY,
    &jina_v2::FAMILY,
    &jina_v3::FAMILY,
];
