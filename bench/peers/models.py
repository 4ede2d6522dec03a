"""The model that all peers run, in the forms they want: made once, outside every limit."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHAPE = "tinyllama-1.1b"
# One type for all matrices, but for Q4_K_M, which is a mixture: some of its tensors, the output among them, are Q6_K.
FORMATS = {"bf16": None, "f16": "--pure", "f32": "--pure", "q8_0": "--pure", "q4_0": "--pure", "q4_k_m": ""}


def folder(work):
    """Random BF16 weights in the shape of TinyLlama, 2.2 GB, with a tokenizer for peers that insist on one."""
    model = work / SHAPE
    if not (model / "tokenizer_config.json").exists():
        if not (model / "config.json").exists():
            shell("cargo", "xtask", "synth", model.absolute(), "--shape", SHAPE)
        tokenizer(model)
    return model


def tokenizer(model):
    """One word for every token id."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"t{index}": index for index in range(3, 32000)}
    write(model / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    })
    write(model / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
    })


def gguf(work, python):
    """The same weights as BF16 GGUF; None without the Python that writes it."""
    file = work / "bf16.gguf"
    if not file.exists() and python.exists():
        shell(python, HERE / "gguf_of.py", folder(work), file)
    return file if file.exists() else None


def quantised(work, llama, name):
    """The GGUF file in another format, by llama-quantize; None without it."""
    file, source = work / f"{name}.gguf", work / "bf16.gguf"
    if not file.exists() and source.exists() and (llama / "llama-quantize").exists():
        part = file.with_suffix(".part")
        shell(llama / "llama-quantize", *FORMATS[name].split(), source, part, name.upper())
        part.rename(file)
    return file if file.exists() else None


def split(work, python):
    """AirLLM's own copy of the model, a file for each layer."""
    copy = work / "airllm-split"
    if not copy.exists() and python.exists():
        copy.mkdir()
        shell(python, HERE / "airllm_run.py", folder(work), "--split", copy, "--prepare")
    return copy


def write(path, value):
    path.write_text(json.dumps(value))


def shell(*argv):
    print("+", *argv, file=sys.stderr)
    subprocess.run([str(word) for word in argv], check=True, cwd=HERE, stdout=sys.stderr)
