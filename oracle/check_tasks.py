#!/usr/bin/env python3
"""Compare classify, embed and distil of an aerostat binary with transformers on real models, row by row.

usage: check_tasks.py MODELS BINARY [NAME ...]

MODELS holds a folder in Hugging Face layout for each NAME (smollm2 and gemma3 when none is given). The texts are
fixtures/reviews.csv. Prints one table and exits 1 when anything differs by more than the bounds below.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = ["smollm2", "gemma3"]
REVIEWS = pathlib.Path(__file__).parents[1] / "fixtures/reviews.csv"
LABELS = ["positive", "negative"]
TEMPLATE = "Review: {text}\nIs this review positive or negative? It is"
K = 10
LOGPROB_ERROR_MAX = 2e-3
# Of a model's largest hidden state, or of 1 if that is less.
HIDDEN_ERROR_MAX = 1e-3
# Two likelihoods this close may change places.
TIE_GAP_MAX = 1e-4
DISTILLED = 12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("binary")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    texts = list(csv.DictReader(REVIEWS.open()))
    rows = []
    for name in args.names or NAMES:
        folder = args.models / name
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            ours = Ours(args.binary, folder, pathlib.Path(scratch))
            rows += [(name, *row) for row in classify(ours, model, tokenizer, texts)]
            rows += [(name, *row) for row in embed(ours, model, tokenizer, texts)]
            rows += [(name, *row) for row in distil(ours, model, tokenizer, texts)]
    print_table(rows)
    sys.exit(0 if rows and all(row[2] for row in rows) else 1)


class Ours:
    """The binary, with files of its own."""

    def __init__(self, binary, folder, scratch):
        self.binary, self.folder, self.scratch = binary, folder, scratch

    def run(self, command, output, *flags, source=REVIEWS):
        path = self.scratch / output
        call = [self.binary, command, str(self.folder), "-i", str(source), "-o", str(path), "--kv", "f32", *flags]
        done = subprocess.run([*call, "--quiet"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(call)}\nexit {done.returncode}: {done.stderr.strip()}")
        return path

    def lines(self, command, *flags):
        return [json.loads(line) for line in self.run(command, "out.jsonl", *flags).read_text().splitlines()]

    def first(self, count):
        """A table of the first few texts."""
        path = self.scratch / "few.csv"
        path.write_text("".join(REVIEWS.read_text().splitlines(keepends=True)[: count + 1]))
        return path


def logprobs(model, ids):
    """Of every next token, after every position."""
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def classify(ours, model, tokenizer, texts):
    got = ours.lines("classify", "--labels", ",".join(LABELS), "--template", TEMPLATE, "--key", "id")
    same, right, worst = 0, 0, 0.0
    for text, row in zip(texts, got, strict=True):
        assert row["id"] == text["id"], (row, text)
        given = tokenizer(TEMPLATE.replace("{text}", text["text"]))["input_ids"]
        want = {}
        for label in LABELS:
            ids = tokenizer(f" {label}", add_special_tokens=False)["input_ids"]
            table = logprobs(model, given + ids)
            want[label] = sum(float(table[len(given) + i - 1, id]) for i, id in enumerate(ids))
        worst = max(worst, *(abs(want[label] - row["logprobs"][label]) for label in LABELS))
        choice = max(LABELS, key=want.get)
        same += choice == row["label"]
        right += row["label"] == text["label"]
    yield "classify: choices", same == len(texts), f"{same} of {len(texts)} as transformers; {right} are right"
    yield "classify: log-probabilities", worst <= LOGPROB_ERROR_MAX, f"worst error {worst:.1e}"


def embed(ours, model, tokenizer, texts):
    blocks = model.config.num_hidden_layers
    states = []
    for text in texts:
        ids = torch.tensor([tokenizer(text["text"])["input_ids"]])
        states.append([s[0] for s in model(ids, output_hidden_states=True).hidden_states])
    pools = {
        "mean": lambda s: s.mean(0),
        "last": lambda s: s[-1],
        "cls": lambda s: s[0],
        "weighted": lambda s: (s * torch.arange(1, len(s) + 1)[:, None]).sum(0) / (len(s) * (len(s) + 1) / 2),
    }
    # What transformers gives for the last block has passed the final norm.
    for layer in [None, 0, 1, blocks // 2, blocks - 1]:
        for name, pool in pools.items():
            flags = ["--pooling", name] + ([] if layer is None else ["--layer", str(layer)])
            got = numpy.load(ours.run("embed", "out.npy", *flags))
            want = torch.stack([pool(s[-1 if layer is None else layer]) for s in states]).numpy()
            error = float(numpy.abs(got - want).max() / max(1.0, numpy.abs(want).max()))
            what = "final" if layer is None else f"layer {layer}"
            yield f"embed: {what}, {name}", error <= HIDDEN_ERROR_MAX, f"worst error {error:.1e}"


def distil(ours, model, tokenizer, texts):
    got = load_file(ours.run("distil", "out.safetensors", "-k", str(K), source=ours.first(DISTILLED)))
    worst, ties, wrong, positions = 0.0, 0, 0, 0
    for i, text in enumerate(texts[:DISTILLED]):
        rows = slice(int(got["offsets"][i]), int(got["offsets"][i + 1]))
        ids = tokenizer(text["text"])["input_ids"]
        assert ids == got["tokens"][rows].tolist(), f"row {i}: tokens differ"
        table = logprobs(model, ids)
        best, order = table.topk(K)
        for position, (mine, told) in enumerate(zip(got["ids"][rows], got["logprobs"][rows])):
            positions += 1
            for rank in range(K):
                if mine[rank] != order[position, rank]:
                    gap = abs(float(table[position, int(mine[rank])] - best[position, rank]))
                    ties, wrong = ties + (gap <= TIE_GAP_MAX), wrong + (gap > TIE_GAP_MAX)
            # They are stored as f16.
            stored = best[position].numpy()
            room = numpy.spacing(numpy.abs(stored).astype(numpy.float16)).astype(numpy.float32) / 2
            worst = max(worst, float((numpy.abs(told.astype(numpy.float32) - stored) - room).max()))
    detail = f"{positions} positions, {wrong} other ids, {ties} in ties"
    yield f"distil: top {K}", wrong == 0, detail
    yield "distil: log-probabilities", worst <= LOGPROB_ERROR_MAX, f"worst error beside rounding {max(worst, 0.0):.1e}"


def print_table(rows):
    width = max(len(row[1]) for row in rows)
    for model, what, passed, detail in rows:
        print(f"{model:<8}  {what:<{width}}  {'ok' if passed else 'FAILED':<6}  {detail}")


if __name__ == "__main__":
    main()
