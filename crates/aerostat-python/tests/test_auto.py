"""``AutoModel``: AirLLM's scripts, transformers' generate and forward."""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aerostat
from aerostat import AutoModel, airllm
from aerostat._aerostat import peak_resident_bytes

from conftest import FIXTURES, expected, fixture

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def llama() -> AutoModel:
    return AutoModel.from_pretrained(fixture("llama"), kv="f32", progress=False)


@pytest.fixture(scope="module")
def talker(greedy_chat: str) -> AutoModel:
    return AutoModel.from_pretrained(greedy_chat, kv="f32", progress=False)


def prompts(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = expected(name)["prompts"]
    return found


def test_airllms_quick_start_runs_with_its_import_changed(greedy_chat: str) -> None:
    MAX_LENGTH = 128
    model = airllm.AutoModel.from_pretrained(greedy_chat)
    input_text = ["What is the capital of United States?"]
    input_tokens = model.tokenizer(
        input_text,
        return_tensors="pt",
        return_attention_mask=False,
        truncation=True,
        max_length=MAX_LENGTH,
        padding=False,
    )
    generation_output = model.generate(
        input_tokens["input_ids"].cuda(),
        max_new_tokens=20,
        use_cache=True,
        return_dict_in_generate=True,
    )
    output = model.tokenizer.decode(generation_output.sequences[0])
    assert output.startswith(input_text[0]) and len(output) > len(input_text[0])


def test_the_articles_example_runs_as_written(greedy_chat: str, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    model = airllm.AutoModel.from_pretrained(greedy_chat)
    with caplog.at_level(logging.INFO, logger="aerostat"):
        output = model.generate(["What is the capital of France?"], max_length=50, compression="4bit")
    print(output)
    assert len(output) == 1 and isinstance(output[0], str)
    assert len(output.sequences[0]) <= 50 and output.finish_reasons[0] in ("stop", "length")
    assert model.compression == "4bit" and "q4" in model.checkpoint_path
    assert any("weights are rounded" in record.message for record in caplog.records)
    assert any("apply_chat_template" in record.message for record in caplog.records)


def test_all_of_airllms_names_are_there() -> None:
    for name in airllm.__all__:
        assert getattr(airllm, name) is not None
    for name in ("AirLLMLlama2", "AirLLMChatGLM", "AirLLMQWen", "AirLLMBaichuan", "AirLLMMistral"):
        assert getattr(airllm, name) is AutoModel
    with pytest.raises(AttributeError, match="inference only"):
        airllm.AirLLMLoRA  # noqa: B018
    assert not hasattr(AutoModel, "from_config")


@pytest.mark.parametrize("name", ["chatglm", "qwen", "baichuan", "mistral", "internlm", "mixtral", "gemma3", "qwen3_moe"])
def test_families_of_airllm_give_transformers_tokens(name: str) -> None:
    model = airllm.AirLLMLlama2(fixture(name), kv="f32", progress=False)
    for prompt in prompts(name):
        found = model.generate([prompt["ids"]], max_new_tokens=10, eos_token_id=[], pad_token_id=0)
        assert found[0, len(prompt["ids"]) :].tolist() == prompt["greedy"]


def test_construction_accepts_warns_and_refuses(caplog: pytest.LogCaptureFixture) -> None:
    path = fixture("llama")
    with caplog.at_level(logging.INFO, logger="aerostat"):
        AutoModel.from_pretrained(path, device="cuda:0", prefetching=False, load_resident=False, max_seq_len=64)
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
        AutoModel.from_pretrained(path, device="cuda:1", layer_shards_saving_path="x", delete_original=True)
    told = " ".join(record.message for record in caplog.records)
    assert "cuda:1" in told and "layer_shards_saving_path" in told and "nothing is deleted" in told
    assert Path(path, "model.safetensors").exists() and not Path("x").exists()
    for wrong in ({"compression": "2bit"}, {"install_hooks": False}, {"load_in_4bit": True}, {"device": "tpu"}):
        with pytest.raises(ValueError):
            AutoModel.from_pretrained(path, **wrong)


def test_arguments_without_names_are_in_airllms_order(caplog: pytest.LogCaptureFixture) -> None:
    path = fixture("llama")
    for make in (AutoModel, AutoModel.from_pretrained, airllm.AirLLMLlama2):
        model = make(path, "cpu", "float32", 77, None, True)
        assert model.max_seq_len == 77 and model.profiling_mode is True
        assert make(path, "cuda:0", max_seq_len=33).max_seq_len == 33
    assert AutoModel(model_local_path_or_repo_id=path).max_seq_len == AutoModel.from_pretrained(path, context=512).max_seq_len == 512
    for make in (AutoModel, AutoModel.from_pretrained):
        with pytest.raises(TypeError):
            make(path, "cpu", device="cpu")
        with pytest.raises(TypeError):
            make(path, *[None] * 20)


def test_attributes(llama: AutoModel) -> None:
    assert llama.model is llama and llama.eval() is llama and llama.to("cuda") is llama and llama.cuda() is llama
    assert str(llama.device) == "cpu" and str(llama.dtype).endswith("float32") and str(llama.running_dtype).endswith("float32")
    assert llama.config.model_type == "llama" and llama.config.vocab_size == llama.config.to_dict()["vocab_size"]
    assert llama.max_seq_len == 512 and llama.compression is None
    assert llama.layer_names[0] == "model.embed_tokens" and len(llama.layer_names) == llama.config.num_hidden_layers + 3
    for name in ("layers", "parameters", "train"):
        with pytest.raises(AttributeError, match="inference only"):
            getattr(llama, name)
    llama.profiler.print_profiling_time()
    with pytest.raises(aerostat.UsageError, match="pipeline"):
        llama.hf_device_map


def test_profiling_tells_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModel.from_pretrained(fixture("llama"), profiling_mode=True, progress=False)
    with caplog.at_level(logging.INFO, logger="aerostat"):
        model.generate([[1, 2, 3]], max_new_tokens=2)
    assert any("sweeps" in record.message for record in caplog.records)


def test_greedy_tokens_are_transformers(llama: AutoModel) -> None:
    for prompt in prompts("llama"):
        given = np.asarray([prompt["ids"]])
        found = llama.generate(given, max_new_tokens=10, eos_token_id=[])
        assert isinstance(found, np.ndarray) and found.dtype == np.int64
        assert found[0].tolist() == prompt["ids"] + prompt["greedy"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_answer(llama: AutoModel, side: str) -> None:
    rows = [p["ids"] for p in prompts("llama")]
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), 0)
    mask = np.zeros_like(ids)
    for row, line, seen in zip(rows, ids, mask):
        at = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
        line[at], seen[at] = row, 1
    found = llama.generate(ids, attention_mask=mask, max_new_tokens=10, eos_token_id=[])
    assert found[:, :longest].tolist() == ids.tolist()
    assert found[:, longest:].tolist() == [p["greedy"] for p in prompts("llama")]


def test_without_a_mask_padding_is_known_by_the_padding_token(llama: AutoModel) -> None:
    row = [5, 6, 7]
    alone = llama.generate([row], max_new_tokens=4, eos_token_id=[])[0, 3:].tolist()
    padded = llama.generate([[0, 0, *row]], max_new_tokens=4, eos_token_id=[2], pad_token_id=0)
    assert padded[0, 5:].tolist()[:4] == alone or 2 in alone
    # A padding token that ends texts says nothing.
    kept = llama.generate([[0, 0, *row]], max_new_tokens=4, eos_token_id=[0], pad_token_id=0)[0, 5:].tolist()
    whole = llama.generate([[0, 0, *row]], attention_mask=[[1] * 5], max_new_tokens=4, eos_token_id=[0])[0, 5:].tolist()
    assert kept == whole


def test_masks_that_cannot_be_followed_are_refused(llama: AutoModel) -> None:
    with pytest.raises(aerostat.UsageError, match="hole"):
        llama.generate([[1, 2, 3]], attention_mask=[[1, 0, 1]], max_new_tokens=1)
    with pytest.raises(aerostat.UsageError, match="empty"):
        llama.generate([[1, 2, 3]], attention_mask=[[0, 0, 0]], max_new_tokens=1)
    with pytest.raises(aerostat.UsageError, match="attention_mask is"):
        llama.generate([[1, 2, 3]], attention_mask=[[1, 1]], max_new_tokens=1)


def test_answers_that_end_are_padded_on_the_right(llama: AutoModel) -> None:
    first, second = prompts("llama")[0], prompts("llama")[1]
    end = first["greedy"][2]
    rows = [first["ids"], second["ids"]]
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    found = llama.generate(ids, attention_mask=mask, max_new_tokens=10, eos_token_id=end, pad_token_id=9)
    cut = first["greedy"].index(end) + 1
    assert found[0, longest:].tolist() == first["greedy"][:cut] + [9] * (found.shape[1] - longest - cut)


def test_lengths(llama: AutoModel, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="max_length is 3"):
        llama.generate([[1, 2, 3]], max_length=3)
    assert llama.generate([[1, 2, 3]], max_length=7, eos_token_id=[]).shape == (1, 7)
    with caplog.at_level(logging.WARNING, logger="aerostat"):
        assert llama.generate([[1, 2, 3]], eos_token_id=[]).shape == (1, 23)
    assert any("20 tokens" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    "wrong",
    [{"num_beams": 4}, {"output_attentions": True}, {"guidance_scale": 2.0}, {"typical_p": 0.5}, {"sequence_bias": {}},
     {"max_new_token": 3}, {"num_return_sequences": 2}, {"do_sample": True, "temperature": 0.0}],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(llama: AutoModel, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "do_sample" not in wrong else "temperature"):
        llama.generate([[1, 2, 3]], **{"max_new_tokens": 2, **wrong})


def test_ignored_keywords_change_nothing(llama: AutoModel) -> None:
    plain = llama.generate([[1, 2, 3]], max_new_tokens=4)
    same = llama.generate([[1, 2, 3]], max_new_tokens=4, use_cache=False, num_beams=1, cache_implementation="static", synced_gpus=None)
    assert plain.tolist() == same.tolist()


def test_configurations_go_below_keywords(llama: AutoModel) -> None:
    class Theirs:
        def to_diff_dict(self) -> dict[str, Any]:
            return {"max_new_tokens": 5, "eos_token_id": []}

    assert llama.generate([[1, 2, 3]], generation_config=Theirs()).shape == (1, 8)
    assert llama.generate([[1, 2, 3]], generation_config=Theirs(), max_new_tokens=2).shape == (1, 5)
    other = AutoModel.from_pretrained(fixture("llama"), progress=False)
    other.generation_config.max_new_tokens = 3
    other.generation_config.eos_token_id = []
    assert other.generate([[1, 2, 3]]).shape == (1, 6)


def test_sampling_repeats_by_seed_and_differs_by_call() -> None:
    def calls(seed: int) -> list[list[int]]:
        model = AutoModel.from_pretrained(fixture("llama"), seed=seed, progress=False)
        how = {"do_sample": True, "max_new_tokens": 12, "eos_token_id": []}
        return [model.generate([[1, 2, 3]], **how)[0].tolist() for _ in range(2)]

    first, again, other = calls(1), calls(1), calls(2)
    assert first == again and first[0] != first[1] and first != other


def test_several_answers_to_a_prompt(llama: AutoModel) -> None:
    found = llama.generate([[1, 2, 3]], do_sample=True, num_return_sequences=3, max_new_tokens=8, eos_token_id=[])
    assert found.shape == (3, 11) and len({tuple(row) for row in found.tolist()}) == 3


def test_texts_give_answers_without_prompts(talker: AutoModel) -> None:
    answers = talker.generate(["What is", "Who"], max_new_tokens=6)
    assert isinstance(answers, list) and len(answers) == 2
    assert [len(ids) for ids in answers.sequences] == [6, 6] or "stop" in answers.finish_reasons
    assert answers[0] == talker.tokenizer.decode(answers.sequences[0], skip_special_tokens=True)
    assert talker.generate("What is", max_new_tokens=6)[0] == answers[0]
    assert answers.stats["sweeps"] > 0


def test_texts_come_in_arrays_too(talker: AutoModel) -> None:
    wanted = talker.generate(["Hello", "you"], max_new_tokens=3)
    for given in (("Hello", "you"), np.asarray(["Hello", "you"]), np.asarray(["Hello", "you"], dtype=object)):
        assert talker.generate(given, max_new_tokens=3) == wanted


def test_stop_strings_end_answers(talker: AutoModel) -> None:
    whole = talker.generate(["What is"], max_new_tokens=12, eos_token_id=[])[0]
    stop = whole[3:5]
    assert talker.generate(["What is"], max_new_tokens=12, eos_token_id=[], stop_strings=[stop])[0] == whole[: whole.index(stop)]


def test_a_conversation(talker: AutoModel) -> None:
    for talk in expected("chat")["conversations"]:
        text = talker.tokenizer.apply_chat_template(talk["messages"], tokenize=False, add_generation_prompt=True)
        assert text == talk["text"]
        given = talker.tokenizer.apply_chat_template(talk["messages"], add_generation_prompt=True, return_tensors="np")
        assert given["input_ids"][0].tolist() == talk["ids"]
        found = talker.generate(**given, max_new_tokens=len(talk["greedy"]))
        assert found[0, len(talk["ids"]) :].tolist() == talk["greedy"]


def test_a_streamer_gets_the_prompt_and_each_token(llama: AutoModel) -> None:
    class Keep:
        def __init__(self) -> None:
            self.pieces: list[Any] = []
            self.ended = False

        def put(self, value: Any) -> None:
            self.pieces.append(np.asarray(value).tolist())

        def end(self) -> None:
            self.ended = True

    keep = Keep()
    found = llama.generate([[1, 2, 3]], max_new_tokens=5, eos_token_id=[], streamer=keep)
    assert keep.ended and keep.pieces[0] == [[1, 2, 3]]
    assert [token for piece in keep.pieces[1:] for token in piece] == found[0, 3:].tolist()
    with pytest.raises(aerostat.UsageError, match="streamer"):
        llama.generate([[1, 2, 3], [4, 5, 6]], max_new_tokens=2, streamer=keep)


def test_time_ends_answers() -> None:
    model = AutoModel.from_pretrained(fixture("llama"), progress=False)
    found = model.generate([[1, 2, 3]], max_new_tokens=1 << 20, eos_token_id=[], max_time=0.5)
    assert 3 <= found.shape[1] < 1 << 20


def test_compression_packs_once_and_lossless_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(FIXTURES / "llama_gqa_bf16", source)
    plain = AutoModel.from_pretrained(source, progress=False).generate([[1, 2, 3]], max_new_tokens=6)
    folder = tmp_path / "packed"
    how = {"compression": "lossless", "layer_shards_saving_path": folder, "progress": False}
    model = AutoModel.from_pretrained(source, **how)
    assert model.checkpoint_path.startswith(str(folder)) and model.model_local_path == str(source)
    assert model.generate([[1, 2, 3]], max_new_tokens=6).tolist() == plain.tolist()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    AutoModel.from_pretrained(source, **how)
    assert made == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert (source / "model.safetensors").exists()


def test_a_quantised_model_is_not_packed_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="aerostat"):
        model = AutoModel.from_pretrained(fixture("llama_gptq_4"), compression="4bit", progress=False)
    assert model.checkpoint_path == model.model_local_path
    assert any("quantised or packed already" in record.message for record in caplog.records)


def test_a_gguf_file_runs(chat: str) -> None:
    model = AutoModel.from_pretrained(str(Path(chat, "twin.gguf")), progress=False)
    assert model.config.hidden_size == 32
    assert model.generate([[1, 2, 3]], max_new_tokens=3, eos_token_id=[]).shape == (1, 6)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_torch_comes_out_where_torch_came_in(llama: AutoModel) -> None:
    given = torch.tensor([[1, 2, 3]])
    found = llama.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=3, eos_token_id=[])
    assert isinstance(found, torch.Tensor) and found.dtype == torch.int64 and found.shape == (1, 6)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_tensors_of_types_that_numpy_does_not_have(llama: AutoModel) -> None:
    given = torch.tensor([[0, 1, 2, 3]])
    mask = torch.tensor([[0, 1, 1, 1]])
    wanted = llama.generate(given, attention_mask=mask, max_new_tokens=4, eos_token_id=[]).tolist()
    for kind in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.bool, torch.uint8):
        assert llama.generate(given, attention_mask=mask.to(kind), max_new_tokens=4, eos_token_id=[]).tolist() == wanted
    for kind in (torch.int32, torch.int16, torch.uint8):
        assert llama.generate(given.to(kind), attention_mask=mask, max_new_tokens=4, eos_token_id=[]).tolist() == wanted
    with pytest.raises(aerostat.UsageError, match="bool"):
        llama.generate(given.bool(), max_new_tokens=1)
    # Scores in half precision are scores.
    found = llama.generate(given, max_new_tokens=2, eos_token_id=[], logits_processor=[lambda _, scores: scores.bfloat16()])
    assert found.shape == (1, 6)


def test_wrong_ids_are_refused(llama: AutoModel) -> None:
    for wrong in ([[1, 99999]], [[1.5, 2]], [[[1]]], [[1], [2, 3]], [[-1, 2]], [], [[]], [["a"]], [None], {"input_ids": [[]]}):
        with pytest.raises(aerostat.UsageError):
            llama.generate(wrong, max_new_tokens=1)
    with pytest.raises(ValueError, match="did you mean 'max_new_tokens'"):
        llama.generate([[1]], max_new_token=1)


def test_a_budget_is_kept() -> None:
    # What is imported here, such as torch, counts.
    memory = peak_resident_bytes() + (200 << 20)
    model = AutoModel.from_pretrained(fixture("llama"), memory=memory, progress=False)
    model.generate([[1, 2, 3]], max_new_tokens=3)
    stats = model.stats()
    assert stats is not None and stats["memory_budget_bytes"] < memory and stats["memory_peak_bytes"] <= memory
    assert json.dumps(stats)


def test_logits_are_transformers(llama: AutoModel) -> None:
    for prompt in prompts("llama"):
        ids, length = prompt["ids"], len(prompt["ids"])
        output = llama([ids], labels=[ids])
        assert output.logits.shape == (1, length, llama.config.vocab_size) and output.logits.dtype == np.float32
        assert np.allclose(output.logits[0, -1], prompt["logits_last"], atol=1e-3)
        values = output.logits[0].astype(np.float64)
        logprobs = values - np.log(np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) - values.max(axis=1, keepdims=True)
        wanted = prompt["logprobs"][1:]
        assert np.allclose([logprobs[i, token] for i, token in enumerate(ids[1:])], wanted, atol=1e-4)
        if length > 1:
            assert float(output.loss) == pytest.approx(-np.mean(wanted), abs=1e-4)
        kept = llama([ids], logits_to_keep=1).logits
        assert np.array_equal(kept, output.logits[:, -1:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_padded_rows(llama: AutoModel, side: str) -> None:
    row = prompts("llama")[-1]["ids"]
    pad = [0, 0, 0]
    ids, mask = ([*pad, *row], [0, 0, 0] + [1] * len(row)) if side == "left" else ([*row, *pad], [1] * len(row) + [0, 0, 0])
    labels = [[-100 if not seen else token for token, seen in zip(ids, mask)]]
    alone, padded = llama([row], labels=[row]), llama([ids], attention_mask=[mask], labels=labels, output_hidden_states=True)
    at = slice(3, None) if side == "left" else slice(0, len(row))
    assert np.array_equal(padded.logits[:, at], alone.logits) and float(padded.loss) == pytest.approx(float(alone.loss))
    assert padded.hidden_states[0].shape == (1, len(ids), llama.config.hidden_size)
    kept = llama([ids], attention_mask=[mask], logits_to_keep=2).logits
    assert np.array_equal(kept, padded.logits[:, -2:])


def test_hidden_states_are_transformers() -> None:
    model = AutoModel.from_pretrained(fixture("gemma3"), kv="f32", progress=False)
    cases = json.loads((FIXTURES / "gemma3" / "hidden.json").read_text())["cases"]
    # Twice, since what a prompt left in the cache must not be missing the second time.
    for case in cases + cases:
        states = model([case["ids"]], output_hidden_states=True).hidden_states
        assert len(states) == model.config.num_hidden_layers + 1
        for name, layer in (("first", 0), ("second", 1), ("last", -1)):
            assert np.allclose(states[layer][0].mean(axis=0), case[f"{name}_mean"], atol=1e-3)
            assert np.allclose(states[layer][0, -1], case[f"{name}_last_token"], atol=1e-3)


def test_answers_with_logits_scores_and_states(llama: AutoModel) -> None:
    ids = prompts("llama")[-1]["ids"]
    how = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True, "output_hidden_states": True}
    for _ in range(2):
        output = llama.generate([ids], max_new_tokens=4, eos_token_id=[], **how)
        whole = llama(output.sequences, output_hidden_states=True)
        steps = np.stack(output.logits, axis=1)
        assert np.array_equal(steps, whole.logits[:, len(ids) - 1 : -1]) and np.array_equal(steps, np.stack(output.scores, axis=1))
        assert len(output.hidden_states) == 4
        for layer, states in enumerate(whole.hidden_states):
            assert np.array_equal(output.hidden_states[0][layer], states[:, : len(ids)])
            for step in (1, 2, 3):
                assert np.array_equal(output.hidden_states[step][layer][:, 0], states[:, len(ids) + step - 1])


def test_processors_and_criteria_are_asked_at_each_token(llama: AutoModel) -> None:
    asked: list[Any] = []

    def process(ids: Any, scores: Any) -> Any:
        asked.append(("process", np.asarray(ids).tolist(), tuple(scores.shape)))
        scores = scores + 0
        scores[0, 7] = 1e9
        return scores

    def stops(ids: Any, scores: Any) -> bool:
        asked.append(("stop", np.asarray(ids).tolist(), scores))
        return ids.shape[1] >= 6

    found = llama.generate([[1, 2, 3]], max_new_tokens=10, eos_token_id=[], logits_processor=[process], stopping_criteria=[stops])
    assert found.tolist() == [[1, 2, 3, 7, 7, 7]]
    vocab = llama.config.vocab_size
    assert asked == [
        entry
        for length in (3, 4, 5)
        for entry in (
            ("process", [[1, 2, 3, 7, 7][:length]], (1, vocab)),
            ("stop", [[1, 2, 3, 7, 7, 7][: length + 1]], None),
        )
    ]
    # What they raise comes as it is.
    with pytest.raises(ZeroDivisionError):
        llama.generate([[1, 2, 3]], max_new_tokens=2, logits_processor=[lambda ids, scores: 1 / 0])


def test_which_tokens_may_come(llama: AutoModel) -> None:
    def answer(**how: Any) -> list[int]:
        return llama.generate([[1, 2, 3]], **{"max_new_tokens": 8, **how})[0, 3:].tolist()

    plain = answer(eos_token_id=[])
    assert plain[0] not in answer(eos_token_id=[], suppress_tokens=[plain[0]])
    assert answer(eos_token_id=[], bad_words_ids=[plain[:2]])[:2] != plain[:2]
    assert answer(eos_token_id=plain[0]) == [plain[0]]
    assert len(answer(eos_token_id=plain[0], min_new_tokens=3)) >= 3 and len(answer(eos_token_id=plain[0], min_length=6)) >= 3
    grams = answer(eos_token_id=[], no_repeat_ngram_size=1)
    assert len(set([1, 2, 3, *grams])) == 11


def test_what_cannot_be_held_is_refused_before_it_is_opened() -> None:
    model = AutoModel.from_pretrained(fixture("llama"), memory="300KiB", progress=False)
    with pytest.raises(aerostat.BudgetError, match="logits_to_keep"):
        model([[1] * 2000])
    assert model.stats() is None


def test_masks_of_other_things_than_ones_and_zeros(llama: AutoModel) -> None:
    ids = np.asarray([[5, 6, 7]])
    for mask in ([[math.nan, 1, 1]], [[2, 1, 1]], [["a", "b", "c"]], [[-1, 1, 1]]):
        with pytest.raises(aerostat.UsageError, match="attention_mask"):
            llama(ids, attention_mask=mask)
    for mask in ([[0.0, 1, 1]], [[False, True, True]], np.asarray([[0, 1, 1]], dtype=np.int8)):
        assert np.array_equal(llama(ids, attention_mask=mask).logits[:, 1:], llama(ids[:, 1:]).logits)


def test_which_logits_are_kept(llama: AutoModel) -> None:
    ids = np.asarray([[5, 6, 7]])
    whole = llama(ids).logits
    for keep in ([0, 2], np.asarray([2, 0]), np.asarray([True, False, True]), [-1]):
        assert np.array_equal(llama(ids, logits_to_keep=keep).logits, whole[:, np.asarray(keep)])
    for keep in (1.5, -1, [3], [-4], "two", [True], np.zeros((1, 3), dtype=int)):
        with pytest.raises(aerostat.UsageError, match="logits_to_keep"):
            llama(ids, logits_to_keep=keep)


def test_labels_that_cannot_be(llama: AutoModel) -> None:
    for wrong in ({"labels": [[1, 2]]}, {"labels": [[1, 2, 99999]]}, {"labels": [[1, 2, 3]], "logits_to_keep": 1},
                  {"labels": [[1, 2, 3]], "attention_mask": [[0, 1, 1]]}, {"output_attentions": True}):  # fmt: skip
        with pytest.raises(ValueError):
            llama([[1, 2, 3]], **wrong)
    with pytest.raises(TypeError):
        llama([[1, 2, 3]], foo=1)


def test_an_original_that_was_deleted_is_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "model"
    shutil.copytree(FIXTURES / "llama_gqa_bf16", source, ignore=shutil.ignore_patterns("*.gguf"))
    plain = AutoModel.from_pretrained(source, progress=False).generate([[1, 2, 3]], max_new_tokens=6).tolist()
    # Of a copy that lost something nothing is deleted.
    AutoModel.from_pretrained(source, compression="8bit", delete_original=True, progress=False)
    assert (source / "model.safetensors").exists() and any("nothing is deleted" in r.message for r in caplog.records)
    for delete in (True, False):
        model = AutoModel.from_pretrained(source, compression="lossless", delete_original=delete, progress=False)
        assert not (source / "model.safetensors").exists()
        assert model.generate([[1, 2, 3]], max_new_tokens=6).tolist() == plain
    with pytest.raises(aerostat.ModelError):
        AutoModel.from_pretrained(source, progress=False)
