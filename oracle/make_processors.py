#!/usr/bin/env python3
"""Make crates/aerostat/tests/it/processors.json: what transformers' processors of logits do, and answers under them.

usage: make_processors.py [--out FILE]

`steps`: random logits after random tokens, settings of a generation config, and the scores that tokens are drawn from.
`answers`: greedy answers of the fixture `llama` with each setting, its hidden states and its logits. Of version
5.23.0 of transformers (requirements.txt).
"""

import argparse
import json
import math
import pathlib
import random

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "fixtures/llama"
VOCAB = 16
EOS = [2, 5]
MAX_NEW_TOKENS = 6

STEPS = [
    {},
    {"min_new_tokens": 3},
    {"min_length": 7},
    {"suppress_tokens": [0, 9]},
    {"begin_suppress_tokens": [3, 4]},
    {"bad_words_ids": [[7], [1, 8], [2], [4, 4, 6]]},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"forced_bos_token_id": 6, "begin_suppress_tokens": [1]},
    {"forced_eos_token_id": 5},
    {"forced_eos_token_id": [2, 5], "suppress_tokens": [2]},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2, "bad_words_ids": [[3]], "min_new_tokens": 2},
    {"do_sample": True, "temperature": 0.7},
    {"do_sample": True, "temperature": 1.4, "top_k": 5},
    {"do_sample": True, "top_p": 0.8},
    {"do_sample": True, "min_p": 0.1},
    {"do_sample": True, "temperature": 0.6, "top_k": 6, "top_p": 0.9, "repetition_penalty": 1.2},
]

ANSWERS = [
    {},
    {"suppress_tokens": "first"},
    {"bad_words_ids": "first"},
    {"bad_words_ids": "pair"},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.8},
    {"begin_suppress_tokens": "first"},
    {"forced_eos_token_id": 2},
    {"min_new_tokens": 5, "eos_token_id": "second"},
    {"eos_token_id": "second"},
]


def scores(settings, tokens, prompt, logits):
    """What transformers draws the next token from."""
    config = transformers.GenerationConfig(
        **{"top_k": 0, **settings}, eos_token_id=EOS, max_length=prompt + MAX_NEW_TOKENS
    )
    config._eos_token_tensor = torch.tensor(EOS)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))
    processors = model._get_logits_processor(config, input_ids_seq_length=prompt, device="cpu")
    found = processors(torch.tensor([tokens]), torch.tensor([logits]))[0].tolist()
    return [None if math.isinf(value) else value for value in found]


def steps():
    draw = random.Random(7)
    for settings in STEPS:
        for prompt, length in [(1, 1), (1, 2), (3, 3), (3, 5), (4, 9), (1, 6)]:
            tokens = [draw.choice([1, 3, 4, 4, 6, 8]) for _ in range(length)]
            logits = [round(draw.gauss(0, 2), 3) for _ in range(VOCAB)]
            found = scores(settings, tokens, prompt, logits)
            yield {"settings": settings, "tokens": tokens, "prompt": prompt, "logits": logits, "scores": found}


def answers():
    model = transformers.AutoModelForCausalLM.from_pretrained(FIXTURE, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    prompt = [5, 9, 11, 9, 11]
    ids = torch.tensor([prompt])
    free = model.generate(ids, max_new_tokens=10, do_sample=False)[0, len(prompt):].tolist()
    named = {"first": [free[0]], "pair": [[free[0], free[1]], [prompt[-1], free[0]]], "second": free[2]}
    for settings in ANSWERS:
        filled = {name: named.get(value, value) if isinstance(value, str) else value
                  for name, value in settings.items()}
        if settings == {"bad_words_ids": "first"}:
            filled = {"bad_words_ids": [[free[0]]]}
        found = model.generate(ids, max_new_tokens=10, do_sample=False, **filled)
        yield {"settings": filled, "prompt": prompt, "answer": found[0, len(prompt):].tolist()}


def states():
    model = transformers.AutoModelForCausalLM.from_pretrained(FIXTURE, dtype=torch.float32)
    ids = [3, 17, 90, 4]
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_hidden_states=True)
    short = lambda rows: [[round(value, 7) for value in row] for row in rows.tolist()]
    return {"ids": ids, "hidden": [short(layer[0]) for layer in found.hidden_states],
            "logits": short(found.logits[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "crates/aerostat/tests/it/processors.json")
    args = parser.parse_args()
    made = {"transformers": transformers.__version__, "eos": EOS, "max_new_tokens": MAX_NEW_TOKENS}
    parts = {"steps": list(steps()), "answers": list(answers()), "states": [states()]}
    lines = [json.dumps(made)[1:-1]]
    for name, rows in parts.items():
        lines.append(f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    args.out.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
