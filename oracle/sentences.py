#!/usr/bin/env python3
"""Make fixtures/sentences/: tiny folders of sentence-transformers, and what that library makes of texts with them.

usage: sentences.py [--out FOLDER]

Needs sentence-transformers 5.2.0 beside requirements.txt. `expected.json` holds vectors of texts, by the name of the prompt (none:
the default), or of rankers the scores of pairs.
"""

import argparse
import json
import pathlib
import shutil

import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer, models

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


if __name__ == "__main__":
    main()
