"""Perplexity of a model whose matrices went through formats and back, beside llama.cpp's mixtures of the same formats:

    formats.py AEROSTAT QUANTISE FOLDER LLAMA_QUANTIZE BF16.gguf RECIPE…

QUANTISE is made by `cargo build --release -p aerostat-pack --example quantise`, BF16.gguf by bench/peers/gguf_of.py. A
recipe is `place=format,…` with the places emb, v, down, o and rest, or `llama.cpp:MIXTURE`.

Blocks run on over the ends of rows, here and in what llama.cpp is given, so that formats of 256 weights can be measured
on models whose widths are no multiples of 256. Weights are scored as F32: nothing but the formats differs.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import perplexity

BITS = {"BF16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q5_0": 5.5, "Q4_K": 4.5}
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PLACES = {"embed": "emb", "v_proj": "v", "down_proj": "down", "o_proj": "o"}


def by_recipe(quantise, tensors, recipe):
    """The tensors that change, and the bits of all."""
    formats = dict(part.split("=") for part in recipe.split(","))
    new, bits = {}, 0
    for name, tensor in tensors.items():
        place = next((place for part, place in PLACES.items() if part in name), "rest")
        kind = formats.get(place, formats["rest"]) if tensor.ndim == 2 else "BF16"
        bits += BITS[kind] * tensor.numel()
        if kind != "BF16":
            raw = tensor.float().numpy().astype("<f4").tobytes()
            back = subprocess.run([quantise, kind], input=raw, stdout=subprocess.PIPE, check=True).stdout
            new[name] = np.frombuffer(back, "<f4").reshape(tensor.shape)
    return new, bits


def by_llama(llama_quantize, source, tensors, mixture, folder):
    """The same of llama.cpp's mixture."""
    flat, out = folder / "flat.gguf", folder / "out.gguf"
    flatten(source, flat)
    subprocess.run([llama_quantize, flat, out, mixture], check=True, capture_output=True)
    new, bits = {}, 0
    for tensor in gguf.GGUFReader(out).tensors:
        bits += 8 * tensor.n_bytes if tensor.n_elements > 4096 else 16 * tensor.n_elements
        if name := hugging_face(tensor.name):
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            new[name] = in_order(values.reshape(tensors[name].shape), tensors[name])
    return new, bits


def flatten(source, target):
    """Copies a BF16 GGUF file, its matrices in rows of 256."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(key, field.contents())
            else:
                writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
            rows = np.frombuffer(tensor.data.tobytes(), np.uint8).reshape(-1, 512)
            writer.add_tensor(tensor.name, rows, raw_dtype=tensor.tensor_type)
        else:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hugging_face(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    return f"model.layers.{found[1]}.{NAMES[found[2]]}.weight" if found and found[2] in NAMES else None


def in_order(values, was, head_dim=64):
    """Undoes the order in which Llama's queries and keys are written to GGUF, if that brings them nearer."""
    if values.shape[0] % head_dim:
        return values
    was = was.float().numpy()
    back = values.reshape(-1, head_dim // 2, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return min(values, back, key=lambda candidate: np.abs(candidate - was).sum())


def main():
    aerostat, quantise, model, llama_quantize, source, *recipes = sys.argv[1:]
    model = pathlib.Path(model)
    tensors = load_file(model / "model.safetensors")
    total = sum(tensor.numel() for tensor in tensors.values())
    ids, base = perplexity.score(aerostat, model)
    print(f"as it is: {perplexity.compared(base, base)}", flush=True)
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            if recipe.startswith("llama.cpp:"):
                new, bits = by_llama(llama_quantize, source, tensors, recipe.split(":")[1], folder)
            else:
                new, bits = by_recipe(quantise, tensors, recipe)
            for file in model.glob("*.json"):
                shutil.copy(file, folder)
            whole = {name: torch.from_numpy(np.array(new.get(name, old.float()))) for name, old in tensors.items()}
            save_file(whole, folder / "model.safetensors")
            losses = perplexity.score(aerostat, folder, ids)[1]
        print(f"{recipe}: {bits / total / 16:.4f} of BF16, {perplexity.compared(losses, base)}", flush=True)


if __name__ == "__main__":
    main()
