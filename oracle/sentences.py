#!/usr/bin/env python3
"""Make fixtures/sentences/: tiny folders of sentence-transformers, and what that library makes of texts with them.

usage: sentences.py [--out FOLDER]

Needs sentence-transformers 5.2.0 and sentencepiece beside requirements.txt. `expected.json` holds vectors of texts, by the name of
the prompt (none: the default), or of rankers the scores of pairs. `twin.gguf` is the same model as GGUF.
"""

import argparse
import io
import json
import pathlib
import shutil
import tempfile

import sentence_transformers
import sentencepiece
import tokenizers
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer, models

import encoder_twin

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "sentences"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = "the a is of and cat dog mat sat on query passage river bank money blue sky who what where".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "The cat sat on the mat", "who?", "Money is in the bank of the river, and the sky is blue.", "", "Ünïcödé ÇAFÉ 漢字 x!",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
]
PAIRS = [
    ("where is the cat?", "The cat sat on the mat"), ("who", ""), ("the river", "Money is in the bank of the river " * 4),
    ("a long question about the blue sky and the dog on the mat " * 3, "short"), ("sky " * 30, "mat " * 30),
]


def word_piece(roberta=False):
    """A small tokenizer of BERT's kind, with what it puts around texts, or what RoBERTa's puts there."""
    vocab = SPECIAL + WORDS + list(LETTERS) + ["##" + c for c in LETTERS] + list("?!.,:;-'") + ["##ing", "##s"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    around = [("[SEP]", 3), ("[CLS]", 2)]
    tokenizer.post_processor = (tokenizers.processors.RobertaProcessing(*around, add_prefix_space=False, trim_offsets=False)
                                if roberta else tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[(t, i) for t, i in around]))
    names = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    kept = ["input_ids", "attention_mask"] + ([] if roberta else ["token_type_ids"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, model_input_names=kept, **names)
    return fast, len(vocab)


def character_table():
    """The table of a SentencePiece model that replaces a few characters, as `nmt_nfkc` replaces thousands."""
    rules = {"ﬁ": "fi", "Ａ": "A", "…": "...", "\u00a0": " ", "\t": " ", "\n": " ", "\u00e9": "e", "①": "1", "\u200b": ""}
    spell = lambda text: " ".join(f"{ord(c):X}" for c in text)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.write("".join(f"{spell(a)}\t{spell(b)}\n" for a, b in rules.items()))
        file.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat sat on the mat", "who knows what the river is"] * 50), model_writer=model, vocab_size=40,
            hard_vocab_limit=False, normalization_rule_tsv=file.name, minloglevel=2)
    return field(field(model.getvalue(), 3), 2)


def field(message, wanted):
    """The bytes of a field of a protocol buffer."""
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    at = 0
    while at < len(message):
        tag = number()
        if tag & 7 == 2:
            length = number()
            if tag >> 3 == wanted:
                return message[at:at + length]
            at += length
        else:
            at = at + 4 if tag & 7 == 5 else at + 8 if tag & 7 == 1 else (number(), at)[1]


def unigram():
    """A small tokenizer of XLM-RoBERTa's kind: Unigram, behind a table of characters."""
    pieces = ["\u2581" + word for word in WORDS] + ["\u2581", *LETTERS, *LETTERS.upper()[:26], *"?!.,:;-'", "ing", "er", "\u2581th", "an", "ou", "漢"]
    scores = [-2.0 - 0.137 * i for i in range(len(pieces))]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *zip(pieces, scores), ("<mask>", 0.0)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=3, byte_fallback=False))
    n, p = tokenizers.normalizers, tokenizers.pre_tokenizers
    tokenizer.normalizer = n.Sequence([n.Precompiled(character_table()), n.Replace(tokenizers.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = p.Sequence([p.WhitespaceSplit(), p.Metaspace(replacement="\u2581", prepend_scheme="always")])
    tokenizer.decoder = tokenizers.decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = dict(bos_token="<s>", eos_token="</s>", sep_token="</s>", cls_token="<s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, model_input_names=["input_ids", "attention_mask"], **names)
    return fast, len(vocab)


def byte_pairs():
    """A small byte-level tokenizer that has the words which Qwen's rerankers answer with."""
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    tokens = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    model = tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0],
                                                additional_special_tokens=special, model_max_length=512)
    return fast, len(tokens) + len(special)


def random(module, seed=3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1.0 + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_((0.7 if "embed" in name else 1.5 * parameter.shape[-1] ** -0.5) * noise)
    return module.eval()


def config(size, **more):
    return dict(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                max_position_embeddings=64, pad_token_id=0, **more)


def rounded(values):
    return [round(float(v), 7) for v in values]


def sentences(name, out, pooling, dense, normalize, length, **settings):
    folder, source = out / name, out / "source"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, size = word_piece()
    random(transformers.BertModel(transformers.BertConfig(**config(size)))).save_pretrained(source)
    tokenizer.save_pretrained(source)
    transformer = models.Transformer(str(source), max_seq_length=length)
    modules = [transformer, models.Pooling(32, pooling_mode=pooling)]
    width = 32
    for outputs, activation in dense:
        modules.append(random(models.Dense(width, outputs, activation_function=activation), 9))
        width = outputs
    modules += [models.Normalize()] if normalize else []
    model = SentenceTransformer(modules=modules, device="cpu", **settings)
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(source)
    names = [None, *settings.get("prompts", {})]
    records = [{"prompt_name": prompt, "text": text, "vector": rounded(model.encode(text, prompt_name=prompt))}
               for prompt in names for text in TEXTS]
    finish(folder, {"sentence_transformers": sentence_transformers.__version__, "texts": records})


def multilingual(name, out):
    """XLM-RoBERTa with a Unigram tokenizer, as multilingual E5 and BGE-M3 have it."""
    folder, source = out / name, out / "source"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, size = unigram()
    settings = config(size, type_vocab_size=1) | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    random(transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**settings))).save_pretrained(source)
    tokenizer.save_pretrained(source)
    modules = [models.Transformer(str(source), max_seq_length=40), models.Pooling(32, pooling_mode="mean"), models.Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(source)
    texts = [*TEXTS, "The ﬁrst Ａ…  of\tthe\u200b river", "  the  the\n\ncat ", "zqx 漢漢 é①", "THE <s> mat </s>"]
    records = [{"prompt_name": None, "text": text, "vector": rounded(model.encode(text)), "ids": tokenizer(text)["input_ids"]} for text in texts]
    encoder_twin.write(folder / "twin.gguf", folder, "bert", "mean", encoder_twin.unigram(folder))
    finish(folder, {"sentence_transformers": sentence_transformers.__version__, "texts": records})


def asked(name, out):
    """A causal model that is asked for yes or no, scored as the cards of Qwen's rerankers do it."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, size = byte_pairs()
    settings = transformers.Qwen3Config(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                        head_dim=8, intermediate_size=48, max_position_embeddings=512, tie_word_embeddings=True)
    model = random(transformers.Qwen3ForCausalLM(settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    before = ("<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
              'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n')
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    task = "Given a web search query, retrieve relevant passages that answer the query"
    words = [tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]
    records = []
    for instruction, (query, document) in [(i, pair) for i in (None, "Find what rhymes") for pair in PAIRS[:3]]:
        parts = [before, f"<Instruct>: {instruction or task}\n<Query>: {query}\n<Document>: {document}", after]
        ids = [i for part in parts for i in tokenizer(part, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1, words].double()
        records.append({"instruction": instruction, "query": query, "document": document, "score": round(float(logits.softmax(0)[1]), 7)})
    finish(folder, {"transformers": transformers.__version__, "pairs": records})


def ranker(name, out, kind, roberta, **more):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, size = word_piece(roberta)
    settings = config(size, num_labels=1, **more)
    random(getattr(transformers, kind + "ForSequenceClassification")(getattr(transformers, kind + "Config")(**settings))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = CrossEncoder(str(folder), device="cpu", max_length=40)
    scores = [float(model.predict([pair])[0]) for pair in PAIRS]
    records = [{"query": q, "document": d, "score": s} for (q, d), s in zip(PAIRS, rounded(scores))]
    finish(folder, {"sentence_transformers": sentence_transformers.__version__, "pairs": records})


def finish(folder, expected):
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
    print(folder.name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024, "KiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    prompts = {"query": "query: ", "document": "the passage: "}
    tanh, plain = torch.nn.Tanh(), torch.nn.Identity()
    sentences("dense", out, "mean", [(24, tanh), (16, plain)], True, 16, prompts=prompts, default_prompt_name="document")
    sentences("cls", out, "cls", [], False, 40)
    sentences("largest", out, "max", [], True, 12, prompts=prompts)
    ranker("ranker", out, "Bert", False)
    ranker("ranker_roberta", out, "XLMRoberta", True, type_vocab_size=1)
    encoder_twin.write(out / "cls" / "twin.gguf", out / "cls", "bert", "cls", encoder_twin.word_pieces(out / "cls"))
    multilingual("multilingual", out)
    asked("asked", out)


if __name__ == "__main__":
    main()
