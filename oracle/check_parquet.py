#!/usr/bin/env python3
"""Pass tables between pyarrow and an aerostat binary with Parquet built in.

usage: check_parquet.py MODEL BINARY

Needs `pip install pyarrow`. Reads what pyarrow writes in each of its usual packings and string types, and checks that the
results are those of the same table as JSONL, by the types pyarrow finds.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = ["A first text.", "Another one, a little longer than the first.", "Ünïcode 🎈", "x"]
TASKS = {
    "score": ["score"],
    "embed": ["embed", "--pooling", "mean", "--normalize"],
    "classify": ["classify", "--labels", "good,very bad", "--length-normalize"],
    "distil": ["distil", "-k", "3"],
}
FLOATS, IDS = pa.list_(pa.float32()), pa.list_(pa.int64())
LABELS = pa.struct([("good", pa.float32()), ("very bad", pa.float32())])
TYPES = {
    "score": {"logprob": pa.float32(), "perplexity": pa.float32(), "token_ids": IDS, "logprobs": FLOATS},
    "embed": {"embedding": FLOATS},
    "classify": {"label": pa.string(), "logprob": pa.float32(), "logprobs": LABELS, "scores": LABELS},
    "distil": {"given": pa.int64(), "tokens": IDS, "ids": pa.list_(IDS), "logprobs": pa.list_(FLOATS)},
}


def main(model, binary):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        lines = scratch / "in.jsonl"
        rows = [{"id": i * 10, "text": text} for i, text in enumerate(TEXTS)]
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for packing in ["none", "snappy", "gzip", "zstd"]:
            for kind in [pa.string(), pa.large_string()]:
                table = pa.table({"other": [None] * len(rows), "text": pa.array(TEXTS, kind),
                                  "id": [row["id"] for row in rows]})
                path = scratch / f"{packing}-{kind}.parquet"
                pq.write_table(table, path, compression=packing, row_group_size=3)
                for task in TASKS:
                    check(model, binary, task, path, lines, scratch)
            print(f"{packing}: as lines, in {len(TASKS)} tasks")


def check(model, binary, task, source, lines, scratch):
    ours, plain = scratch / "out.parquet", scratch / "out.jsonl"
    run(model, binary, task, source, ours)
    table = pq.read_table(ours)
    want = {"id": pa.int64(), **TYPES[task]}
    got = {field.name: field.type for field in table.schema}
    same = got.keys() == want.keys() and all(got[name].equals(want[name]) for name in want)
    assert same, f"{task}: {table.schema}"
    assert table["id"].to_pylist() == [i * 10 for i in range(len(TEXTS))]
    if task != "distil":
        run(model, binary, task, lines, plain)
        for row, line in zip(table.to_pylist(), plain.read_text().splitlines(), strict=True):
            near(row, json.loads(line), task)


def near(a, b, where):
    """Equal but for the decimal digits that JSON has."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            near(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for x, y in zip(a, b):
            near(x, y, where)
    elif isinstance(a, float) and b is not None:
        assert abs(a - b) <= 1e-6 * max(1.0, abs(b)), f"{where}: {a} {b}"
    else:
        assert a == b, f"{where}: {a} {b}"


def run(model, binary, task, source, output):
    call = [binary, *TASKS[task][:1], model, *TASKS[task][1:], "-i", source, "-o", output, "--key", "id", "--quiet"]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, call))}\nexit {done.returncode}: {done.stderr}")


if __name__ == "__main__":
    main(*sys.argv[1:])
