"""Arguments of another kind than is meant: each is refused by its name, and none is accepted without effect."""

import asyncio
import json
import shutil
from collections import UserDict
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import aerostat
from aerostat import LLM, AutoModel, PoolingParams, SamplingParams

SURROGATE = "a\ud800b"
LABELS = ["good", "bad"]
GREEDY = SamplingParams(temperature=0, max_tokens=3)


class Streamer:
    def __init__(self) -> None:
        self.seen = 0

    def put(self, _value: Any) -> None:
        self.seen += 1

    def end(self) -> None:
        pass


@pytest.fixture(scope="module")
def llm(chat: str) -> LLM:
    return LLM(chat, progress=False)


@pytest.fixture(scope="module")
def model(chat: str) -> AutoModel:
    return AutoModel.from_pretrained(chat, progress=False)


TEXT_LISTS: dict[str, Callable[[LLM, Any], Any]] = {
    "labels": lambda llm, x: llm.classify("a", x),
    "data_1": lambda llm, x: llm.score(x, ["a", "b"]),
    "data_2": lambda llm, x: llm.score("a", x),
    "documents": lambda llm, x: llm.rerank("q", x),
    "contexts": lambda llm, x: llm.log_likelihood(x, ["a", "b"]),
    "continuations": lambda llm, x: llm.log_likelihood(["a", "b"], x),
    "sentences": lambda llm, x: llm.as_encoder().encode(x),
    "text": lambda llm, x: llm.get_tokenizer()(x),
}


@pytest.mark.parametrize("name", TEXT_LISTS)
def test_lists_of_texts_are_no_tables_and_no_dicts(llm: LLM, name: str) -> None:
    """The names of columns, and keys, were worked on in place of what they name."""
    for wrong in ({"a": "x", "b": "y"}, 5, b"ab", *([None] if name != "labels" else [])):
        # A dict is one prompt to a score, and one without a text.
        with pytest.raises(aerostat.UsageError, match=name if not (isinstance(wrong, dict) and "data" in name) else "not supported"):
            TEXT_LISTS[name](llm, wrong)
    pandas, polars, pyarrow = (pytest.importorskip(library) for library in ("pandas", "polars", "pyarrow"))
    for make in (pandas.DataFrame, polars.DataFrame, pyarrow.table):
        with pytest.raises(aerostat.UsageError, match=f"{name}: a .* is a table: give one of its columns"):
            TEXT_LISTS[name](llm, make({"a": ["x", "y"], "b": ["z", "w"]}))


def test_a_template_is_for_whatever_holds_a_text(llm: LLM) -> None:
    """It was for texts alone; prompts that are dicts went without, and of a table the columns' names went with it."""
    wanted = llm.classify("fine:", LABELS)[0].outputs
    prompts = ["fine", {"prompt": "fine"}, [{"prompt": "fine"}], np.asarray(["fine"]), (text for text in ["fine"])]
    assert all(llm.classify(prompt, LABELS, template="{text}:")[0].outputs == wanted for prompt in prompts)
    for prompt in ([5, 6], [[5, 6]], {"prompt_token_ids": [5, 6]}):
        with pytest.raises(aerostat.UsageError, match="prompt 0: a template takes texts"):
            llm.classify(prompt, LABELS, template="{text}:")
    for template in (5, "no place", SURROGATE):
        with pytest.raises(aerostat.UsageError, match="template"):
            llm.classify("fine", LABELS, template=template)  # type: ignore[arg-type]
    pandas = pytest.importorskip("pandas")
    with pytest.raises(aerostat.UsageError, match="is a table"):
        llm.classify(pandas.DataFrame({"review": ["x"], "id": [1]}), LABELS, template="{text}:")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"generation_config": "/no/such"}, "generation_config"), ({"generation_config": None}, "generation_config"),
        ({"generation_config": 5}, "generation_config"), ({"override_generation_config": {"temprature": 0}}, "did you mean 'temperature'"),
        ({"override_generation_config": 5}, "override_generation_config"), ({"pooler_config": {"pooling_typ": "MEAN"}}, "did you mean 'pooling_type'"),
        ({"pooler_config": {"dimensions": -3}}, "dimensions"), ({"pooler_config": {"dimensions": 2.5}}, "dimensions"), ({"pooler_config": 5}, "pooler_config"),
        ({"pooler_config": {"normalize": "no"}}, "normalize"), ({"pooler_config": {"pooling_type": ["MEAN"]}}, "pooling_type"),
        ({"pooler_config": {"tok_pooling_type": "STEP"}}, "tok_pooling_type"),
        ({"chat_template": False}, "chat_template"), ({"chat_template": 5}, "chat_template"), ({"chat_template": ""}, "chat_template"),
        ({"memory": "9" * 400}, "memory"), ({"memory": "9999999999999GiB"}, "memory"), ({"memory": "4GiB", "headroom": "9" * 400}, "headroom"),
        ({"revision": 5}, "revision"), ({"revision": SURROGATE}, "revision"), ({"hf_token": 5}, "hf_token"), ({"spill": 5}, "spill"), ({"draft": 5}, "draft"),
        ({"download_dir": 5}, "download_dir"), ({"tokenizer": 5}, "tokenizer"), ({"io": 5}, "io is 5"), ({"kv": 5}, "kv"), ({"threads": 10**30}, "threads"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_options_of_llm(chat: str, how: dict[str, Any], named: str) -> None:
    with pytest.raises(aerostat.UsageError, match=named):
        LLM(chat, progress=False, **how)


@pytest.mark.parametrize("path", [5, None, SURROGATE, "\0", True], ids=repr)
def test_paths_of_models(path: Any) -> None:
    for make in (LLM, AutoModel.from_pretrained):
        with pytest.raises(aerostat.UsageError, match="model"):
            make(path)


@pytest.mark.parametrize(
    "how", [{"compression": ["x"]}, {"compression": "zip"}, {"hf_token": 5}, {"token": 5}, {"cache_dir": 5}, {"revision": 5}, {"threads": "two"}], ids=repr
)
def test_options_of_auto_model(chat: str, how: dict[str, Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=next(iter(how))):
        AutoModel.from_pretrained(chat, progress=False, **how)


def test_what_transformers_alone_knows_is_noted(chat: str, caplog: pytest.LogCaptureFixture) -> None:
    assert LLM(chat, override_generation_config={"do_sample": False, "top_k": 3}, progress=False).get_default_sampling_params().top_k == 3
    assert "do_sample has no effect" in caplog.text


def test_broken_files_beside_a_model(chat: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They were as if they were not there."""
    folder, other = tmp_path / "model", tmp_path / "other"
    other.mkdir()
    for text in ('{"temperature":', "[1]"):
        (other / "generation_config.json").write_text(text)
        with pytest.raises(aerostat.ModelError, match="generation_config.json"):
            LLM(chat, generation_config=other, progress=False)
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(chat, folder)
            (folder / name).write_text(text)
            caplog.clear()
            LLM(folder, progress=False)
            assert f"going on without what it says: {folder / name}" in caplog.text
    (other / "generation_config.json").write_text(json.dumps({"temperature": 0.5}))
    assert LLM(chat, generation_config=other, progress=False).get_default_sampling_params().temperature == 0.5


CALLS: list[tuple[str, Callable[[LLM], Any]]] = [
    ("pooling_params", lambda llm: llm.embed("a", pooling_params={"dimensions": 3})),  # type: ignore[arg-type]
    ("pooling_params", lambda llm: llm.embed("a", pooling_params="x")),
    ("pooling_params", lambda llm: llm.encode("a", {"dimensions": 3})),  # type: ignore[arg-type]
    ("pooling_params", lambda llm: llm.encode(["a"], [5], pooling_task="token_embed")),  # type: ignore[list-item]
    ("1 prompts and 2 pooling", lambda llm: llm.embed(["a"], pooling_params=[PoolingParams()] * 2)),
    ("lora_request", lambda llm: llm.encode(["a"], pooling_task="token_embed", lora_request=3)),
    ("label 1", lambda llm: llm.classify("a", ["b", SURROGATE])),
    ("label 0", lambda llm: llm.classify("a", [1])),  # type: ignore[list-item]
    ("label 0", lambda llm: llm.classify("a", [None])),  # type: ignore[list-item]
    ("calibrate", lambda llm: llm.classify("a", LABELS, measure="calibrated", calibrate=5)),  # type: ignore[arg-type]
    ("prompt", lambda llm: llm.as_encoder().encode("a", prompt=5)),  # type: ignore[arg-type]
    ("prompt_name", lambda llm: llm.as_encoder().encode("a", prompt_name=5)),  # type: ignore[arg-type]
    ("instruction", lambda llm: llm.rerank("a", ["b"], instruction=5)),  # type: ignore[arg-type]
    ("max_new_tokens", lambda llm: llm.run_batch("/no/such", "/no/such", max_new_tokens=-1)),
    ("max_new_tokens", lambda llm: llm.run_batch("/no/such", "/no/such", max_new_tokens=5.5)),  # type: ignore[arg-type]
    ("restart", lambda llm: llm.run_batch("/no/such", "/no/such", restart="no")),  # type: ignore[arg-type]
    ("input", lambda llm: llm.run_batch(5, "/no/such")),  # type: ignore[arg-type]
    ("mask", lambda llm: llm.generate(np.ma.masked_array([1, 2], mask=[0, 1]), GREEDY)),
]


@pytest.mark.parametrize(("named", "call"), CALLS, ids=[f"{number}-{named}" for number, (named, _) in enumerate(CALLS)])
def test_calls_of_llm(llm: LLM, named: str, call: Callable[[LLM], Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=named):
        call(llm)


def test_engines_refuse_what_calls_refuse(llm: LLM) -> None:
    from aerostat.vllm import AsyncLLM, LLMEngine

    engine = LLMEngine(llm)
    engine.add_request("0", "a", GREEDY, arrival_time=0.0)
    with pytest.raises(aerostat.UsageError, match="lora_request"):
        engine.add_request("1", "a", GREEDY, lora_request=3)
    with pytest.raises(TypeError, match="bogus"):
        engine.add_request("1", "a", GREEDY, bogus=3)
    with pytest.raises(aerostat.UsageError, match="lora_request"):
        asyncio.run(anext(AsyncLLM(llm).generate("a", GREEDY, "2", lora_request=3)))  # type: ignore[arg-type]
    assert engine.get_num_unfinished_requests() == 1
    engine.abort_request("0")


def test_vectors_of_tokens_take_what_vectors_take(llm: LLM) -> None:
    """Of words that it did not know it said nothing, and a prompt that cannot be served ended the call."""
    with pytest.raises(TypeError, match="bogus"):
        llm.encode(["a"], pooling_task="token_embed", bogus=1)
    good, bad = llm.encode(["a", ""], pooling_task="token_embed", on_error="return")
    assert good.error is None and good.outputs is not None and bad.outputs is None and isinstance(bad.error, aerostat.UsageError)
    found = llm.embed(["a", "", "b"], pooling_params=[PoolingParams(dimensions=3), PoolingParams(), PoolingParams()], on_error="return")
    assert [None if one.outputs is None else one.outputs.hidden_size for one in found] == [3, None, 32]


def _complex(_ids: Any, scores: Any) -> Any:
    return np.asarray(scores) * (1 + 1j)


GENERATE: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("attention_mask goes with token ids", (["hi"],), {"attention_mask": [[1]]}),
    ("inputs and input_ids", ([[1, 2]],), {"input_ids": [[3, 4]]}),
    ("inputs_embeds", ({"input_ids": [[1]], "inputs_embeds": 5},), {}),
    ("'foo'", ({"input_ids": [[1]], "foo": 3},), {}),
    ("attention_mask is given twice", ({"input_ids": [[1]], "attention_mask": [[1]]},), {"attention_mask": [[1]]}),
    ("max_new_tokens is given twice", ({"input_ids": [[1]], "max_new_tokens": 1},), {"max_new_tokens": 2}),
    ("no input_ids", ({},), {}),
    ("no input_ids; it has ids", ({"ids": [[1]]},), {}),
    ("generation_config.*'max_new_tokens'", ([[1]],), {"generation_config": {"max_new_tokns": 1}}),
    ("generation_config", ([[1]],), {"generation_config": "x"}),
    ("generation_config", ([[1]],), {"generation_config": 5}),
    ("inputs_embeds is a value of type ndarray", (), {"inputs_embeds": np.zeros((1, 2, 3))}),
    ("past_key_values", ([[1]],), {"past_key_values": np.zeros(3)}),
    ("num_beams", ([[1]],), {"num_beams": np.asarray([1, 2])}),
    ("num_beams is np.int64", ([[1]],), {"num_beams": np.int64(2)}),
    ("streamer", ([[1]],), {"streamer": 5}),
    ("logits_processor", ([[1]],), {"logits_processor": _complex}),
    ("logits_processor", ([[1]],), {"logits_processor": [5]}),
    ("a logits processor gave scores of type complex", ([[1]],), {"logits_processor": [_complex]}),
    ("stopping_criteria", ([[1]],), {"stopping_criteria": 5}),
    ("stop_strings", ([[1]],), {"stop_strings": 5}),
    ("stop_strings", ([[1]],), {"stop_strings": SURROGATE}),
    ("bad_words_ids", ([[1]],), {"bad_words_ids": 5}),
    ("do_sample", ([[1]],), {"do_sample": "no"}),
    ("return_dict_in_generate", ([[1]],), {"return_dict_in_generate": "no"}),
    ("prompt 0", (SURROGATE,), {}),
    ("prompt 1", (["a", 5],), {}),
    ("mask", (np.ma.masked_array([[1, 2]], mask=[[0, 1]]),), {}),
    ("generate needs token ids or texts", (), {}),
]


@pytest.mark.parametrize(("named", "given", "how"), GENERATE, ids=[f"{number}-{row[0]}" for number, row in enumerate(GENERATE)])
def test_calls_of_generate(model: AutoModel, named: str, given: tuple[Any, ...], how: dict[str, Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=named):
        model.generate(*given, **{"max_new_tokens": 2, **how} if not (given and isinstance(given[0], dict)) else how)


def test_what_a_tokenizer_gave_may_be_handed_over_whole(model: AutoModel) -> None:
    ids = model.tokenizer("Hello there")["input_ids"]
    whole = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
    wanted = model.generate([ids], max_new_tokens=3, do_sample=False).tolist()
    for given, how in ((whole, {"max_new_tokens": 3}), ({**whole, "max_new_tokens": 3}, {}), (UserDict(whole), {"max_new_tokens": 3})):
        assert model.generate(given, do_sample=False, **how).tolist() == wanted
    assert np.isclose(model({**whole, "labels": [ids]}).loss, model([ids], labels=[ids]).loss)
    with pytest.raises(aerostat.UsageError, match="labels is given twice"):
        model({**whole, "labels": [ids]}, labels=[ids])
    with pytest.raises(aerostat.UsageError, match="no input_ids; it has ids"):
        model({"ids": [ids]})
    with pytest.raises(aerostat.UsageError, match="inputs_embeds is a value of type ndarray"):
        model([ids], inputs_embeds=np.zeros(3))


def test_a_streamer_of_one_text_and_a_dict_that_has_no_effect(model: AutoModel) -> None:
    """One prompt was said to be more than one."""
    streamer = Streamer()
    assert len(model.generate(["hi"], streamer=streamer, return_dict_in_generate=True, max_new_tokens=2)) == 1 and streamer.seen == 3
    with pytest.raises(aerostat.UsageError, match="one sequence"):
        model.generate(["hi", "ho"], streamer=Streamer(), max_new_tokens=2)


def test_members_of_a_models_own_configuration_are_noted(model: AutoModel, caplog: pytest.LogCaptureFixture) -> None:
    """Those of its makers' own may stand in a file, and so in an object that was read of one."""
    config = type(model.generation_config)(max_new_tokens=1, chat_format="chatml")
    assert model.generate([[1, 2]], generation_config=config).shape == (1, 3)
    assert "chat_format has no effect" in caplog.text


def test_numbers_of_numpy_may_ask_for_nothing(model: AutoModel) -> None:
    assert model.generate([[1]], num_beams=np.int64(1), guidance_scale=np.float32(1), max_new_tokens=1).shape == (1, 2)


@pytest.mark.needs_torch
def test_a_loss_of_torch_is_float32(model: AutoModel) -> None:
    import torch

    ids = torch.tensor([[1, 2, 3]])
    assert model(ids, labels=ids).loss.dtype == torch.float32


TOKENIZER: list[tuple[str, Callable[[Any], Any]]] = [
    ("return_offsets_mapping", lambda t: t("a", return_offsets_mapping=True)),
    ("return_token_type_ids", lambda t: t("a", return_token_type_ids=True)),
    ("text_pair", lambda t: t("a", "b")),
    ("padding", lambda t: t(["a", "bb"], padding="longst")),
    ("padding_side", lambda t: t(["a", "bbb b"], padding=True, padding_side="lefft")),
    ("truncation", lambda t: t("a", truncation="x")),
    ("text", lambda t: t(SURROGATE)),
    ("text", lambda t: t(["a", 5])),
    ("text", lambda t: t.tokenize(5)),
    ("no token id", lambda t: t.decode(10**9)),
    ("no token id", lambda t: t.decode([1, 320])),
    ("no token id", lambda t: t.decode(None)),
    ("token_ids", lambda t: t.decode({"a": 1})),
    ("sequences", lambda t: t.batch_decode(5)),
    ("tokens", lambda t: t.convert_tokens_to_ids(5)),
    ("tokens", lambda t: t.convert_tokens_to_string("abc")),
    ("documents", lambda t: t.apply_chat_template([{"role": "user", "content": "x"}], documents={"a": "b"})),
    ("pad_token", lambda t: setattr(t, "pad_token", 5)),
    ("conversation", lambda t: t.apply_chat_template({"role": "user", "content": "x"})),
    ("conversation", lambda t: t.apply_chat_template(5)),
    ("message 0 is 5", lambda t: t.apply_chat_template([5])),
    ("message 1: role is None", lambda t: t.apply_chat_template([{"role": "user", "content": "x"}, {"content": "x"}])),
    ("add_generation_prompt", lambda t: t.apply_chat_template([{"role": "user", "content": "x"}], add_generation_prompt="no")),
    ("chat_template", lambda t: t.apply_chat_template([{"role": "user", "content": "x"}], chat_template=5)),
]


@pytest.mark.parametrize(("named", "call"), TOKENIZER, ids=[f"{number}-{named}" for number, (named, _) in enumerate(TOKENIZER)])
def test_calls_of_the_tokenizer(model: AutoModel, named: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=named):
        call(model.tokenizer)


def test_words_that_a_tokenizer_does_not_know(model: AutoModel) -> None:
    tokenizer = model.tokenizer
    for call in (lambda: tokenizer("a", bogus=1), lambda: tokenizer.decode([67], bogus=1), lambda: tokenizer.batch_decode([[67]], bogus=1)):
        with pytest.raises(TypeError, match="bogus"):
            call()
    # As transformers' scripts write it.
    assert tokenizer.decode([67], clean_up_tokenization_spaces=True) == tokenizer.decode(67) == tokenizer.decode(67.0)
    assert tokenizer("a", return_offsets_mapping=False, verbose=False, padding="do_not_pad", truncation="longest_first") == tokenizer("a")


def test_a_message_to_be_continued_that_is_no_text(model: AutoModel) -> None:
    for content in ([5], [{"type": "text"}], [{"type": "image"}]):
        with pytest.raises(aerostat.TextError, match="continue_final_message"):
            model.tokenizer.apply_chat_template([{"role": "user", "content": content}], continue_final_message=True)
