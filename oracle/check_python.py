"""The Python package against transformers on real models: greedy sequences, logits, hidden states, losses, padding,
streamers, stopping criteria and logits processors.

    python oracle/check_python.py MODEL [MODEL …]

MODEL is a folder in Hugging Face layout that both can read. Needs torch, transformers and aerostat (the wheel, or
crates/aerostat-python/python on PYTHONPATH). Computes in float32, with keys and values in float32; what the default type of
keys and values (f16) changes is told, and not judged.

Hidden states are to be equal within 1e-3. Some models have states of 10,000 and more, where the next float32 is farther away
than that, and two ways to add the same float32 numbers up differ by several times as much. So where a token's states have
been large, its bound is RELATIVE of the largest that it had up to that layer. (Layers add to what those before them gave; where a
late one takes a large state back, what was rounded off stays. SmolLM2's last does so.) Whether such differences are chance or
a fault is judged by float64, over many texts: at every layer ours may be no farther from it than transformers is (CHANCE for
what so many texts leave to chance).
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
ABSOLUTE, RELATIVE, CHANCE = 1e-3, 2e-6, 1.25
#: Texts by their first words: what the first token becomes is where the largest states are.
WORDS = """The capital of France is Explain quantum computing in one sentence Once upon a time there was Water Yes if class def
import Python He She It We They 1 42 2026 # ( [ { < > * - Hello Dear Paris moon because however Wer Qui 北京 東京 Привет مرحبا . , ! ?
; : … – é ü β ∑ → 😀""".split()
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


def near(ours, theirs):
    """Whether hidden states, layer by layer, are those of transformers; the largest difference, and of which bound."""
    largest, worst, told = 0, 0.0, ""
    for layer, (a, b) in enumerate(zip(ours, theirs)):
        own = b.abs().amax(dim=-1, keepdim=True)
        # The last ones are after the norm, and have a size of their own.
        largest = own if layer in (0, len(theirs) - 1) else torch.maximum(largest, own)
        of_bound = (a - b).abs() / (RELATIVE * largest).clamp(min=ABSOLUTE)
        if float(of_bound.max()) > worst:
            worst = float(of_bound.max())
            told = f"layer {layer}, states up to {float(largest.max()):.4g}, differ by up to {far(a, b):.1e}"
    return len(ours) == len(theirs) and worst <= 1, f"{worst:.2f} of the bound: {told}"


def last_states(model, rows):
    """Hidden states of the last token of each row, in float64."""
    with torch.no_grad():
        return [layer[:, -1].double() for layer in model(rows, output_hidden_states=True).hidden_states]


def precision(path, theirs, ours, tokenizer):
    """How far both are from float64, layer by layer, over texts of a token: root of the mean square over texts of a text's
    relative error. Its largest states come of single numbers, whose error is chance; many texts tell which is nearer."""
    begin = tokenizer("", add_special_tokens=True)["input_ids"][:1]
    rows = torch.tensor([begin + [i] for i in sorted({tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in WORDS})]).long()
    found, wanted = last_states(ours, rows), last_states(theirs, rows)
    exact = last_states(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval(), rows)
    check(f"hidden states of {len(rows)} texts", *near(found, wanted))
    print("       layer  largest   ours to float64  theirs to float64  ours to theirs  elements beyond 1e-3")
    worst = 0.0
    for layer, (a, b, true) in enumerate(zip(found, wanted, exact)):
        size = true.square().mean(dim=-1)
        own, other = (float(((one - true).square().mean(dim=-1) / size).mean().sqrt()) for one in (a, b))
        worst = max(worst, own / other if other else 0.0)
        beyond = int(((a - b).abs() > ABSOLUTE).sum())
        print(f"       {layer:5}  {float(true.abs().max()):7.4g}  {own:15.1e}  {other:17.1e}  {far(a, b):14.1e}  {beyond:6} of {a.numel()}")
    check("no farther from float64 than transformers", worst <= CHANCE, f"at most {worst:.2f} times as far")


def run(path):
    print(path, flush=True)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(path)
    ours = aerostat.AutoModel.from_pretrained(path, kv="f32", progress=False)
    tokenizer = ours.tokenizer
    if their_tokenizer.pad_token is None:
        their_tokenizer.pad_token = their_tokenizer.eos_token
        tokenizer.pad_token = tokenizer.eos_token
    precision(path, theirs, ours, their_tokenizer)
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
    default(path, theirs, their_tokenizer, greedy)


def default(path, theirs, tokenizer, greedy):
    """What keys and values in f16 change."""
    ours = aerostat.AutoModel.from_pretrained(path, progress=False)
    given = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="left")
    mask = given["attention_mask"] == 1
    with torch.no_grad():
        wanted = theirs(**given, output_hidden_states=True)
    found = ours(**given, output_hidden_states=True)
    _, states = near(*([layer[mask] for layer in one.hidden_states] for one in (found, wanted)))
    same = theirs.generate(**given, **greedy).equal(ours.generate(**given, **greedy))
    print(f"  with keys and values in f16: greedy sequences {'equal' if same else 'differ'}, logits {far(found.logits, wanted.logits, mask):.1e}, hidden states {states}")


for path in sys.argv[1:]:
    run(path)
print("failures:", failures)
sys.exit(failures > 0)
