"""Writes `hidden.json` beside some fixtures: their hidden states as transformers computes them, pooled in each way.

    python oracle/hidden.py
"""

import json
import pathlib

import torch
import transformers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NAMES = ["llama_gqa_bf16", "gemma3", "gpt_neox", "cohere", "opt_sums", "opt_350m", "bloom_post"]


def pooled(states):
    """All poolings of hidden states `[tokens, hidden]`."""
    weights = torch.arange(1, len(states) + 1, dtype=torch.float64)
    states = states.double()
    return {
        "mean": states.mean(0),
        "last_token": states[-1],
        "cls": states[0],
        "weighted": (states * weights[:, None]).sum(0) / weights.sum(),
    }


def case(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    layers = {"first": out.hidden_states[0], "second": out.hidden_states[1], "last": out.hidden_states[-1]}
    if layers["last"].shape != layers["first"].shape:  # what the head reads is narrower than the stream
        del layers["last"]
    vectors = {
        f"{layer}_{pooling}": [float(f"{v:.7g}") for v in vector]
        for layer, states in layers.items()
        for pooling, vector in pooled(states[0]).items()
    }
    return {"ids": ids} | vectors


def main():
    for name in NAMES:
        folder = FIXTURES / name
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        prompts = json.loads((folder / "expected.json").read_text())["prompts"]
        cases = [case(model, prompt["ids"]) for prompt in prompts[:2]]
        record = {"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases}
        (folder / "hidden.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
