"""What the Python peers share: arguments, prompts, and a clock that ticks at every step of `generate`."""

import argparse
import json
import resource
import sys
import time

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

PROMPT_TOKENS = 4
VOCAB = 32000


def arguments():
    """The command line that run.py uses for every Python peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--split", help="AirLLM: the folder with its copy of the model")
    parser.add_argument("--no-gc", action="store_true", help="AirLLM: without a garbage collection after every layer")
    parser.add_argument("--prepare", action="store_true", help="AirLLM: only write its copy of the model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return options


def prompts(rows):
    """The prompts of all peers: `rows` of the same length, all different."""
    return [[3 + (row * 977 + place * 131) % (VOCAB - 10) for place in range(PROMPT_TOKENS)] for row in range(rows)]


def ids_and_mask(rows):
    ids = torch.tensor(prompts(rows))
    return ids, torch.ones_like(ids)


class Clock(StoppingCriteria):
    """Notes time, CPU time and bytes read after every step; stops nothing."""

    def __init__(self):
        self.stamps = [stamp()]

    def __call__(self, input_ids, scores, **kwargs):
        self.stamps.append(stamp())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def stamp():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [time.monotonic(), usage.ru_utime + usage.ru_stime, usage.ru_inblock * 512]


def generate(model, options):
    """Greedy decoding of a fixed number of tokens; print the stamps and the first row's tokens."""
    ids, mask = ids_and_mask(options.rows)
    clock = Clock()
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=options.steps, min_new_tokens=options.steps,
                             do_sample=False, use_cache=True, pad_token_id=0,
                             stopping_criteria=StoppingCriteriaList([clock]))
    tell(clock, out[0, ids.shape[1]:].tolist())


def tell(clock, tokens):
    json.dump({"stamps": clock.stamps, "tokens": tokens}, sys.stdout)
    print()
