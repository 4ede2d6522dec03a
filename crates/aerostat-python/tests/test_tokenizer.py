"""The tokenizer, against what transformers gives."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import aerostat
from aerostat import AutoModel, Tokenizer

from conftest import expected, fixture


@pytest.fixture(scope="module")
def tokenizer(chat: str) -> Tokenizer:
    return AutoModel.from_pretrained(chat, progress=False).tokenizer


def test_ids_and_texts_are_transformers(tokenizer: Tokenizer) -> None:
    for case in expected("chat")["encodings"]:
        assert tokenizer.encode(case["text"], add_special_tokens=False) == case["ids"]
        assert tokenizer.encode(case["text"]) == case["ids_with_special_tokens"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_a_pickled_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    tokenizer.padding_side = "left"
    again = pickle.loads(pickle.dumps(tokenizer))
    texts = ["Hello", "Hello, you there"]
    assert again(texts, padding=True) == tokenizer(texts, padding=True) and again.padding_side == "left"
    assert copy.deepcopy(tokenizer).decode([42, 71]) == tokenizer.decode([42, 71])
    tokenizer.padding_side = "right"


def test_a_call_gives_ids_and_masks(tokenizer: Tokenizer) -> None:
    one = tokenizer("Hello")
    assert one["input_ids"] == tokenizer.encode("Hello") and one.attention_mask == [1] * len(one.input_ids)
    both = tokenizer(["Hello", "Hello, you there"], padding=True, return_tensors="np")
    assert both.input_ids.shape == both.attention_mask.shape and both.input_ids.dtype == np.int64
    assert both.input_ids[0, -1] == tokenizer.pad_token_id and both.attention_mask[0, -1] == 0
    left = tokenizer(["Hello", "Hello, you there"], padding=True, padding_side="left")
    assert left.attention_mask[0][0] == 0 and left.attention_mask[0][-1] == 1
    assert len(tokenizer("Hello, you there", truncation=True, max_length=2).input_ids) == 2
    assert "attention_mask" not in tokenizer("Hello", return_attention_mask=False)
    assert len(tokenizer("Hello", padding="max_length", max_length=12).input_ids) == 12
    with pytest.raises(aerostat.UsageError, match="padding=True"):
        tokenizer(["Hello", "Hello, you there"], return_tensors="np")


def test_tensors_have_what_scripts_call(tokenizer: Tokenizer) -> None:
    ids = tokenizer("Hello", return_tensors="pt")["input_ids"]
    assert ids.cuda().shape == ids.shape and ids.to("cuda").tolist() == ids.tolist() and ids.cpu().tolist() == ids.tolist()
    assert tokenizer.decode(ids[0]) == "Hello"


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_ids_pickle_and_stay_what_they_are(tokenizer: Tokenizer, kind: Any) -> None:
    ids = tokenizer("Hello", return_tensors=kind)["input_ids"]
    for again in (pickle.loads(pickle.dumps(ids)), copy.copy(ids), copy.deepcopy(ids)):
        assert type(again) is type(ids) and np.array_equal(np.asarray(again), np.asarray(ids))


@pytest.mark.parametrize("form", [list, tuple, np.asarray])
def test_decode_takes_many_forms(tokenizer: Tokenizer, form: Any) -> None:
    ids = tokenizer.encode("Hello you")
    assert tokenizer.decode(form(ids)) == "Hello you"
    assert tokenizer.batch_decode([form(ids), form(ids)]) == ["Hello you"] * 2
    assert tokenizer.decode(ids[0]) == tokenizer.decode([ids[0]])


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    text = tokenizer.decode([1, *tokenizer.encode("Hi"), 2])
    assert text == "<|im_start|>Hi<|im_end|>"
    assert tokenizer.decode([1, *tokenizer.encode("Hi"), 2], skip_special_tokens=True) == "Hi"
    assert tokenizer.convert_ids_to_tokens([1, 2]) == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert len(tokenizer) == tokenizer.vocab_size and tokenizer.get_vocab()["<|im_end|>"] == 2


def test_the_padding_token_can_be_set(chat: str) -> None:
    tokenizer = AutoModel.from_pretrained(chat, progress=False).tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == 2
    tokenizer.pad_token_id = 0
    assert tokenizer.pad_token == "<|endoftext|>"
    with pytest.raises(aerostat.UsageError):
        tokenizer.pad_token = "no such token"


def test_templates(tokenizer: Tokenizer) -> None:
    talk = [{"role": "user", "content": "Hi"}]
    own = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    assert tokenizer.apply_chat_template(talk, chat_template=own, tokenize=False) == "[user] Hi<|im_end|>"
    assert tokenizer.apply_chat_template([talk, talk], chat_template=own, tokenize=False, add_generation_prompt=True) == ["[user] Hi<|im_end|>>"] * 2
    ids = tokenizer.apply_chat_template(talk, return_dict=False)
    assert ids == tokenizer.apply_chat_template(talk)["input_ids"] and isinstance(ids, list)
    begun = [*talk, {"role": "assistant", "content": "Well"}]
    assert tokenizer.apply_chat_template(begun, chat_template=own, tokenize=False, continue_final_message=True) == "[user] Hi<|im_end|>[assistant] Well"
    with pytest.raises(aerostat.TextError):
        tokenizer.apply_chat_template(talk, chat_template="{{ raise_exception('no') }}", tokenize=False)


def test_a_model_without_a_tokenizer_says_so() -> None:
    model = AutoModel.from_pretrained(fixture("llama"), progress=False)
    with pytest.raises(aerostat.TextError, match="token ids"):
        model.generate(["Hello"], max_new_tokens=1)


@pytest.mark.parametrize("ids", ["12", ["1"], [1.5], [-1], None, [None]])
def test_what_is_no_token_id_is_not_decoded(tokenizer: Tokenizer, ids: Any) -> None:
    """A text of digits was taken for ids, and what stood behind a point was left out."""
    with pytest.raises((ValueError, TypeError)):
        tokenizer.decode(ids)
    assert tokenizer.decode(np.float32(1.0).reshape(1)) == tokenizer.decode([1])
