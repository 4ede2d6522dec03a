"""The Python package against transformers on real models: greedy sequences, logits, hidden states, losses, padding,
streamers, stopping criteria and logits processors.

    python oracle/check_python.py MODEL [MODEL …]

MODEL is a folder in Hugging Face layout that both can read. Needs torch, transformers and aerostat (the wheel, or
crates/aerostat-python/python on PYTHONPATH). Computes in float32, with keys and values in float32.

Hidden states are to be equal within 1e-3. Some models have states of 10,000 and more, where the next float32 is farther away
than that and transformers itself differs from its own results in float64 by several times as much. So there, and only there,
the bounds are STEPS of float32 at the largest state of the layer and of those before it, and FARTHER times what transformers
lacks to float64. (Layers add to what the ones before them gave. Where a late one takes a large state back, what was rounded off
that stays; SmolLM2's last does so.) The table says what was found, layer by layer.
"""

import sys
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

import aerostat

PROMPTS = ["The capital of France is", "Explain quantum computing in one sentence.", "1, 2, 3,"]
NEW_TOKENS = 24
ABSOLUTE, STEPS, FARTHER = 1e-3, 16, 4
failures = 0


def check(name, holds, detail=""):
    global failures
    failures += not holds
    print(f"  {'ok  ' if holds else 'FAIL'} {name} {detail}", flush=True)


class Keep(BaseStreamer):
    def __init__(self):
        self.pieces = []

    def put(self, value):
        self.pieces.append(value.tolist())

    def end(self):
        self.pieces.append("end")


def far(ours, theirs, mask=None):
    """The largest difference, where the mask says that both are of a token."""
    difference = (ours - theirs).abs()
    return float(difference[mask].max() if mask is not None else difference.max())


def bounds(theirs):
    """How far the states of each layer may be from these."""
    sizes = [float(layer.abs().max()) for layer in theirs]
    # The last ones are after the norm, and have a size of their own.
    largest = [max(sizes[: layer + 1]) for layer in range(len(sizes) - 1)] + sizes[-1:]
    return [max(ABSOLUTE, STEPS * float(np.spacing(np.float32(size)))) for size in largest]


def near(ours, theirs):
    """Whether states of layers are those of transformers, and the worst distance by bound."""
    worst = max(far(a, b) / bound for a, b, bound in zip(ours, theirs, bounds(theirs)))
    return len(ours) == len(theirs) and worst <= 1, f"{worst:.2f} of the bound"


def by_layer(found, wanted, exact):
    """Distances of hidden states (rows of tokens), layer by layer; whether they are within the bounds."""
    holds = True
    print("       layer  largest  float32 step    ours-theirs  ours-float64  theirs-float64  beyond 1e-3")
    for layer, (ours, theirs, true, bound) in enumerate(zip(found, wanted, exact, bounds(wanted))):
        difference, own, other = far(ours, theirs), far(ours.double(), true), far(theirs.double(), true)
        beyond = int(((ours - theirs).abs() > ABSOLUTE).sum())
        step = float(np.spacing(np.float32(theirs.abs().max())))
        holds &= difference <= bound and own <= max(ABSOLUTE, FARTHER * other)
        print(f"       {layer:5}  {theirs.abs().max():7.4g}  {step:12.1e}  {difference:13.1e} {own:13.1e} {other:15.1e}  {beyond:6} of {ours.numel()}")
    return holds


def run(path):
    print(path, flush=True)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(path)
    ours = aerostat.AutoModel.from_pretrained(path, kv="f32", progress=False)
    tokenizer = ours.tokenizer
    if their_tokenizer.pad_token is None:
        their_tokenizer.pad_token = their_tokenizer.eos_token
        tokenizer.pad_token = tokenizer.eos_token
    greedy = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": their_tokenizer.pad_token_id}
    for side in ("left", "right"):
        given = their_tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side=side)
        same = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side=side)
        check(f"tokens, padded {side}", given["input_ids"].equal(torch.Tensor(same["input_ids"]).long()))
        if side == "left":
            begun = time.monotonic()
            wanted = theirs.generate(**given, **greedy)
            middle = time.monotonic()
            found = ours.generate(**same, **greedy)
            check("greedy sequences", wanted.equal(found), f"({middle - begun:.1f} s, {time.monotonic() - middle:.1f} s)")
        labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        if side == "left":
            # What padding predicts counts for transformers and is nothing.
            first = given["attention_mask"].argmax(dim=1)
            labels[torch.arange(len(first)), first] = -100
        with torch.no_grad():
            wanted = theirs(**given, labels=labels, output_hidden_states=True)
        found = ours(**same, labels=labels, output_hidden_states=True)
        mask = given["attention_mask"] == 1
        difference = far(found.logits, wanted.logits, mask)
        check(f"logits, padded {side}", difference < 1e-3, f"{difference:.1e}")
        states = [[layer[mask] for layer in one.hidden_states] for one in (found, wanted)]
        check(f"hidden states, padded {side}", *near(*states))
        if side == "right":
            precise = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
            with torch.no_grad():
                exact = [layer[mask] for layer in precise(**given, output_hidden_states=True).hidden_states]
            del precise
            check("hidden states, layer by layer", by_layer(*states, exact))
        difference = abs(float(found.loss) - float(wanted.loss))
        check(f"loss, padded {side}", difference < 1e-4, f"{float(wanted.loss):.5f} {difference:.1e}")
        kept = ours(**same, logits_to_keep=2).logits
        check(f"logits_to_keep, padded {side}", kept.equal(found.logits[:, -2:]))

    one = their_tokenizer(PROMPTS[0], return_tensors="pt")
    keep, their_keep = Keep(), Keep()
    wanted = theirs.generate(**one, **greedy, streamer=their_keep)
    found = ours.generate(**one, **greedy, streamer=keep)
    check("streamer", keep.pieces == their_keep.pieces and wanted.equal(found))

    for name, more in {
        "repetition_penalty": {"repetition_penalty": 1.3},
        "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
        "min_new_tokens": {"min_new_tokens": NEW_TOKENS},
        "bad_words_ids": {"bad_words_ids": [[int(wanted[0, one.input_ids.shape[1]])]]},
        "suppress_tokens": {"suppress_tokens": wanted[0, one.input_ids.shape[1] :][:3].tolist()},
    }.items():
        check(name, theirs.generate(**one, **greedy, **more).equal(ours.generate(**one, **greedy, **more)))
    ends = {"stop_strings": ["."], "tokenizer": their_tokenizer}
    check("stop_strings", theirs.generate(**one, **greedy, **ends).equal(ours.generate(**one, **greedy, **ends)))

    def called(model):
        seen = []

        def processor(ids, scores):
            seen.append(("process", ids.tolist(), tuple(scores.shape)))
            return scores + torch.arange(scores.shape[-1])[None, :] % 7 * 0.5

        def criterion(ids, scores, **_):
            seen.append(("stop", ids.tolist()))
            return torch.tensor([ids.shape[1] >= one.input_ids.shape[1] + 9])

        sequences = model.generate(**one, **greedy, logits_processor=[processor], stopping_criteria=[criterion])
        return sequences, seen

    wanted, found = called(theirs), called(ours)
    check("logits processors and stopping criteria", wanted[0].equal(found[0]) and wanted[1] == found[1])

    detailed = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True, "output_hidden_states": True}
    wanted = theirs.generate(**one, **greedy, **detailed, repetition_penalty=1.2)
    found = ours.generate(**one, **greedy, **detailed, repetition_penalty=1.2)
    for name in ("logits", "scores"):
        pairs = list(zip(found[name], wanted[name]))
        worst = max(far(torch.nan_to_num(a, neginf=0), torch.nan_to_num(b, neginf=0)) for a, b in pairs)
        check(f"{name} of an answer", len(found[name]) == len(wanted[name]) and worst < 1e-3, f"{worst:.1e}")
    shapes = [[tuple(layer.shape) for layer in step] for step in wanted.hidden_states]
    check("hidden states of an answer", shapes == [[tuple(layer.shape) for layer in step] for step in found.hidden_states])
    steps = [near(a, b) for a, b in zip(found.hidden_states, wanted.hidden_states)]
    check("hidden states of an answer, as they are", all(holds for holds, _ in steps), max(text for _, text in steps))


for path in sys.argv[1:]:
    run(path)
print("failures:", failures)
sys.exit(failures > 0)
