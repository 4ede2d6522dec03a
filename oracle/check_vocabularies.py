#!/usr/bin/env python3
"""Compare `aerostat tokenize` with llama.cpp's own vocabularies and with published tokenizers.

usage: check_vocabularies.py AEROSTAT [--sdist FOLDER] [--mistral FOLDER] [--models FOLDER]

Every line of the `.inp` files beside llama.cpp's vocabularies must give the ids of the `.out` files. They are in the sdist
of llama-cpp-python 0.3.36, which is downloaded (77 MB; the build backend of the package is needed for that: pip install
scikit-build-core cmake) unless --sdist names the folder it was unpacked to.

With --mistral, the folder `data` of the package mistral-common (1.13.1): its tekken.json and SentencePiece models, against
tiktoken (0.14.0) and sentencepiece (0.2.3), which also trains some. With --models, a folder of models, folders against the package
tokenizers (0.23), which reads their tokenizer.json, and NAME.gguf against llama.cpp (xllamacpp 2026.10.11549), each as its file
says. A folder that transformers makes of a GGUF file has other merges than the file, or lacks a normalizer: the two may differ.
"""
import argparse
import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

VOCABULARIES = ["command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3",
                "qwen2", "qwen35", "refact", "starcoder"]
BREAK = "\n__ggml_vocab_test__\n"
TEXTS = [
    "Hello world", " Hello  world", "don't WE'LL it's", "12345 3.14 1,000", "naïve Größe ÉCOLE", "今天天气 Hello", "東京タワー", "안녕하세요", "مرحبا",
    "😀😃👩‍🚀", "\n\n\n", "\t x\r\n", "a" * 70, "x = {'a': [1, 2]}\n    return x\n", "<s> </s> [INST]", "▁under_score ▁", "e\u0301 \u212b ﬁ", "\u200b\u00a0x",
    "", " ", *[" " * n for n in (2, 3, 15, 16, 17, 31, 32, 33, 40, 64, 80)], *["a" + " " * n + "b" for n in (2, 5, 31, 33, 40)], *["\n" * n for n in (2, 5, 33)],
]


def tokenize(aerostat, model, text, special=False):
    arguments = [aerostat, "tokenize", str(model), "-", "--json", *([] if special else ["--no-special"])]
    done = subprocess.run(arguments, input=text.encode(), capture_output=True)
    return json.loads(done.stdout)["token_ids"] if done.returncode == 0 else done.stderr.decode().strip()[-300:]


def sdist(folder):
    python = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-d", folder]
    subprocess.run([*python, "llama-cpp-python==0.3.36"], check=True)
    with tarfile.open(next(pathlib.Path(folder).glob("*.tar.gz"))) as archive:
        archive.extractall(folder, [m for m in archive if "/llama.cpp/models/ggml-vocab" in m.name], filter="data")
    return folder


def vocabularies(aerostat, folder):
    for name in VOCABULARIES:
        path = next(pathlib.Path(folder).rglob(f"ggml-vocab-{name}.gguf"))
        texts = path.with_suffix(".gguf.inp").read_bytes().decode().split(BREAK)
        wanted = [[int(i) for i in line.split()] for line in path.with_suffix(".gguf.out").read_text().split("\n")]
        yield name, [(t, tokenize(aerostat, path, t), w) for t, w in zip(texts, wanted)]


def mistral(aerostat, folder):
    import sentencepiece
    import tiktoken

    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as work:
        for source in sorted(folder.glob("tekken*.json")):
            path = pathlib.Path(work) / "tekken.json"
            shutil.copyfile(source, path)
            file = json.loads(source.read_text())
            config = file["config"]
            special = config["default_num_special_tokens"]
            ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in file["vocab"][:config["default_vocab_size"] - special]}
            encoding = tiktoken.Encoding("tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
            texts = [t for t in TEXTS if "<s>" not in t]
            yield source.name, [(t, tokenize(aerostat, path, t), [i + special for i in encoding.encode(t)]) for t in texts]
        path = pathlib.Path(work) / "tokenizer.model"
        texts = [t for t in TEXTS if "<s>" not in t]
        for source in sorted(folder.glob("*.model.*")):
            shutil.copyfile(source, path)
            model = sentencepiece.SentencePieceProcessor(model_file=str(path))
            yield source.name, [(t, tokenize(aerostat, path, t), model.encode(t)) for t in texts]
        corpus = pathlib.Path(work) / "corpus.txt"
        corpus.write_text("\n".join([pathlib.Path(__file__).read_text(), *texts * 5]), encoding="utf-8")
        for kind, rule in [(kind, rule) for kind in ("unigram", "bpe") for rule in ("nmt_nfkc", "identity", "nfkc_cf")]:
            sentencepiece.SentencePieceTrainer.train(
                input=str(corpus), model_prefix=str(path.with_suffix("")), vocab_size=600, model_type=kind, normalization_rule_name=rule,
                hard_vocab_limit=False, minloglevel=2, byte_fallback=rule == "identity", user_defined_symbols=["<tool>"])
            model = sentencepiece.SentencePieceProcessor(model_file=str(path))
            more = [*texts, "a<tool>b <tool>", "½ Ⅷ ㍿ ﬁ"]
            yield f"trained {kind} {rule}", [(t, tokenize(aerostat, path, t), model.encode(t)) for t in more]


def models(aerostat, folder):
    from tokenizers import Tokenizer

    import twin_tokens

    folder = pathlib.Path(folder)
    for path in sorted(p for p in folder.iterdir() if (p / "tokenizer.json").exists()):
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        yield path.name, [(t, tokenize(aerostat, path, t), tokenizer.encode(t, add_special_tokens=False).ids) for t in TEXTS]
    with tempfile.TemporaryDirectory() as work:
        for path in sorted(folder.glob("*.gguf")):
            small = pathlib.Path(work) / "small.gguf"
            twin_tokens.write(small, twin_tokens.tokenizer_of(path))
            texts = [t for t in TEXTS if t]  # llama.cpp's server has no tokens for nothing
            wanted = twin_tokens.ids(small, texts)
            told = [(t, w) for t, w in zip(texts, wanted) if w is not None]
            yield path.name, [(t, tokenize(aerostat, path, t, special=True), w) for t, w in told]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aerostat")
    for option in ("--sdist", "--mistral", "--models"):
        parser.add_argument(option)
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        checks = [vocabularies(args.aerostat, args.sdist or sdist(work))]
        checks += [mistral(args.aerostat, args.mistral)] if args.mistral else []
        checks += [models(args.aerostat, args.models)] if args.models else []
        for name, cases in (result for check in checks for result in check):
            wrong = [case for case in cases if case[1] != case[2]]
            failed += len(wrong)
            print(f"{name}: {len(cases) - len(wrong)} of {len(cases)} equal", flush=True)
            for text, got, want in wrong:
                print(f"  {text!r}\n    got  {got}\n    want {want}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
