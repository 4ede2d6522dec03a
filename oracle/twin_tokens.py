#!/usr/bin/env python3
"""Make crates/aerostat/tests/it/twins.json: what llama.cpp makes of texts with the tokenizer of each GGUF twin in fixtures/.

usage: twin_tokens.py          needs: pip install xllamacpp==2026.10.11549 gguf==0.19.0 numpy

The metadata `tokenizer.ggml.*` of a twin goes into a tiny model of its own, as it stands, so that twins of families that this
version does not load are checked too. Twins that have the same metadata share their expected ids.
"""
import json
import pathlib
import tempfile
import urllib.error
import urllib.request

import gguf
import numpy as np
import xllamacpp

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/aerostat/tests/it/twins.json"
TEXTS = [
    "hello the world", "the  the\n\nthe's THE'S", "123 1234 12345 x1,000", " lead", "tail ", "in\tthe\r\n\r\nend.\n", "...!!! (x) (x)\n\n\n", "zq",
    "x zq zqzq", "we'll  they'LL", "   ", "\n", " " * 9 + "a1 a12", "a1b22c333", "snake_case/path-to\\file.txt", "<s>hello</s> <unk>", "{\"k\": [1, 2]}", "",
]


def tokenizer_of(path):
    """Key, type and value of each field."""
    reader = gguf.GGUFReader(path)
    return {key: (field.types, field.contents()) for key, field in reader.fields.items() if key.startswith("tokenizer.")}


def write(path, fields):
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_context_length, 64), (writer.add_embedding_length, 32), (writer.add_block_count, 1), (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5),
    ]:
        add(value)
    for key, (types, value) in fields.items():
        writer.add_key_value(key, value, types[0], types[-1] if len(types) > 1 else None)
    count = len(fields["tokenizer.ggml.tokens"][1])
    block = {name: (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    shapes = {"token_embd": (count, 32), "output": (count, 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{name}": shape for name, shape in block.items()} | {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.01, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids(path, texts=TEXTS):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(path), 64, False
    server = xllamacpp.Server(params)
    found = []
    for text in texts:
        body = json.dumps({"content": text, "add_special": True}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
        try:
            found.append(json.load(urllib.request.urlopen(request))["tokens"])
        except urllib.error.HTTPError:  # such as of a byte that a small vocabulary lacks
            found.append(None)
    del server
    return found


def main():
    alike = {}
    for path in sorted(ROOT.glob("fixtures/*/*.gguf")):
        fields = tokenizer_of(path)
        if fields:  # not of the further parts of a split file
            alike.setdefault(json.dumps(fields, default=str), (fields, []))[1].append(str(path.relative_to(ROOT / "fixtures")))
    expected = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (fields, twins) in enumerate(alike.values()):
            path = pathlib.Path(folder) / f"{number}.gguf"
            write(path, fields)
            expected.append({"twins": twins, "ids": ids(path)})
            path.unlink()
            print(fields["tokenizer.ggml.pre"][1], len(twins), len(set(map(str, expected[-1]["ids"]))), flush=True)
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in expected)
    record = f'{{"xllamacpp":"2026.10.11549","texts":{json.dumps(TEXTS)},"expected":[\n{lines}\n]}}\n'
    json.loads(record)
    OUT.write_text(record)


if __name__ == "__main__":
    main()
