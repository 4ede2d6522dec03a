#!/usr/bin/env python3
"""Make fixtures/encoders/: tiny random models that compute vectors of texts, and what transformers and sentence-transformers compute with them.

usage: encoders.py [--out FOLDER] [NAME ...]      all of them when none is named

Each folder holds a checkpoint as transformers writes it and `expected.json`: for some texts, as token ids, the last hidden state
of the first token and of the last, and the mean of all; with `second`, tokens from there on are of the second part of the text.
Of models with a head, the scores too. Folders of sentence-transformers hold texts in words and the vectors that `encode` gives.
`twin.gguf` is the same model as GGUF, where llama.cpp has its kind.
"""

import argparse
import json
import pathlib
import shutil
import types

import safetensors.torch
import torch
import transformers

import encoder_twin

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "encoders"
SMALL = dict(
    vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64, layer_norm_eps=1e-5, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
LENGTHS = [1, 2, 9, 33]
LABELS = {"id2label": {0: "no", 1: "yes", 2: "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
ONE = {"num_labels": 1}


def published_nomic(config):
    """NomicBERT's configuration as its makers published it."""
    for old, new in {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
                     "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
                     "layer_norm_eps": "layer_norm_epsilon"}.items():
        config[new] = config.pop(old)
    config["rotary_emb_base"] = config.pop("rope_parameters")["rope_theta"]
    config |= {"activation_function": "swiglu", "rotary_emb_fraction": 1.0, "prenorm": False, "qkv_proj_bias": False}
    for key in ("head_dim", "hidden_act"):
        config.pop(key, None)


def published_gte(config):
    """GTE's configuration as its makers published it."""
    config |= {"model_type": "new", "architectures": ["NewModel"], "rope_theta": config.pop("rope_parameters")["rope_theta"],
               "position_embedding_type": "rope", "pack_qkv": True, "rope_scaling": None}


def published_jina(config):
    """The configuration of Jina's third embeddings as its makers published it."""
    config |= {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "position_embedding_type": "rotary", "emb_pooler": "mean",
               "rotary_emb_base": config.pop("rope_parameters")["rope_theta"], "lora_rank": 4, "lora_alpha": 1,
               "lora_adaptations": ["retrieval.query", "retrieval.passage"]}
    config.pop("head_dim", None)


def parametrised(state):
    """Tensors as PyTorch names them where weights are parametrised, and adapters of two tasks beside each, as published."""
    found = {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            found[name] = tensor
            continue
        stem = name.removesuffix(".weight") + ".parametrizations.weight"
        found[f"{stem}.original"] = tensor
        found[f"{stem}.0.lora_A"] = torch.ones(2, 4, tensor.shape[1])
        found[f"{stem}.0.lora_B"] = torch.ones(2, tensor.shape[0], 4)
    return found


class JinaBertModel(torch.nn.Module):
    """Jina embeddings 2 (arXiv:2310.19923), which transformers does not have: BERT without positions, whose scores fall off with the
    distance on both sides (ALiBi), and whose MLPs have a gate. Tensors are named as they are published."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        width, inner, layer_norm = config.hidden_size, config.intermediate_size, torch.nn.LayerNorm
        linear, norm = torch.nn.Linear, lambda: layer_norm(width, eps=config.layer_norm_eps)
        self.embeddings = torch.nn.ModuleDict({
            "word_embeddings": torch.nn.Embedding(config.vocab_size, width), "LayerNorm": norm(),
            "token_type_embeddings": torch.nn.Embedding(config.type_vocab_size, width)})
        attention = lambda: torch.nn.ModuleDict({
            "self": torch.nn.ModuleDict({name: linear(width, width) for name in ("query", "key", "value")}),
            "output": torch.nn.ModuleDict({"dense": linear(width, width), "LayerNorm": norm()})})
        mlp = lambda: torch.nn.ModuleDict({
            "gated_layers": linear(width, 2 * inner, bias=False), "wo": linear(inner, width), "layernorm": norm()})
        layers = [torch.nn.ModuleDict({"attention": attention(), "mlp": mlp()}) for _ in range(config.num_hidden_layers)]
        self.encoder = torch.nn.ModuleDict({"layer": torch.nn.ModuleList(layers)})

    def slopes(self):
        """Those of the largest power of two of heads, then every other one of twice as many."""
        heads = self.config.num_attention_heads
        power = 1 << (heads.bit_length() - 1)
        of = lambda count: [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]
        return torch.tensor((of(power) + of(2 * power)[::2])[:heads])

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        types_ids = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        e = self.embeddings
        x = e["LayerNorm"](e["word_embeddings"](input_ids) + e["token_type_embeddings"](types_ids))
        place = torch.arange(input_ids.shape[1])
        bias = -self.slopes()[:, None, None] * (place[None, :] - place[:, None]).abs()
        split = lambda y: y.unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)
        for layer in self.encoder["layer"]:
            q, k, v = (split(layer["attention"]["self"][name](x)) for name in ("query", "key", "value"))
            weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + bias).softmax(-1)
            out = layer["attention"]["output"]
            x = out["LayerNorm"](x + out["dense"]((weights @ v).transpose(1, 2).flatten(2)))
            gate, up = layer["mlp"]["gated_layers"](x).chunk(2, dim=-1)
            x = layer["mlp"]["layernorm"](x + layer["mlp"]["wo"](torch.nn.functional.gelu(gate) * up))
        return types.SimpleNamespace(last_hidden_state=x)

    def save_pretrained(self, folder):
        safetensors.torch.save_file(self.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        config = {key: getattr(self.config, key) for key in [*SMALL, "type_vocab_size"]}
        config |= {"architectures": ["JinaBertForMaskedLM"], "model_type": "bert", "position_embedding_type": "alibi",
                   "feed_forward_type": "geglu", "hidden_act": "gelu", "emb_pooler": "mean"}
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def classes(name, config, head=None, **more):
    return dict(config=name, values=config, head=head, **more)


FIXTURES = {
    "bert": classes("Bert", {"type_vocab_size": 2}, twin=("bert", "cls")),
    "bert_prefixed": classes("Bert", {"type_vocab_size": 2}, prefix="bert."),
    "bert_tanh": classes("Bert", {"hidden_act": "gelu_new", "type_vocab_size": 2}),
    "roberta": classes("Roberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "roberta_padding": classes("Roberta", {"pad_token_id": 4, "type_vocab_size": 1}),
    "xlm_roberta": classes("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}, twin=("bert", "mean")),
    "distilbert": classes("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}),
    "mpnet": classes("MPNet", {"pad_token_id": 1}),
    "mpnet_buckets": classes("MPNet", {"pad_token_id": 1, "relative_attention_num_buckets": 40}),
    "modernbert": classes("ModernBert", {"num_hidden_layers": 4, "local_attention": 10, "hidden_activation": "gelu"}),
    "modernbert_biases": classes("ModernBert", {
        "num_hidden_layers": 4, "local_attention": 7, "norm_bias": True, "attention_bias": True, "mlp_bias": True,
        "global_attn_every_n_layers": 2, "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}),
    "eurobert": classes("EuroBert", {"num_key_value_heads": 2}),
    "nomic_bert": classes("NomicBert", {"type_vocab_size": 2}, twin=("nomic-bert", "mean")),
    "nomic_bert_published": classes("NomicBert", {"type_vocab_size": 2}, recast=published_nomic),
    "gte": classes("Gte", {"type_vocab_size": 1}),
    "gte_untyped": classes("Gte", {"type_vocab_size": 0}),
    "gte_published": classes("Gte", {"type_vocab_size": 2}, recast=published_gte),
    "jina_v2": classes("Bert", {"type_vocab_size": 2, "hidden_size": 48, "num_attention_heads": 6}, module=JinaBertModel,
                       twin=("jina-bert-v2", "mean")),
    "jina_v3": classes("JinaEmbeddingsV3", {"type_vocab_size": 1}),
    "jina_v3_published": classes("JinaEmbeddingsV3", {"type_vocab_size": 1}, recast=published_jina, restate=parametrised,
                                 prefix="roberta."),
    "gemma3_ahead": classes("Gemma3Text", {
        "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9, "sliding_window_pattern": 2,
        "use_bidirectional_attention": True, "query_pre_attn_scalar": 8}),
    "qwen2_ahead": classes("Qwen2", {"num_key_value_heads": 2, "is_causal": False}),
    "mistral_ahead": classes("Mistral", {"num_key_value_heads": 2, "is_causal": False, "sliding_window": 5}),
    "qwen3_bare": classes("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "mistral_bare": classes("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    "bert_scores": classes("Bert", {"type_vocab_size": 2} | ONE, "SequenceClassification"),
    "bert_classes": classes("Bert", {"type_vocab_size": 2} | LABELS, "SequenceClassification"),
    "xlm_roberta_scores": classes("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1} | ONE, "SequenceClassification"),
    "distilbert_scores": classes("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48} | ONE,
                                 "SequenceClassification"),
    "mpnet_scores": classes("MPNet", {"pad_token_id": 1} | ONE, "SequenceClassification"),
    "modernbert_scores": classes("ModernBert", {"num_hidden_layers": 4, "local_attention": 10} | ONE, "SequenceClassification"),
    "modernbert_mean_scores": classes("ModernBert", {
        "num_hidden_layers": 4, "local_attention": 10, "classifier_pooling": "mean", "classifier_bias": True,
        "norm_bias": True} | LABELS, "SequenceClassification"),
    "gte_scores": classes("Gte", {"type_vocab_size": 1} | ONE, "SequenceClassification"),
    "qwen3_scores": classes("Qwen3", {"num_key_value_heads": 2, "head_dim": 8} | ONE, "SequenceClassification"),
    "gemma2_scores": classes("Gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16} | ONE,
                             "SequenceClassification"),
}


def build(entry):
    """A model of random weights, large enough that every part of it moves the result."""
    kind = getattr(transformers, entry["config"] + "Config")
    known = {*kind().to_dict(), *kind.attribute_map}
    base = {key: value for key, value in SMALL.items() if key in known}
    for key, name in kind.attribute_map.items():  # under one name or the other
        if name in entry["values"]:
            base.pop(key, None)
    config = kind(**base | entry["values"])
    config._attn_implementation = "eager"
    head = entry["head"]
    module = entry.get("module") or getattr(transformers, f"{entry['config']}{'For' + head if head else 'Model'}")
    model = module(config)
    generator = torch.Generator().manual_seed(7)
    centre = 0.0 if entry["config"].startswith("Gemma") else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(centre + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * noise)
            elif "embed" in name:
                parameter.copy_(0.7 * noise)
            elif "relative_attention_bias" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(1.5 * parameter.shape[-1] ** -0.5 * noise)
    return model.eval()


def texts(model, entry):
    """Token ids, none of which is that of padding, and where a second part begins."""
    generator = torch.Generator().manual_seed(5)
    ids = [torch.randint(6, model.config.vocab_size, (n,), generator=generator).tolist() for n in LENGTHS]
    parts = [None] * len(ids)
    if getattr(model.config, "type_vocab_size", None) == 2:
        ids.append(ids[-1][:21])
        parts.append(8)
    return zip(ids, parts)


def expect(model, entry):
    base = model.base_model if isinstance(model, transformers.PreTrainedModel) else model
    records = []
    for ids, second in texts(model, entry):
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if second is not None:
            inputs["token_type_ids"] = torch.tensor([[int(i >= second) for i in range(len(ids))]])
        with torch.no_grad():
            states = base(**inputs).last_hidden_state[0].double()
            record = {"ids": ids, "second": second, "cls": states[0], "last": states[-1], "mean": states.mean(0)}
            if entry["head"]:
                record["scores"] = model(**inputs).logits[0].double()
        records.append({k: [round(x, 7) for x in v.tolist()] if torch.is_tensor(v) else v for k, v in record.items()})
    return records


def make(name, entry, out):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = build(entry)
    model.save_pretrained(folder)
    weights, path = folder / "model.safetensors", folder / "config.json"
    if "recast" in entry or "prefix" in entry:
        config, state = json.loads(path.read_text()), safetensors.torch.load_file(weights)
        if "recast" in entry:
            entry["recast"](config)
        state = {entry.get("prefix", "") + key: value.contiguous() for key, value in state.items()}
        state = entry.get("restate", dict)(state)
        safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    expected = {"transformers": transformers.__version__, "texts": expect(model, entry)}
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if "twin" in entry:
        encoder_twin.write(folder / "twin.gguf", folder, *entry["twin"])
    for file in folder.iterdir():
        file.chmod(0o644)
    print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for name in args.names or FIXTURES:
        make(name, FIXTURES[name], args.out)


if __name__ == "__main__":
    main()
