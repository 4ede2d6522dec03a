"""AirLLM on batches of prompts of mixed lengths, padded on the left, each batch until its longest answer is done.

Install: as airllm_run.py says.
"""

import argparse
import contextlib
import json
import sys

import airllm
import airllm.airllm_base
import steps
import torch
from transformers import StoppingCriteriaList


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("batches", help="a JSON file: a list of batches, each with `prompts` (token ids) and `answer`")
    parser.add_argument("--split", help="the folder with its copy of the model")
    parser.add_argument("--steps-max", type=int, help="end a batch after so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-gc", action="store_true", help="without a garbage collection after every layer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.no_gc:
        airllm.airllm_base.clean_memory = lambda: None
    with contextlib.redirect_stdout(sys.stderr):
        model = airllm.AutoModel.from_pretrained(options.model, device="cpu", layer_shards_saving_path=options.split)
    with open(options.batches) as file:
        for batch in json.load(file):
            print(json.dumps(run(model, batch, options.steps_max)), flush=True)


def run(model, batch, steps_max):
    """One batch: what it was, and a stamp before and after every step."""
    prompts, answer = batch["prompts"], batch["answer"]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    count = min(answer, steps_max or answer)
    clock = steps.Clock()
    with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
        model.generate(ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False,
                       use_cache=True, pad_token_id=0, stopping_criteria=StoppingCriteriaList([clock]))
    return {"rows": len(prompts), "prompt": longest, "answer": answer, "stamps": [stamp[0] for stamp in clock.stamps]}


main()
