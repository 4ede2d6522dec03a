"""Write an encoder as GGUF, with the names, layouts and metadata that llama.cpp's converter gives it."""

import base64
import json

import gguf
import numpy as np
import safetensors.torch

POOLING = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS, "last": gguf.PoolingType.LAST}
CONTROL, NORMAL, UNKNOWN = (int(kind) for kind in (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNKNOWN))


def write(path, folder, arch, pooling, vocabulary=None):
    """Write the checkpoint in `folder` to `path`. `arch` is `general.architecture`."""
    config = json.loads((folder / "config.json").read_text())
    get = lambda *keys: next(config[key] for key in keys if config.get(key) is not None)
    layers = get("num_hidden_layers", "n_layer")
    writer = gguf.GGUFWriter(None, arch)
    writer.add_type("model")
    writer.add_name(folder.name)
    # Positions of RoBERTa's kind begin behind that of the padding token, and the rows before that are left out.
    skipped = config["pad_token_id"] + 1 if config["model_type"] in ("roberta", "xlm-roberta") else 0
    writer.add_context_length(get("max_position_embeddings", "n_positions") - skipped)
    writer.add_embedding_length(get("hidden_size", "n_embd"))
    writer.add_block_count(layers)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner"))
    writer.add_head_count(get("num_attention_heads", "n_head"))
    writer.add_layer_norm_eps(get("layer_norm_eps", "layer_norm_epsilon"))
    writer.add_causal_attention(False)
    writer.add_pooling_type(POOLING[pooling])
    writer.add_file_type(0)
    if arch == "nomic-bert":
        writer.add_rope_freq_base((config.get("rope_parameters") or {}).get("rope_theta") or config["rotary_emb_base"])
    (vocabulary or bare_vocabulary(get("vocab_size")))(writer)
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, layers)
    for name, tensor in safetensors.torch.load_file(folder / "model.safetensors").items():
        rows = np.ascontiguousarray(tensor.float().numpy())
        if "pooler." in name:  # a head over the first token, which vectors do without
            continue
        if name == "embeddings.position_embeddings.weight":
            rows = rows[skipped:]
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        writer.add_tensor(found, rows)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bare_vocabulary(size):
    """A WordPiece vocabulary of letters, for models that are given token ids."""
    def add_to(writer):
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + ["\u2581" + chr(33 + i) for i in range(size - 5)]
        add_words(writer, tokens, [CONTROL] * 5 + [NORMAL] * (size - 5), cls=2, separator=3, unknown=1)

    return add_to


def word_pieces(folder):
    """Metadata of the WordPiece tokenizer in a folder: a mark before what begins a word, nothing before what goes on with one."""
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]

    def add_to(writer):
        # An id that no token has, as where a word was listed twice, has a name that no text has.
        named = {id: token for token, id in vocab.items()}
        tokens = [named.get(id, f"[unused{id}]") for id in range(max(named) + 1)]
        special = [t.startswith("[") and t.endswith("]") for t in tokens]
        marked = [t if s else t[2:] if t.startswith("##") else "\u2581" + t for t, s in zip(tokens, special)]
        kinds = [CONTROL if s else NORMAL for s in special]
        add_words(writer, marked, kinds, vocab["[CLS]"], vocab["[SEP]"], vocab["[UNK]"])

    return add_to


def add_words(writer, tokens, kinds, cls, separator, unknown):
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_uint32("tokenizer.ggml.cls_token_id", cls)
    writer.add_sep_token_id(separator)
    writer.add_unk_token_id(unknown)


def unigram(folder):
    """Metadata of the Unigram tokenizer in a folder, as XLM-RoBERTa has it."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pieces = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}

    def add_to(writer):
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([piece for piece, _ in pieces])
        writer.add_token_scores([score for _, score in pieces])
        unknown = tokenizer["model"]["unk_id"]
        writer.add_token_types([UNKNOWN if i == unknown else CONTROL if p in special else NORMAL for i, (p, _) in enumerate(pieces)])
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(True)
        table = next(step for step in tokenizer["normalizer"]["normalizers"] if step["type"] == "Precompiled")
        writer.add_precompiled_charsmap(base64.b64decode(table["precompiled_charsmap"]))
        names = {piece: i for i, (piece, _) in enumerate(pieces)}
        writer.add_bos_token_id(names["<s>"])
        writer.add_eos_token_id(names["</s>"])
        writer.add_unk_token_id(unknown)
        writer.add_pad_token_id(names["<pad>"])
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    return add_to
