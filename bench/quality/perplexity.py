"""Perplexity of models on a fixed text, by `aerostat score`: `perplexity.py AEROSTAT MODEL…`, all of one vocabulary.

The text is what this repository said of itself when this was written (text.txt), in pieces of 1,600 characters: words that
no model has been trained on.
The first model is the one that others are compared with.
"""

import json
import math
import pathlib
import subprocess
import sys

TEXT = pathlib.Path(__file__).with_name("text.txt")
PIECE_CHARS = 1600
PIECES_MAX = 40


def pieces():
    text = TEXT.read_text()
    return [text[i : i + PIECE_CHARS] for i in range(0, len(text), PIECE_CHARS)][:PIECES_MAX]


def score(aerostat, model):
    """Sum of negative log-probabilities, and how many there are."""
    command = [aerostat, "score", model, "--json", "-q"]
    for piece in pieces():
        command += [f"--prompt={piece}"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    values = [v for result in report["results"] for v in result["logprobs"] if v is not None]
    return -sum(values), len(values)


def main():
    aerostat, *models = sys.argv[1:]
    base = None
    for model in models:
        total, count = score(aerostat, model)
        perplexity = math.exp(total / count)
        base = base or perplexity
        print(f"{model}: {perplexity:.4f} over {count} tokens, {100 * (perplexity / base - 1):+.3f} %", flush=True)


if __name__ == "__main__":
    main()
