#!/usr/bin/env python3
"""Make fixtures/: tiny random models of every family, and what transformers computes with them.

usage: make_fixtures.py [--out FOLDER] [NAME ...]      all of them when none is named

Each folder holds a checkpoint as transformers writes it, `expected.json`, and where asked GGUF twins. The same
versions (requirements.txt) give the same bytes again.
"""

import argparse
import contextlib
import copy
import json
import pathlib
import shutil
import unittest.mock

import numpy as np
import safetensors.torch
import torch
import transformers

import chat
import gguf_twin
from catalogue import BASE, FIXTURES

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NEW_TOKENS = 10
GAP_MIN = 1e-3
SEEDS_MAX = 60


def make(name, entry, out):
    """Make one fixture with the first seed whose greedy choices are clear and not all alike."""
    folder = out / name
    for seed in range(SEEDS_MAX):
        model = build(entry, seed)
        if not promising(model, entry, seed):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        records = checkpoint(folder, model, entry, seed)
        if all(clear(record) for record in records):
            lengths = [len(p["ids"]) for p in records[0]["prompts"]]
            print(f"{name}: seed {seed}, prompts {lengths}, {size(folder) / 1024:.0f} KiB", flush=True)
            return
    raise SystemExit(f"{name}: no seed up to {SEEDS_MAX} has greedy gaps over {GAP_MIN}")


def build(entry, seed):
    """A model of random weights, large enough that every part of it moves the logits."""
    config = configuration(entry)
    config._attn_implementation = entry.get("attention", "eager")
    model = auto_class("text_config" in config.to_dict()).from_config(config)
    centre = 0.0 if config.model_type.startswith(("gemma", "nemotron", "qwen3_next", "qwen3_5")) and config.model_type != "nemotron_h" else 1.0
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    norms = {id(m.weight) for m in model.modules() if "Norm" in type(m).__name__ and hasattr(m, "weight")}
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in norms:
                parameter.copy_(centre + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * noise)
            elif id(parameter) in embeddings:  # Gemma scales embeddings up; a token must not answer itself
                parameter.copy_(entry.get("embedding", 0.2 if centre else 0.1) * noise)
            else:  # experts are stacked: their inputs are the last dimension
                parameter.copy_(1.5 * parameter.shape[-1] ** -0.5 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias") or config.model_type == "lfm2_moe" and name.endswith("expert_bias"):
                buffer.copy_((0.3 if hasattr(config, "kv_lora_rank") else 0.2) * torch.randn(buffer.shape, generator=generator))
    entry.get("prepare", lambda model: None)(model)
    return model.to(DTYPES[entry["dtype"]])


def configuration(entry):
    """The configuration of an entry; with `towers`, `config` is that of the text tower."""
    name = entry.get("text", entry["family"]) + "Config"
    config_class = getattr(transformers, name, None) or getattr(transformers.models.llama4, name)
    known = {*config_class().to_dict(), *config_class.attribute_map}
    base = {key: value for key, value in BASE.items() if key in known}
    config = config_class(**{**base, **copy.deepcopy(entry["config"])})
    if "towers" not in entry:
        return config
    whole = getattr(transformers, entry["family"] + "Config")
    return whole(text_config=config.to_dict(), **copy.deepcopy(entry["towers"]))


def auto_class(towers):
    return transformers.AutoModelForMultimodalLM if towers else transformers.AutoModelForCausalLM


def promising(model, entry, seed):
    """Whether the seed's own model is clear about its choices, before anything is written."""
    model = copy.deepcopy(model).float()
    if entry.get("options", set()) & {"plain"}:
        return True  # quantising changes the choices
    steps = [generate(copy.deepcopy(model), prompt(n, model.config.get_text_config().vocab_size, seed), NEW_TOKENS) for n in entry["lengths"]]
    return all(clear_steps(*step) for step in steps)


def checkpoint(folder, model, entry, seed):
    """Write the folder and its twins; give back every record of expected results."""
    options = entry.get("options", set())
    model.save_pretrained(folder, **({"max_shard_size": entry["shard"]} if "shard" in entry else {}))
    if "edit" in entry:
        path = folder / "config.json"
        path.write_text(json.dumps(entry["edit"](json.loads(path.read_text())), indent=2, sort_keys=True) + "\n")
    prompts = [prompt(n, model.config.get_text_config().vocab_size, seed) for n in entry["lengths"]]
    attention = entry.get("attention", "eager")
    records = []
    if "plain" not in options:
        if "codes" in entry:
            quantise(folder, **entry["codes"])
        model = load(folder / "dequantised" if "codes" in entry else folder, attention)
        records.append(expect(model, prompts, seed, attention))
        shutil.rmtree(folder / "dequantised", ignore_errors=True)
        write_json(folder / "expected.json", records[0])
    kinds = entry.get("twins", [])
    for kind in kinds:
        stem = "twin" if len(kinds) == 1 else f"twin-{kind}"
        source = load(folder)
        source.config.model_type = entry.get("twin_of", source.config.model_type)
        state = gguf_twin.write(folder / f"{stem}.gguf", source, kind, options)
        own = source.state_dict()
        changed = any(key in own and not torch.equal(value, own[key]) for key, value in state.items())
        if changed or "plain" in options:
            records.append(expect(loaded_with(folder, state) if changed else load(folder), prompts, seed))
            write_json(folder / f"{stem}.expected.json", records[-1])
    if "plain" in options:
        for path in (*folder.glob("*.safetensors"), folder / "config.json", folder / "generation_config.json"):
            path.unlink()
    if "recast" in entry:
        recast(folder, entry["recast"])
    if "pytorch" in entry:
        pickled(folder, entry["pytorch"])
    for path in folder.iterdir():
        path.chmod(0o644)
    return records


def recast(folder, change):
    """Rewrite a checkpoint as one of a family that transformers does not hold, of the same mathematics."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    state = change(values, safetensors.torch.load_file(weights))
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, weights, metadata={"format": "pt"})
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def quantise(folder, config, make, dimensions=2, only=".layers."):
    """Make codes and scales of the matrices of the blocks, all but routers and gates of one row, or of some of them, or of
    stacks of matrices alone; leave what the libraries make of them in a folder beside."""
    weights, path = folder / "model.safetensors", folder / "config.json"
    stored, plain = safetensors.torch.load_file(weights), folder / "dequantised"
    dequantised = dict(stored)
    for name, tensor in dequantised.items():
        left = name.endswith(("mlp.gate.weight", "shared_expert_gate.weight"))
        if tensor.ndim == dimensions and only in name and not name.endswith("_bias") and not left:
            dequantised[name], tensors = make(tensor)
            del stored[name]
            stored.update({name.removesuffix("weight") + key: value for key, value in tensors.items()})
    plain.mkdir()
    for at, tensors in ((folder, stored), (plain, dequantised)):
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        safetensors.torch.save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})
    values = json.loads(path.read_text())
    write = lambda at, values: at.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    write(plain / "config.json", values)
    write(path, {**values, "quantization_config": config})


def pickled(folder, shards):
    """Replace the safetensors file by PyTorch files; tied embeddings are there twice, sharing their storage."""
    weights = folder / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    if json.loads((folder / "config.json").read_text())["tie_word_embeddings"]:
        state["lm_head.weight"] = next(state[name] for name in ("model.embed_tokens.weight", "wte.weight") if name in state)
    weights.unlink()
    if shards == 1:
        return torch.save(state, folder / "pytorch_model.bin")
    names = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
    places = {name: names[i * shards // len(state)] for i, name in enumerate(state)}
    for file in names:
        torch.save({name: state[name] for name in state if places[name] == file}, folder / file)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in state.values())}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load(folder, attention="eager"):
    towers = "text_config" in json.loads((folder / "config.json").read_text())
    return auto_class(towers).from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


def loaded_with(folder, state):
    model = load(folder)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model


def prompt(length, vocab_size, seed):
    """Random ids, never the special ones 0, 1, 2."""
    generator = torch.Generator().manual_seed(77 * length + seed)
    return torch.randint(3, vocab_size, (length,), generator=generator).tolist()


def expect(model, prompts, seed, attention="eager"):
    """What transformers computes for each prompt."""
    return {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed,
        "dtype": "float32", "attention": attention, "prompts": [one_prompt(model, ids) for ids in prompts],
    }


@torch.no_grad()
def one_prompt(model, ids):
    def fresh():
        return copy.deepcopy(model)  # dynamic rope keeps state from call to call

    logits = fresh()(torch.tensor([ids])).logits[0].float()
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:], dtype=torch.long)]
    greedy, gaps = generate(fresh(), ids, NEW_TOKENS)
    uncached = full_passes(fresh, ids, NEW_TOKENS)
    record = {"ids": ids, "logprobs": [None, *short(chosen)], "logits_last": short(logits[-1]), "greedy": greedy,
              "greedy_gaps": gaps}
    if uncached != greedy:
        record["greedy_without_cache"] = uncached
    return record


def generate(model, ids, count):
    """Greedy tokens with the KV cache, no end of sequence, and the gap between the two best logits at each step."""
    model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None, bos_token_id=None)
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=count,
                         use_cache=True, return_dict_in_generate=True, output_logits=True)
    best = [step[0].float().topk(2).values for step in out.logits]
    return out.sequences[0, len(ids):].tolist(), short(torch.stack([b[0] - b[1] for b in best]))


def full_passes(fresh, ids, count):
    """Greedy tokens where every step computes the whole sequence anew."""
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(fresh()(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(ids):]


def short(values):
    """float32 values as their shortest decimal form."""
    return [float(str(np.float32(v))) for v in values.tolist()]


def clear(record):
    return all(clear_steps(p["greedy"], p["greedy_gaps"]) for p in record["prompts"])


def clear_steps(tokens, gaps):
    """Greedy steps without near-ties, and more than two tokens in them."""
    return min(gaps) > GAP_MIN and len(set(tokens)) > 2


def write_json(path, value):
    """One prompt field a line: readable, and small."""
    def fields(of):
        return [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in of.items() if k != "prompts"]

    prompts = ",\n".join("  {" + ",\n   ".join(fields(p)) + "}" for p in value["prompts"])
    head = "".join(f" {field},\n" for field in fields(value))
    path.write_text("{\n" + head + ' "prompts": [\n' + prompts + "\n ]\n}\n")


def size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "fixtures")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in args.names or [*FIXTURES, "chat"]:
        if name == "chat":
            chat.make(args.out)
            continue
        with contextlib.ExitStack() as altered:
            for change in FIXTURES[name].get("alter", list)():
                altered.enter_context(unittest.mock.patch.object(*change))
            make(name, FIXTURES[name], args.out)


if __name__ == "__main__":
    main()
