"""Perplexity of models on a fixed text, by `aerostat score`: `perplexity.py AEROSTAT MODEL…`, all of one vocabulary.

The text is what this repository said of itself when this was written (text.txt), in pieces of 1,600 characters: words
that no model has been trained on.
The first model is the one that others are compared with, and whose tokenizer is used. What follows "+-" is the standard
error of the difference, token by token.
"""

import json
import math
import pathlib
import statistics
import subprocess
import sys

TEXT = pathlib.Path(__file__).with_name("text.txt")
PIECE_CHARS = 1600
PIECES_MAX = 40


def pieces():
    text = TEXT.read_text()
    return [text[i : i + PIECE_CHARS] for i in range(0, len(text), PIECE_CHARS)][:PIECES_MAX]


def score(aerostat, model, ids=None):
    """Token ids of each piece, and negative log-probabilities of all tokens after the first of each."""
    command = [aerostat, "score", str(model), "--json", "-q"]
    if ids is None:
        command += [f"--prompt={piece}" for piece in pieces()]
    else:
        command += [f"--token-ids={','.join(map(str, piece))}" for piece in ids]
    results = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["results"]
    losses = [-v for result in results for v in result["logprobs"] if v is not None]
    return [result["token_ids"] for result in results], losses


def compared(losses, base):
    """Perplexity, and by how many percent it is more than that of `base`."""
    differences = [a - b for a, b in zip(losses, base, strict=True)]
    more = 100 * (math.exp(statistics.fmean(differences)) - 1)
    error = 100 * statistics.pstdev(differences) / math.sqrt(len(differences))
    return f"perplexity {math.exp(statistics.fmean(losses)):.4f}, {more:+.3f} % +- {error:.3f}"


def main():
    aerostat, first, *others = sys.argv[1:]
    ids, base = score(aerostat, first)
    print(f"{first}: {compared(base, base)} over {len(base)} tokens", flush=True)
    for model in others:
        print(f"{model}: {compared(score(aerostat, model, ids)[1], base)}", flush=True)


if __name__ == "__main__":
    main()
