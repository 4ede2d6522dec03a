#!/usr/bin/env python3
"""Compare `aerostat tokenize` with the package tokenizers (0.23.3) on tokenizers that are made at random.

usage: check_tokenizers.py AEROSTAT [--seed N] [--count N] [--released]

Each is a small model (BPE in four kinds, WordPiece, Unigram, words) that is trained on a few lines, with any normalizers,
pre-tokenizers, added tokens with any flags, and post-processor, written as tokenizer.json. Left out is what the package decides by
chance (added tokens that read alike once they are normalised) and where it panics. With --released, folders of vocab.json, merges.txt
and configurations instead, against AutoTokenizer of transformers (5.23.0). Exits with 1 if a text differs.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers as N, pre_tokenizers as P, processors, trainers

LINES = [
    "Größe über naïve café 123 4567 ½ ² Ⅷ", "日本語のテキスト 中文测试 한국어", "don't I'll we've they're", "  leading spaces\tand\ttabs  ",
    "emoji 😀👍🏽 zwj 👨‍👩‍👧", "ﬁ ligature Å Å ﬃ", "<s> </s> [CLS] <|im_start|>", "a_b_c snake_case camelCase HTTPServer",
    "ελληνικά кириллица العربية עברית हिन्दी ไทย",
]
TEXTS = [
    "hello world", "  two  spaces ", "a\nb\r\nc\n\n\nd", "tab\there", "don't I'LL we've", "1234567 12,345.67", "Größe über naïve café", "日本語テスト",
    "😀👍🏽 👨‍👩‍👧", "ﬁ ½ ² Ⅷ Å Å", "<s>hi</s>", "[CLS] hi [SEP][MASK]x", " <|im_start|>user\nhi<|im_end|>\n", "x<tool>y <tool> z", "under_score",
    "zwsp\u200bhere\u00a0nbsp\u3000wide", "e\u0301 combining", "İstanbul ŉ ß ẞ ΑΣ", "\u202eRTL עברית", "हिन्दी ไทย", "", "   ", "\n", "▁under ▁ ▁▁x",
    "ĠGpt Ġ", "\x00\x01\x7f", "…—–-−", "C'est l'été", "http://a.b/c?d=e&f", "word" * 30, "<TOOL> <Tool>", "tooltool tool", "ab<sep>cd", "\ufeffbom",
    "𝒳𝒴 ｆｕｌｌ ﾊﾝ", "A" * 40 + " " + "b" * 50, "<0x41> <0x0A>", "##ing ##", "a\u0300\u0301\u0302", "مرحبا بالعالم",
]
SPLITS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
PATTERNS = ["\\s+", "\\p{N}{1,3}", "[^\\S\\n]+", "'(?i:[sdmt]|ll|ve|re)", "\\p{L}+|\\p{N}", "(?=\\p{Lu})", "\\n+"]
SPECIAL = ["<unk>", "<s>", "</s>", "[CLS]", "[SEP]"]


def normalizer(pick, flag):
    one = lambda: pick([
        N.NFC, N.NFD, N.NFKC, N.NFKD, N.Lowercase, N.StripAccents, N.Nmt, lambda: N.Strip(flag(), flag()), lambda: N.Prepend("▁"),
        lambda: N.Replace(*pick([(" ", "▁"), (Regex(" {2,}"), " "), (Regex("\\s+"), " "), ("e", "é"), (Regex("\\d"), "0")])),
        lambda: N.BertNormalizer(flag(), flag(), pick([None, True, False]), flag())])()
    return pick([None, one(), N.Sequence([one(), one()]), N.Sequence([one(), one(), one()])])


def pre_tokenizer(pick, flag, bytes_too):
    one = lambda: pick([
        P.Whitespace, P.WhitespaceSplit, P.BertPreTokenizer, P.UnicodeScripts, lambda: P.Punctuation(pick(SPLITS)), lambda: P.Digits(flag()),
        lambda: P.Metaspace("▁", pick(["always", "never", "first"]), flag()), lambda: P.Split(Regex(pick(PATTERNS)), pick(SPLITS), flag()),
        lambda: P.CharDelimiterSplit(pick(["_", "a", " "])), lambda: P.Split(" ", pick(SPLITS), False)])()
    if bytes_too:
        return pick([P.ByteLevel(flag(), True, flag()), P.Sequence([one(), P.ByteLevel(False, True, flag())])])
    return pick([None, one(), one(), P.Sequence([one(), one()])])


def made(pick, flag):
    """A tokenizer and what kind it is."""
    kind = pick(["words", "pieces", "unigram", "bpe", "suffix", "bytes", "fallback"])
    prefix, suffix = pick(["##", "~"]), "</w>"
    options = dict(vocab_size=pick([300, 600, 1200]), special_tokens=list(SPECIAL), show_progress=False)
    if kind == "fallback":
        options["special_tokens"] += ["<0x%02X>" % i for i in range(256)]
    model, trainer = {
        "words": lambda: (models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**options)),
        "pieces": lambda: (models.WordPiece(unk_token="<unk>", max_input_chars_per_word=pick([100, 10]), continuing_subword_prefix=prefix),
                           trainers.WordPieceTrainer(continuing_subword_prefix=prefix, **options)),
        "unigram": lambda: (models.Unigram(), trainers.UnigramTrainer(unk_token="<unk>", **options)),
        "bpe": lambda: (models.BPE(unk_token="<unk>", fuse_unk=flag()), trainers.BpeTrainer(**options)),
        "suffix": lambda: (models.BPE(unk_token="<unk>", end_of_word_suffix=suffix), trainers.BpeTrainer(end_of_word_suffix=suffix, **options)),
        "bytes": lambda: (models.BPE(ignore_merges=flag()), trainers.BpeTrainer(initial_alphabet=P.ByteLevel.alphabet(), **options)),
        "fallback": lambda: (models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), trainers.BpeTrainer(**options)),
    }[kind]()
    tokenizer = Tokenizer(model)
    for name, part in [("normalizer", normalizer(pick, flag)), ("pre_tokenizer", pre_tokenizer(pick, flag, kind == "bytes"))]:
        if part is not None:
            setattr(tokenizer, name, part)
    tokenizer.train_from_iterator([*pathlib.Path(__file__).read_text().split("\n"), *LINES * 20], trainer)
    read = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    seen = {read(content) for content in SPECIAL}
    for content in ["<|im_start|>", "<|im_end|>", "<tool>", "tool", "<sep>", "[MASK]", "é", "  ", "\n\n", "under"]:
        if flag() and read(content) and read(content) not in seen:
            seen.add(read(content))
            flags = {name: pick([True, False, False]) for name in ("single_word", "lstrip", "rstrip", "normalized")}
            pick([tokenizer.add_special_tokens, tokenizer.add_tokens])([AddedToken(content, **flags)])
    ids = [(name, tokenizer.token_to_id(name)) for name in SPECIAL[1:]]
    post = pick([
        None, processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", ids[:2]), processors.BertProcessing(ids[3], ids[2]),
        processors.RobertaProcessing(ids[1], ids[0], flag(), flag()), processors.ByteLevel(trim_offsets=flag())])
    if post is not None:
        tokenizer.post_processor = post
    if kind == "bytes":
        tokenizer.decoder = decoders.ByteLevel()
    return kind, tokenizer


def released(aerostat, folder):
    """What differs of folders without tokenizer.json: the model's type, the class that is named, and what the configuration says."""
    from transformers import AutoTokenizer

    source = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = P.ByteLevel(False)
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=P.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|endoftext|>", "<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator([*pathlib.Path(__file__).read_text().split("\n"), *LINES * 20], trainer)
    tokenizer.model.save(str(folder))
    texts = ["hello world", " 12345 1,000 don't", "<s>hi</s>", "x<|endoftext|>y <mask>", "e\u0301 \u212b", "a\n\nb\t c", "<tool>y <tool>"]
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    tool = {"500": dict(content="<tool>", lstrip=False, rstrip=True, single_word=False, normalized=False, special=False)}
    configurations = [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": True, **named},
                      {**named, "unk_token": "<unk>", "pad_token": "<pad>"}, {"added_tokens_decoder": tool}, {"add_bos_token": True, "add_eos_token": True, **named}]
    classes = [("gpt2", None), ("gpt2", "GPT2Tokenizer"), ("opt", "GPT2Tokenizer"), ("qwen2", None), ("qwen3", "Qwen2Tokenizer"), ("codegen", "CodeGenTokenizer"),
               ("gpt_neox", None), ("olmo", "GPTNeoXTokenizer"), ("starcoder2", None)]
    for (kind, name), configuration in [(c, f) for c in classes for f in configurations]:
        (folder / "config.json").write_bytes((source / kind / "config.json").read_bytes())
        (folder / "model.safetensors").write_bytes((source / kind / "model.safetensors").read_bytes())
        (folder / "tokenizer_config.json").write_text(json.dumps({**configuration, **({"tokenizer_class": name} if name else {})}))
        wanted = AutoTokenizer.from_pretrained(folder)
        for text in texts:
            yield f"{kind} {name} {configuration} {text!r}", ids_of(aerostat, folder, text), wanted.encode(text)


def ids_of(aerostat, path, text):
    done = subprocess.run([aerostat, "tokenize", str(path), "-", "--json"], input=text.encode(), capture_output=True)
    return json.loads(done.stdout)["token_ids"] if done.returncode == 0 else done.stderr.decode().strip()[-300:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aerostat")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--released", action="store_true")
    args = parser.parse_args()
    random.seed(args.seed)
    pick, flag = random.choice, lambda: random.random() < 0.5
    equal = differ = 0
    with tempfile.TemporaryDirectory() as work:
        for what, got, wanted in released(args.aerostat, pathlib.Path(work)) if args.released else []:
            equal, differ = equal + (got == wanted), differ + (got != wanted)
            if got != wanted:
                print(f"{what}\n  got  {got}\n  want {wanted}")
        for number in range(0 if args.released else args.count):
            kind, tokenizer = made(pick, flag)
            path = pathlib.Path(work) / "tokenizer.json"
            tokenizer.save(str(path))
            for text in TEXTS:
                try:
                    wanted = tokenizer.encode(text).ids
                except BaseException:  # a panic of the package is none of Exception
                    continue
                got = ids_of(args.aerostat, path, text)
                equal, differ = equal + (got == wanted), differ + (got != wanted)
                if got != wanted:
                    print(f"{number} {kind} {text!r}\n  got  {got}\n  want {wanted}\n  {tokenizer.normalizer} {tokenizer.pre_tokenizer}")
    print(f"{equal} equal, {differ} differ")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
