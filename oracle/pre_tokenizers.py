#!/usr/bin/env python3
"""Make crates/aerostat-text/tests/data/pre_tokenizers.json: what llama.cpp splits texts into, by the names of GGUF files.

usage: pre_tokenizers.py          needs: pip install xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 numpy

One vocabulary whose merges reach over the borders of words, lines and numbers, so that every split shows in the ids;
a tiny model with it for each name in `tokenizer.ggml.pre`; and the ids that llama.cpp's own tokenizer gives for a list of
texts. Texts with letters that only some versions of Unicode know are left out.
"""
import json
import pathlib
import tempfile
import urllib.request

import gguf
import numpy as np
import xllamacpp
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/aerostat-text/tests/data/pre_tokenizers.json"
NAMES = """default llama-bpe jais-2 dbrx smaug-bpe chatglm-bpe glm4 glm5 minicpm5 qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan
solar-open grok-2 kormo qwen35 laguna seed-coder exaone-moe bailingmoe tekken gpt-4o llama4 minimax-m2 youtu kimi-k2 deepseek-v3
hunyuan-dense joyai-llm deepseek-llm deepseek-coder falcon smollm starcoder refact command-r exaone mellum2 gpt-2 phi-2 olmo mpt jais
exaone4 granite-docling bloom viking""".split()
TEXTS = [
    "Hello world", " Hello  world   of\tspaces \n and lines\r\n\r\n  end ", "don't we'LL I'm HE'S they'Re o'clock 's",
    "123 4567 1234567 3.14159 1,000,000 v2.10 7e-9 x12y345", "a1b22c333", "Größe naïve ÉCOLE Straße", "camelCase HTMLParser XMLHttpRequest iPhone",
    "(x == y) && !z || w != \"q\"; // done", "a+b=c <d> ^e~ |f| `g` $h", "今天天气很好，我们去公园。Hello世界123", "東京タワーに行きたい。カタカナ ひらがな",
    "안녕하세요 세계", "Съешь ещё этих булок", "مرحبا بالعالم", "snake_case/path-to\\file.txt", "...!!! ???---", "\n", "\n\n\n", "   ", "\t\t", "  \n  \n",
    "a\nb\n\nc", "tab\tx", "😀😃 emoji", "one , two ; three", "zqzq zqzq", "x  zqzq\n", "I love the the the hills and the balloon", "2024-11-29T17:48:06Z",
    "def f(x):\n    return x + 1\n\n\n", "« oui » „ja“ – —", "9" * 10, " " * 20 + "x", "!a .b ,c",
]
CORPUS = TEXTS * 4 + [
    "the hills and the balloon 123 456 789", "it's we'll I'm", "x = 1\n    y = 22\n", "12 34 56", "...", "  \n  ", "hello, world! Hello World",
] * 4


def vocabulary():
    """Merges over everything, and two tokens that no merge reaches."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False, max_token_length=12))
    state = json.loads(trained.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["merges"]]
    for extra in ("zqzq", "Ġzqzq"):
        if extra in tokens:  # not reached: its last merge goes
            merges = [m for m in merges if m.replace(" ", "") != extra]
        else:
            tokens.append(extra)
    return tokens, merges


def write(path, pre, tokens, merges):
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_context_length, 64), (writer.add_embedding_length, 32), (writer.add_block_count, 1), (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, pre),
        (writer.add_token_list, tokens), (writer.add_token_merges, merges), (writer.add_token_types, [1] * len(tokens)),
        (writer.add_bos_token_id, 0), (writer.add_eos_token_id, 0), (writer.add_add_bos_token, False),
    ]:
        add(value)
    block = {name: (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    shapes = {"token_embd": (len(tokens), 32), "output": (len(tokens), 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{name}": shape for name, shape in block.items()} | {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.01, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids(path):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(path), 64, False
    server = xllamacpp.Server(params)
    found = []
    for text in TEXTS:
        body = json.dumps({"content": text, "add_special": False}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
        found.append(json.load(urllib.request.urlopen(request))["tokens"])
    del server
    return found


def main():
    tokens, merges = vocabulary()
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = pathlib.Path(folder) / f"{name}.gguf"
            write(path, name, tokens, merges)
            expected[name] = ids(path)
            path.unlink()
            print(name, len(set(map(str, expected[name]))), flush=True)
    record = {"xllamacpp": "2026.10.11549", "tokens": tokens, "merges": merges, "texts": TEXTS, "expected": expected}
    OUT.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
