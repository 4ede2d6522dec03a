"""``LLM``: vLLM's offline scripts."""

import asyncio
import json
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aerostat
from aerostat import LLM, PoolingParams, SamplingParams, StructuredOutputsParams

from conftest import FIXTURES, Batch, expected, fixture

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(chat: str) -> LLM:
    return LLM(chat, kv_cache_dtype="float32", progress=False)


@pytest.fixture(scope="module")
def llama() -> LLM:
    return LLM(fixture("llama"), kv="f32", progress=False)


def test_vllms_basic_example_runs_with_its_import_changed(chat: str) -> None:
    prompts = ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"]
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95)
    llm = LLM(model=chat)
    outputs = llm.generate(prompts, sampling_params)
    assert [output.prompt for output in outputs] == prompts
    for output in outputs:
        assert 0 < len(output.outputs[0].token_ids) <= 16 and isinstance(output.outputs[0].text, str)


def test_greedy_tokens_are_transformers(llama: LLM) -> None:
    prompts = expected("llama")["prompts"]
    for outputs in (llama.generate([p["ids"] for p in prompts], GREEDY), llama.generate([{"prompt_token_ids": p["ids"]} for p in prompts], GREEDY)):
        assert [o.outputs[0].token_ids for o in outputs] == [p["greedy"] for p in prompts]
        assert all(o.finished and o.outputs[0].finish_reason == "length" and o.metrics is None for o in outputs)
        assert [o.request_id for o in outputs] == [str(n) for n in range(len(prompts))]


def test_forms_of_prompts(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("Hello")
    wanted = llm.generate("Hello", GREEDY)[0].outputs[0].token_ids
    forms: list[Any] = [["Hello"], ids, [ids], {"prompt": "Hello"}, [{"prompt_token_ids": ids}], np.asarray(ids), [np.asarray(ids)], ("Hello",)]
    for form in forms:
        assert [o.outputs[0].token_ids for o in llm.generate(form, GREEDY)] == [wanted]
    assert llm.generate([], GREEDY) == []


def test_defaults_are_vllms_and_the_models(llm: LLM, llama: LLM) -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens, params.n) == (1.0, 1.0, 0, 16, 1)
    named = llm.get_default_sampling_params()
    assert (named.temperature, named.top_k) == (pytest.approx(0.7), 40)
    assert llama.get_default_sampling_params().temperature == 1.0


def test_parameters_for_each_prompt(llama: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (2, 5)]
    outputs = llama.generate([[1, 2, 3], [1, 2, 3]], params)
    assert [len(o.outputs[0].token_ids) for o in outputs] == [2, 5]
    with pytest.raises(aerostat.UsageError, match="2 sampling"):
        llama.generate([[1, 2, 3]], params)


def test_seeds_repeat_and_n_gives_different_answers(llama: LLM) -> None:
    params = SamplingParams(n=4, seed=7, max_tokens=8, ignore_eos=True)
    first, again = (llama.generate([[1, 2, 3]], params)[0].outputs for _ in range(2))
    assert [a.token_ids for a in first] == [a.token_ids for a in again]
    assert len({tuple(a.token_ids) for a in first}) == 4 and [a.index for a in first] == [0, 1, 2, 3]
    free = SamplingParams(max_tokens=8, ignore_eos=True)
    assert llama.generate([[1, 2, 3]], free)[0].outputs[0].token_ids != llama.generate([[1, 2, 3]], free)[0].outputs[0].token_ids
    other = LLM(fixture("llama"), kv="f32", seed=3, progress=False), LLM(fixture("llama"), kv="f32", seed=3, progress=False)
    assert len({tuple(one.generate([[1, 2, 3]], free)[0].outputs[0].token_ids) for one in other}) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -2}, {"min_p": 2}, {"max_tokens": 0}, {"logprobs": -1},
     {"repetition_penalty": 0}, {"presence_penalty": 3}, {"min_tokens": 17}, {"stop": [""]}, {"n": 2, "temperature": 0}],
)  # fmt: skip
def test_parameters_are_checked_when_they_are_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingParams(**wrong)


def test_logprobs_are_transformers(llama: LLM) -> None:
    prompt = expected("llama")["prompts"][-1]
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=2, prompt_logprobs=1, ignore_eos=True)
    output = llama.generate([prompt["ids"]], params)[0]
    assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
    for token, wanted, entry in zip(prompt["ids"][1:], prompt["logprobs"][1:], output.prompt_logprobs[1:]):
        assert entry is not None and entry[token].logprob == pytest.approx(wanted, abs=1e-4)
        likelier = [other for other, at in entry.items() if at.logprob > entry[token].logprob]
        assert entry[token].rank is not None and (entry[token].rank == 1) == (not likelier)
    answer = output.outputs[0]
    assert answer.logprobs is not None and answer.cumulative_logprob is not None
    for token, entry in zip(answer.token_ids, answer.logprobs):
        assert entry[token].rank == 1 and len(entry) == 2
    logits = np.asarray(prompt["logits_last"], dtype=np.float64)
    wanted = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert answer.logprobs[0][answer.token_ids[0]].logprob == pytest.approx(wanted.max(), abs=1e-4)
    assert answer.cumulative_logprob == pytest.approx(math.fsum(e[t].logprob for t, e in zip(answer.token_ids, answer.logprobs)))


def test_stops(llm: LLM) -> None:
    whole = llm.generate("Hello", SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))[0].outputs[0]
    stop = whole.text[2:4]
    cut = llm.generate("Hello", SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop=stop))[0].outputs[0]
    assert (cut.text, cut.finish_reason, cut.stop_reason) == (whole.text[: whole.text.index(stop)], "stop", stop)
    kept = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop=[stop], include_stop_str_in_output=True)
    assert llm.generate("Hello", kept)[0].outputs[0].text == cut.text + stop
    token = whole.token_ids[3]
    by_token = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop_token_ids=[token])
    answer = llm.generate("Hello", by_token)[0].outputs[0]
    assert answer.token_ids == whole.token_ids[: whole.token_ids.index(token) + 1]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", token)


def test_which_tokens_may_come(llm: LLM) -> None:
    def answer(**how: Any) -> list[int]:
        return llm.generate("Hello", SamplingParams(temperature=0, max_tokens=8, **how))[0].outputs[0].token_ids

    plain = answer(ignore_eos=True)
    assert set(answer(allowed_token_ids=[plain[0], 40])) <= {plain[0], 40}
    tokenizer = llm.get_tokenizer()
    banned = next(t for t in plain if tokenizer.encode(tokenizer.decode([t]), add_special_tokens=False) == [t])
    assert banned not in answer(ignore_eos=True, bad_words=[tokenizer.decode([banned])])
    ended = answer(logit_bias={2: 100})
    assert ended == [2] and len(answer(logit_bias={2: 100}, min_tokens=4)) == 5
    for wrong in ({"allowed_token_ids": []}, {"allowed_token_ids": [99999]}, {"bad_words": [""]}):
        with pytest.raises(aerostat.UsageError):
            answer(**wrong)


def test_special_tokens_in_texts(llm: LLM) -> None:
    def text(**how: Any) -> str:
        return llm.generate("Hello", SamplingParams(temperature=0, max_tokens=2, logit_bias={1: 100}, ignore_eos=True, **how))[0].outputs[0].text

    assert text() == "" and text(skip_special_tokens=False) == "<|im_start|>" * 2 and text(detokenize=False) == ""


def test_logit_bias(llama: LLM) -> None:
    answer = llama.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=3, logit_bias={7: 100}, ignore_eos=True))[0].outputs[0]
    assert answer.token_ids == [7, 7, 7]


SHAPES = [
    ({"choice": ["Positive", "Negative"]}, lambda text: text in ("Positive", "Negative")),
    ({"regex": r"[a-c]{3}x"}, lambda text: text[3] == "x" and set(text[:3]) <= set("abc")),
    ({"grammar": 'start: "yes" | "no"'}, lambda text: text in ("yes", "no")),
    ({"json": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}},
     lambda text: isinstance(json.loads(text)["a"], bool)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "holds"), SHAPES)
def test_structured_outputs(llm: LLM, shape: dict[str, Any], holds: Any) -> None:
    params = SamplingParams(max_tokens=64, seed=1, structured_outputs=StructuredOutputsParams(**shape))
    for output in llm.generate(["Say", "It is"], params):
        assert holds(output.outputs[0].text) and output.outputs[0].finish_reason == "stop"


def test_structured_outputs_take_one_shape_and_pydantic() -> None:
    class Model:
        @staticmethod
        def model_json_schema() -> dict[str, Any]:
            return {"type": "integer"}

    assert StructuredOutputsParams(json=Model).shape == {"json": {"type": "integer"}}
    assert StructuredOutputsParams(json='{"type": "integer"}').shape == {"json": {"type": "integer"}}
    for wrong in ({}, {"regex": "a", "choice": ["b"]}, {"choice": []}, {"json": "{"}):
        with pytest.raises(aerostat.UsageError):
            StructuredOutputsParams(**wrong)


def test_a_grammar_that_cannot_be_followed_is_refused(llm: LLM) -> None:
    with pytest.raises(ValueError, match="grammar"):
        llm.generate("Hello", SamplingParams(structured_outputs=StructuredOutputsParams(regex="(")))


def test_chat(llm: LLM) -> None:
    talks = expected("chat")["conversations"]
    params = SamplingParams(temperature=0, max_tokens=16)
    outputs = llm.chat([talk["messages"] for talk in talks], params)
    assert [o.prompt for o in outputs] == [talk["text"] for talk in talks]
    assert [o.prompt_token_ids for o in outputs] == [talk["ids"] for talk in talks]
    assert [o.outputs[0].token_ids for o in outputs] == [talk["greedy"] for talk in talks]
    assert llm.chat(talks[0]["messages"], params)[0].outputs[0].token_ids == talks[0]["greedy"]


def test_parts_of_a_message_are_lines_as_the_command_has_them(chat: str, batch: Batch) -> None:
    talk = [{"role": "user", "content": [{"type": "text", "text": "Hello"}, "you", {"text": "there"}]}]
    llm = LLM(chat, progress=False)
    (found,) = llm.chat(talk, GREEDY)
    assert found.prompt == llm.chat([{"role": "user", "content": "Hello\nyou\nthere"}], GREEDY)[0].prompt
    assert [[found.outputs[0].text]] == batch(chat, [{"messages": talk, "max_tokens": 10, "temperature": 0, "ignore_eos": True}])
    # A template that takes parts apart itself is given them.
    own = "{% for m in messages %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endfor %}"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert llm.chat(parts, GREEDY, chat_template=own, chat_template_content_format="openai")[0].prompt == "<a><b>"


def test_a_chat_template_is_text_or_a_file(chat: str, llm: LLM, tmp_path: Path) -> None:
    own = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    file = tmp_path / "own.jinja"
    file.write_text(own)
    talk = [{"role": "user", "content": "Hi"}]
    for outputs in (
        llm.chat(talk, GREEDY, chat_template=own), llm.chat(talk, GREEDY, chat_template=str(file)),
        LLM(chat, chat_template=str(file), progress=False).chat(talk, GREEDY),
    ):  # fmt: skip
        assert outputs[0].prompt == "[user] Hi"
    with pytest.raises(aerostat.UsageError, match="neither"):
        llm.chat(talk, GREEDY, chat_template="no/such/file")


def test_one_bad_prompt_raises_before_anything_runs_or_is_an_output(chat: str) -> None:
    llm = LLM(chat, progress=False)
    prompts = ["Hello", [], [1, 99999], {"text": "x"}, None]
    with pytest.raises(aerostat.UsageError, match="prompt 1"):
        llm.generate(prompts, GREEDY)
    assert llm.stats() is None
    outputs = llm.generate(prompts, GREEDY, on_error="return")
    assert [o.error is None for o in outputs] == [True, False, False, False, False]
    assert len(outputs[0].outputs[0].token_ids) == 10 and "99999" in str(outputs[2].error)
    assert [number for number, _ in llm.as_completed(prompts, GREEDY)] == [1, 2, 3, 4, 0]


def test_as_completed_gives_short_answers_first(llama: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (200, 1)]
    assert [number for number, _ in llama.as_completed([[1, 2, 3], [1, 2, 3]], params)] == [1, 0]


def test_leaving_as_completed_early_leaves_the_model_usable(llama: LLM) -> None:
    for _ in llama.as_completed([[1, 2, 3]] * 4, SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)):
        break
    assert llama.generate([expected("llama")["prompts"][0]["ids"]], GREEDY)[0].outputs[0].token_ids == expected("llama")["prompts"][0]["greedy"]


def test_streams_give_the_text_piece_by_piece(llm: LLM) -> None:
    pieces = list(llm.stream("Hello", GREEDY))
    assert len(pieces) > 1 and "".join(pieces) == llm.generate("Hello", GREEDY)[0].outputs[0].text
    talk = expected("chat")["conversations"][0]
    assert "".join(llm.stream(talk["messages"], SamplingParams(temperature=0, max_tokens=16), chat=True)) == talk["greedy_text"]
    stream = llm.stream("Hello", SamplingParams(temperature=0, max_tokens=100000, ignore_eos=True))
    assert next(stream)
    stream.close()


def test_event_loops_share_a_model_and_cancel_their_own(llm: LLM) -> None:
    wanted = llm.generate("Hello", GREEDY)[0].outputs[0]

    async def work() -> None:
        long = SamplingParams(temperature=0, max_tokens=1 << 20, ignore_eos=True)
        endless = asyncio.create_task(llm.agenerate("Hello", long))
        both = await asyncio.gather(llm.agenerate("Hello", GREEDY), llm.agenerate(["Hello", "Hello"], GREEDY))
        assert [o.outputs[0].token_ids for outputs in both for o in outputs] == [wanted.token_ids] * 3
        text = ""
        async for piece in llm.astream("Hello", GREEDY):
            text += piece
        assert text == wanted.text
        talk = expected("chat")["conversations"][0]
        answer = await llm.achat(talk["messages"], SamplingParams(temperature=0, max_tokens=16))
        assert answer[0].outputs[0].token_ids == talk["greedy"]
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        again = await asyncio.wait_for(llm.agenerate("Hello", GREEDY), 30)
        assert again[0].outputs[0].token_ids == wanted.token_ids

    asyncio.run(work())


def test_embeddings_are_the_last_tokens_of_length_one() -> None:
    llm = LLM(fixture("gemma3"), kv="f32", progress=False)
    cases = json.loads((FIXTURES / "gemma3" / "hidden.json").read_text())["cases"]
    for case in cases:
        final = np.asarray(case["last_last_token"], dtype=np.float64)
        output = llm.embed([case["ids"]])[0]
        assert output.outputs is not None and output.prompt_token_ids == case["ids"]
        assert np.allclose(output.outputs.array, final / np.linalg.norm(final), atol=1e-4)
        plain = llm.embed([case["ids"]], pooling_params=PoolingParams(normalize=False))[0].outputs
        assert plain is not None and np.allclose(plain.array, final, atol=1e-3)
        cut = llm.embed([case["ids"]], pooling_params=PoolingParams(dimensions=4))[0].outputs
        assert cut is not None and cut.hidden_size == 4 and np.linalg.norm(cut.array) == pytest.approx(1, abs=1e-5)
        tokens = llm.encode([case["ids"]], pooling_task="token_embed")[0].outputs
        assert tokens is not None and tokens.array.shape == (len(case["ids"]), llm.embedding_size)
        assert np.allclose(tokens.array[-1], final, atol=1e-3)


def test_pooling_follows_sentence_transformers_files(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "embedder"
    shutil.copytree(FIXTURES / "chat", folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}))
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    mean = LLM(folder, kv="f32", progress=False)
    last = LLM(FIXTURES / "chat", kv="f32", progress=False)
    tokens = last.encode(["Hello"], pooling_task="token_embed")[0].outputs
    found = mean.embed(["Hello"])[0].outputs
    assert tokens is not None and found is not None
    assert np.allclose(found.array, tokens.array.mean(axis=0), atol=1e-5)
    array = mean.as_encoder().encode(["Hello", "you"], normalize_embeddings=True)
    assert array.shape == (2, 32) and np.allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)
    assert mean.as_encoder().encode("Hello").shape == (32,)


def test_classify_takes_the_likeliest_label(llm: LLM) -> None:
    labels = ["good", "bad", "it is so"]
    outputs = llm.classify(["Hello", "It was"], labels, template="Text: {text}\nLabel:")
    for text, output in zip(["Hello", "It was"], outputs):
        prefix = f"Text: {text}\nLabel:"
        likely = llm.log_likelihood([prefix] * 3, labels)
        assert output.outputs is not None
        assert output.outputs.scores == pytest.approx([one.logprob for one in likely])
        assert output.outputs.index == int(np.argmax(output.outputs.scores)) and output.outputs.label in labels
        assert sum(output.outputs.probs) == pytest.approx(1)
    mean = llm.classify("Hello", labels, measure="mean")[0].outputs
    calibrated = llm.classify("Hello", labels, measure="calibrated", calibrate="Answer:")[0].outputs
    assert mean is not None and calibrated is not None and mean.scores != calibrated.scores
    with pytest.raises(aerostat.UsageError, match="labels"):
        llm.classify("Hello")
    with pytest.raises(aerostat.UsageError, match="measure"):
        llm.classify("Hello", labels, measure="calibrated")


def test_likelihoods_are_transformers(llama: LLM) -> None:
    prompt = expected("llama")["prompts"][-1]
    ids, wanted = prompt["ids"], prompt["logprobs"]
    found = llama.log_likelihood([ids[:2]], [ids[2:]])[0]
    assert found.token_logprobs == pytest.approx(wanted[2:], abs=1e-4) and found.logprob == pytest.approx(sum(wanted[2:]), abs=1e-3)


def test_scores_are_cosines(llm: LLM) -> None:
    scores = llm.score("Hello", ["Hello", "you there"])
    assert scores[0].outputs.score == pytest.approx(1, abs=1e-5) and scores[1].outputs.score < 1
    assert len(llm.score(["a", "b"], ["c", "d"])) == 2
    with pytest.raises(aerostat.UsageError, match="N to N"):
        llm.score(["a", "b"], ["c", "d", "e"])


def test_distil_gives_the_likeliest_tokens_after_each(llama: LLM) -> None:
    prompt = expected("llama")["prompts"][-1]
    output = llama.distil([prompt["ids"]], 5)[0]
    assert output.token_ids == prompt["ids"] and output.ids.shape == output.logprobs.shape == (len(prompt["ids"]), 5)
    assert output.ids[-1, 0] == prompt["greedy"][0] and (np.diff(output.logprobs, axis=1) <= 0).all()


def test_run_batch_is_the_commands_job(llm: LLM, tmp_path: Path) -> None:
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/completions",
         "body": {"model": "m", "prompt": prompt, "max_tokens": 4, "temperature": 0}}
        for n, prompt in enumerate(["Hello", "you"])
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    counts = llm.run_batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert counts == {"total": 2, "done": 2, "failed": 0}
    written = (tmp_path / "out.jsonl").read_bytes()
    results = {line["custom_id"]: line for line in map(json.loads, written.decode().splitlines())}
    wanted = llm.generate(["Hello", "you"], SamplingParams(temperature=0, max_tokens=4))
    llm_f16 = {n: results[str(n)]["response"]["body"]["choices"][0]["text"] for n in range(2)}
    assert llm_f16 == {n: o.outputs[0].text for n, o in enumerate(wanted)}
    assert llm.run_batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl") == counts
    assert (tmp_path / "out.jsonl").read_bytes() == written
    with pytest.raises(aerostat.JobError):
        llm.run_batch(tmp_path / "missing.jsonl", tmp_path / "other.jsonl")


def test_vllms_options_are_mapped_noted_and_refused(chat: str, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    with caplog.at_level(logging.INFO, logger="aerostat"):
        LLM(chat, tensor_parallel_size=4, gpu_memory_utilization=0.9, enforce_eager=True, max_model_len=128, max_num_seqs=4)
    assert any("tensor_parallel_size" in record.message for record in caplog.records)
    for wrong in ({"hf_overrides": {"a": 1}}, {"enable_lora": True}, {"tokenizer": "other/one"}, {"quantization": "awq"}):
        with pytest.raises(ValueError):
            LLM(chat, **wrong)
    with pytest.raises(TypeError):
        LLM(chat).generate("Hello", foo=1)


def test_a_quantization_is_that_of_the_weights(chat: str) -> None:
    for name, scheme in (("llama_gptq_4", "gptq"), ("llama_gptq_4", "gptq_marlin"), ("qwen2_awq", "awq"), ("chat/twin.gguf", "gguf")):
        LLM(fixture(name), quantization=scheme)
    for name, scheme in (("llama_gptq_4", "awq"), ("chat/twin.gguf", "fp8"), ("chat", "gptq")):
        with pytest.raises(aerostat.UsageError, match="the scheme of the weights"):
            LLM(fixture(name), quantization=scheme)


def test_guesses_change_nothing(chat: str, llm: LLM) -> None:
    prompts = ["Hello, my name is", "one two one two one two one"]
    params = SamplingParams(max_tokens=24, seed=5, ignore_eos=True)
    wanted = [o.outputs[0].token_ids for o in llm.generate(prompts, params)]
    ways: list[dict[str, Any]] = [
        {"draft": "none"}, {"draft": "auto"}, {"draft": chat}, {"speculative_config": {"model": chat, "num_speculative_tokens": 5}},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
    ]  # fmt: skip
    for how in ways:
        with LLM(chat, kv="f32", progress=False, **how) as other:
            assert [o.outputs[0].token_ids for o in other.generate(prompts, params)] == wanted
            stats = other.stats()
        assert stats is not None and ("none" in how.values()) == (stats["drafted"] == 0)


def test_many_prompts_after_a_few_open_the_model_for_many() -> None:
    llm = LLM(fixture("llama"), kv="f32", progress=False)
    llm.generate([[1, 2, 3]], GREEDY)
    many = llm.generate([[1, 2, 3]] * 40, GREEDY)
    assert len({tuple(o.outputs[0].token_ids) for o in many}) == 1


def test_a_longer_prompt_than_before_opens_the_model_again(llama: LLM) -> None:
    long = [1 + n % 90 for n in range(300)]
    one = llama.generate([long], GREEDY)[0].outputs[0].token_ids
    assert LLM(fixture("llama"), kv="f32", progress=False).generate([long], GREEDY)[0].outputs[0].token_ids == one


def test_closing_while_threads_wait_ends_them(chat: str) -> None:
    llm = LLM(chat, progress=False)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(llm.generate("Hello", SamplingParams(temperature=0, max_tokens=300, ignore_eos=True))))
    thread.start()
    while llm.stats() is None and thread.is_alive():
        llm._core.status()
    llm.close()
    thread.join(30)
    assert not thread.is_alive() and len(found[0][0].outputs[0].token_ids) == 300


def lines_of(count: int, **body: Any) -> str:
    rows = ({"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": f"Row {n}", **body}} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_batch_shares_the_model_with_other_calls(chat: str, tmp_path: Path) -> None:
    llm = LLM(chat, progress=False)
    wanted = llm.generate("Hello", GREEDY)[0].outputs[0].token_ids
    (tmp_path / "in.jsonl").write_text(lines_of(24, max_tokens=60, temperature=0))
    counts: list[Any] = []
    thread = threading.Thread(target=lambda: counts.append(llm.run_batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl")))
    thread.start()
    while thread.is_alive():
        assert llm.generate("Hello", GREEDY)[0].outputs[0].token_ids == wanted
    thread.join()
    assert counts == [{"total": 24, "done": 24, "failed": 0}]
    # The model stays open, and goes on to work.
    assert llm.stats() is not None and llm.generate("Hello", GREEDY)[0].outputs[0].token_ids == wanted


def test_ctrl_c_ends_a_batch_that_goes_on_at_the_next_call(chat: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines_of(200, max_tokens=300, temperature=0, ignore_eos=True))
    llm = LLM(chat, progress=False, rows_max=8)

    def interrupt() -> None:
        while (llm._core.status()["progress"] or {"sweep": 0})["sweep"] < 20:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(aerostat.Interrupted, match="goes on"):
        llm.run_batch(source, target)
    begun = time.monotonic()
    assert len(llm.generate("Hello", GREEDY)[0].outputs[0].token_ids) == 10 and time.monotonic() - begun < 10
    assert llm.run_batch(source, target) == {"total": 200, "done": 200, "failed": 0}
    LLM(chat, progress=False).run_batch(source, tmp_path / "whole.jsonl")
    answers = [{row["custom_id"]: row["response"]["body"]["choices"] for row in map(json.loads, path.read_text().splitlines())}
               for path in (target, tmp_path / "whole.jsonl")]  # fmt: skip
    assert answers[0] == answers[1]


def test_a_batch_that_memory_has_no_room_for(chat: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(lines_of(2, max_tokens=4))
    with pytest.raises(aerostat.BudgetError) as caught:
        LLM(chat, memory="1MiB", headroom=0, progress=False).run_batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert caught.value.smallest is not None


def test_arrays_come_over_the_engines_memory(llm: LLM, llama: LLM) -> None:
    vector = llm.embed("Hello")[0].outputs
    assert vector is not None and vector.array.dtype == np.float32 and vector.array.flags.writeable
    assert type(vector.array.base).__name__ == "PySliceContainer"
    likely = llama.distil([[1, 2, 3]], 4)[0]
    assert likely.ids.dtype == np.uint32 and likely.ids.shape == (3, 4) and likely.logprobs.shape == (3, 4)
    # A vector for each token is a table, of a single token too.
    assert [o.outputs.data.shape for o in llama.encode([[1], [1, 2]], pooling_task="token_embed") if o.outputs is not None] == [(1, llama.embedding_size), (2, llama.embedding_size)]


def test_arrays_are_read_where_they_lie() -> None:
    from aerostat.tensors import to_numpy

    class Other:
        """An array of another library."""

        def __init__(self, array: Any) -> None:
            self._array = array

        def __dlpack__(self, **how: Any) -> Any:
            return self._array.__dlpack__(**how)

        def __dlpack_device__(self) -> Any:
            return self._array.__dlpack_device__()

    class Old:
        def __init__(self, array: Any) -> None:
            self._array = array

        def __array__(self, *_: Any, **__: Any) -> Any:
            return self._array

    array = np.arange(6)
    for given in (array, Other(array), Old(array), array.view()):
        assert np.shares_memory(to_numpy(given), array)


def test_the_models_generation_config_or_anothers(chat: str, tmp_path: Path) -> None:
    assert LLM(chat, generation_config="vllm").get_default_sampling_params() == SamplingParams()
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 3, "max_new_tokens": 9}')
    other = LLM(chat, generation_config=tmp_path, override_generation_config={"top_p": 0.5}).get_default_sampling_params()
    assert (other.temperature, other.top_k, other.top_p, other.max_tokens) == (0.25, 3, 0.5, 9)
