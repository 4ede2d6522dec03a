#!/usr/bin/env python3
"""Compare how configurations are read here with how transformers reads them: every model type, every key that a class knows,
altered, removed, null, and stray.

usage: check_configurations.py [--scorer PROGRAM] [--work FOLDER] [--only TYPE,..] [--keys KEY,..] [--every N] [--strays N] [--fixtures NAME,..]

It builds `crates/aerostat/examples/score_folders.rs` unless `--scorer` names what was built. For each case a tiny model of
fixtures/ gets a changed config.json; transformers makes the model that this says, in float32, with the fixture's weights or,
where their shapes change, random ones, and both score the same 40 tokens. Counted are: equal; loaded by neither; refused here
alone, with the reason; wrong; and within rounding, where both are as far from transformers in float64. With `--describe` nothing is scored here, which takes minutes: among the cases of a type that have
the weights of the fixture, those that transformers gives the same log-probabilities must be described alike, and others not. A case whose stray key is read by nothing while transformers makes and runs the model is equal
there by definition, and only run here. `--every N` takes each N-th case, `--strays N` each N-th of those whose key the class
does not know. `--fixtures` names others than the first of each type.
"""

import argparse
import collections
import copy
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
CLASSES = [json.loads(line) for line in (ROOT / "crates/aerostat-arch/src/classes.jsonl").read_text().splitlines()]
TOKENS = 40
CLOSE = 2e-3
SKIPPED = {"vocab_size", "tie_word_embeddings", "layer_types", "mlp_layer_types"}  # of lists and sizes that the data must have
LISTS = {"no_rope_layers": [1, 0], "attention_layers": ["local", "global"], "layer_rope_theta": [0, 500.0], "mlp_only_layers": [0],
         "moe_layers": [0], "indexer_types": ["full", "full"]}


def bases(named=()):
    """One fixture of each model type, and of each type with towers: its folder, configuration, and the keys of its class."""
    classes = {c["type"]: c for c in CLASSES}
    found = {}
    configs = {path: json.loads(path.read_text()) for path in sorted(FIXTURES.glob("*/config.json"))}
    for path, config in sorted(configs.items(), key=lambda item: "text_config" in item[1]):  # towers last
        if named and path.parent.name not in named:
            continue
        text = config.get("text_config", config)
        kind = text.get("model_type", "")
        if "quantization_config" in config or not (path.parent / "model.safetensors").exists() or not (path.parent / "expected.json").exists():
            continue
        name = kind if text is config else f"{config['model_type']}/{kind}"
        if kind in classes and kind in transformers.CONFIG_MAPPING and name not in found:
            found[name] = (path.parent, config, classes[kind])
    return found


def changes(config, known, every_key):
    """Name and function of each change of the text configuration."""
    text = config.get("text_config", config)
    for key in sorted(SKIPPED & text.keys() & {"layer_types", "mlp_layer_types"}):
        yield f"-{key}", lambda t, key=key: t.pop(key)
        yield f"{key}=null", lambda t, key=key: t.update({key: None})
    for key in sorted(every_key - SKIPPED):
        if key in text:
            yield f"-{key}", lambda t, key=key: t.pop(key)
        if text.get(key, 0) is not None:
            yield f"{key}=null", lambda t, key=key: t.update({key: None})
        for value in values(key, text.get(key, known.get(key))):
            yield f"{key}={json.dumps(value)}", lambda t, key=key, value=value: t.update({key: copy.deepcopy(value)})


def values(key, usual):
    """Other values of the same type."""
    if key in LISTS:
        return [LISTS[key]]
    if key in ("rope_parameters", "rope_scaling"):
        return [{"rope_type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}, {"rope_type": "default", "rope_theta": 333.0},
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
                {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}]
    if isinstance(usual, bool):
        return [not usual]
    if key in ("hidden_act", "hidden_activation", "activation", "activation_function", "afn"):
        return [a for a in ("relu", "gelu", "gelu_pytorch_tanh", "quick_gelu", "relu6", "mish", "silu") if a != usual]
    if isinstance(usual, int):
        return [2 * usual, usual // 2] if usual > 1 else [usual + 1]
    if isinstance(usual, float):
        return [usual * 0.5 if usual else 0.25]
    if usual is None:
        return [2, 0.5, True] if not key.startswith("use_") else [True]
    return []


def stable_topk(scores, k, dim=-1, largest=True, sorted=True):
    """The best k, of equal ones the first: torch takes any of them, which shows where an indexer's scores are 0."""
    values, places = torch.sort(scores, dim=dim, descending=largest, stable=True)
    return torch.return_types.topk((values.narrow(dim, 0, k), places.narrow(dim, 0, k)))


class Recorder:
    """What is read of a configuration."""

    def __init__(self, kind):
        self.kind, self.read = kind, set()

    def __enter__(self):
        read, plain = self.read, transformers.PreTrainedConfig.__getattribute__
        self.plain = plain

        def record(config, name):
            read.add(name)
            return plain(config, name)

        transformers.PreTrainedConfig.__getattribute__ = record
        return self

    def __exit__(self, *_):
        transformers.PreTrainedConfig.__getattribute__ = self.plain


def made_of(config):
    """What the class makes of a file: numbers that JSON cannot say are objects there."""
    given = transformers.PreTrainedConfig._decode_special_floats(copy.deepcopy(config))
    return AutoConfig.for_model(given.pop("model_type"), **given)


def build(config, attention):
    """A model of the raw configuration."""
    kind = config["model_type"]
    if kind == "mistral" and "layer_types" in config:  # as AutoConfig does with files
        config = {**config, "model_type": "ministral"}
        kind = "ministral"
    made = made_of({**config, "model_type": kind})
    made._attn_implementation = attention
    auto = transformers.AutoModelForMultimodalLM if "text_config" in config else transformers.AutoModelForCausalLM
    return auto.from_config(made, dtype=torch.float32).eval()


def fill(model, seed=7):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_((0.3 * noise + (1.0 if "norm" in name.lower() else 0.0)) if p.ndim == 1 else 1.5 * noise * p.shape[-1] ** -0.5)


@torch.no_grad()
def score(model, ids):
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()


def judge(own, want, model, ids):
    """The word for scores that are further than CLOSE from transformers', and the distances of both from float64: deep models of
    random weights lose much in float32, transformers as well. Ours must be as near as theirs, but for chance."""
    exact = score(copy.deepcopy(model).double(), ids)
    ours, theirs = differs(own, exact), differs([None, *want], exact)
    return ("within rounding" if ours < CLOSE or ours < 1.5 * theirs else "wrong"), f"{ours:.3g} from float64, transformers {theirs:.3g}"


class Scorer:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, folder, ids):
        self.process.stdin.write(f"{folder}\t{','.join(map(str, ids))}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def differs(own, wanted):
    pairs = zip(own[1:], wanted)
    return max((abs((-1e9 if a is None else a) - b) for a, b in pairs), default=0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--only")
    parser.add_argument("--keys")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--strays", type=int, default=1)
    parser.add_argument("--fixtures")
    args = parser.parse_args()
    scorer = args.scorer
    if not scorer:
        example = "describe_folders" if args.describe else "score_folders"
        subprocess.run(["cargo", "build", "--workspace", "--example", example], cwd=ROOT, check=True)
        scorer = ROOT / "target/debug/examples" / example
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.topk = torch.Tensor.topk = stable_topk
    every_key = {key for c in CLASSES for key in (*c["keys"], *c["names"])} if not args.keys else set(args.keys.split(","))
    ours, total = Scorer(scorer), collections.Counter()
    work = pathlib.Path(args.work or tempfile.mkdtemp())
    for kind, (folder, config, known) in bases((args.fixtures or "").split(",") if args.fixtures else ()).items():
        if args.only and kind not in args.only.split(","):
            continue
        count = one_type(kind, folder, config, known, every_key, (args.every, args.strays), ours, work)
        total += count
        print(f"{kind}: {dict(count)}", flush=True)
    print(f"in all: {dict(total)}")
    sys.exit(total["wrong"] > 0)


def one_type(kind, folder, config, known, every_key, steps, ours, work):
    count, (every, strays) = collections.Counter(), steps
    attention = "sdpa" if kind == "falcon" else json.loads((folder / "expected.json").read_text()).get("attention", "eager")
    vocab = config.get("text_config", config)["vocab_size"]
    ids = torch.randint(3, vocab, (TOKENS,), generator=torch.Generator().manual_seed(5)).tolist()
    with Recorder(kind) as recorder:
        base = build(config, attention)
        fill(base)
        wanted = score(base, ids)
    shapes = {name: tuple(p.shape) for name, p in base.state_dict().items()}
    stored = work / kind.replace("/", "-")
    save(base, stored, config)
    alike, described = {}, {}
    said = made_of(config).to_dict()
    for number, (name, change) in enumerate([("as it is", lambda t: None), *changes(config, known["keys"], every_key)]):
        key = name.lstrip("-").split("=")[0]
        if number and (number % every or number % strays and key not in known["keys"] and key not in known["names"]):
            continue
        changed = copy.deepcopy(config)
        change(changed.get("text_config", changed))
        try:
            want, where = wanted, stored
            if number and matters(changed, said, recorder.read, name):
                model = build(changed, attention)
                if {n: tuple(p.shape) for n, p in model.state_dict().items()} == shapes:
                    model.load_state_dict(base.state_dict())
                else:
                    fill(model)
                    where = work / "other"
                    save(model, where, changed)
                want = score(model, ids)
                if any(v != v for v in want):
                    raise ValueError("NaN")
        except Exception as error:
            want = None
        (where / "config.json").write_text(json.dumps(changed))
        own = ours(where, ids)
        if want is None:
            count["neither" if "error" in own else "here alone"] += 1
        elif "error" in own:
            count["refused"] += 1
            print(f"  {kind} {name}: refused: {re.sub(r'^.*config.json: ', '', own['error'])[:160]}", flush=True)
        elif "spec" in own:
            if where != stored:
                count["other shapes"] += 1
                continue
            scored = tuple(round(v, 5) for v in want)
            first = alike.setdefault(scored, (own["spec"], name))
            if first[0] != own["spec"]:
                count["apart"] += 1
                print(f"  {kind} {name}: APART from `{first[1]}`, which transformers scores alike", flush=True)
            elif described.setdefault(own["spec"], (scored, name))[0] != scored:
                count["wrong"] += 1
                print(f"  {kind} {name}: WRONG: described as `{described[own['spec']][1]}`, scored otherwise", flush=True)
            else:
                count["equal"] += 1
        elif (by := differs(own["logprobs"], want)) > CLOSE:
            verdict, distances = judge(own["logprobs"], want, base if want is wanted else model, ids)
            count[verdict] += 1
            print(f"  {kind} {name}: {verdict.upper()}, by {by:.3g}: {distances}", flush=True)
        else:
            count["equal"] += 1
    return count


def matters(changed, said, read, name):
    """Whether transformers can see the change: in what the class makes of it, or by an attribute that is read."""
    key = name.lstrip("-").split("=")[0]
    if key in read:
        return True
    made = made_of(changed).to_dict()
    for of in (made, said, made.get("text_config", {}), said.get("text_config", {})):
        of.pop(key, None)
    return made != said


def save(model, folder, config):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
