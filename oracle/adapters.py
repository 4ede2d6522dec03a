#!/usr/bin/env python3
"""Makes fixtures/adapters: LoRA adapters of fixtures, as PEFT saves them, and what transformers computes with them.

usage: adapters.py [FIXTURES]

Needs peft beside requirements.txt (0.18.0). Each adapter's matrices are random, so that both factors matter. Nothing is
merged: the logits are those of PEFT's own forward pass.
"""

import json
import pathlib
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
ALL = "all-linear"
CASES = {
    # name: (base, what LoraConfig is told)
    "llama": ("llama", dict(r=3, lora_alpha=6, target_modules=ALL)),
    "llama_attention": ("llama_gqa_bf16", dict(r=4, target_modules=["q_proj", "v_proj"])),
    "llama_patterns": ("llama", dict(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "o_proj", "down_proj"],
        rank_pattern={"down_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 3, "down_proj": 5})),
    "phi3": ("phi3", dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])),
    "gpt2": ("gpt2", dict(r=2, lora_alpha=4, fan_in_fan_out=True, target_modules=["c_attn", "c_proj", "c_fc"])),
    "gpt_neox": ("gpt_neox", dict(r=2, lora_alpha=2, target_modules=["query_key_value", "dense_4h_to_h"])),
    "qwen3_moe": ("qwen3_moe", dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj"])),
}


def main():
    fixtures = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "fixtures")
    for seed, (name, (base, options)) in enumerate(CASES.items()):
        make(fixtures / "adapters" / name, fixtures / base, options, seed)


@torch.no_grad()
def make(out, base, options, seed):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for parameter in (p for n, p in adapted.named_parameters() if "lora_" in n):
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    adapted.eval()
    out.mkdir(parents=True, exist_ok=True)
    adapted.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    prompts = [prompt(length, model.config.vocab_size, seed + length) for length in (1, 7, 20)]
    records = [one_prompt(adapted, ids) for ids in prompts]
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    moved = (plain(torch.tensor([prompts[1]])).logits - adapted(torch.tensor([prompts[1]])).logits).abs().max()
    assert moved > 0.05, f"{out.name} changes nothing"
    (out / "expected.json").write_text(json.dumps(dict(
        base=base.name, transformers=transformers.__version__, torch=torch.__version__.split("+")[0], peft="0.18.0", seed=seed,
        prompts=records)) + "\n")
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base.name
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    print(out.name, float(moved))


def prompt(length, vocab_size, seed):
    return torch.randint(3, vocab_size, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def short(values):
    """As few digits as give the same float32."""
    return [float(str(value)) for value in values.numpy()]


def one_prompt(model, ids):
    logits = model(torch.tensor([ids])).logits[0].float()
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:], dtype=torch.long)]
    greedy = list(ids)
    for _ in range(8):
        greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    return {"ids": ids, "logprobs": [None, *short(chosen)], "logits_last": short(logits[-1]),
            "greedy": greedy[len(ids):]}


if __name__ == "__main__":
    main()
