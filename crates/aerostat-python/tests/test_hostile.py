"""What nobody should pass, and somebody will: each is refused in words, by an exception of the kind that Python's own
functions raise, and the model goes on to work."""

import asyncio
import json
import math
import threading
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import aerostat
from aerostat import LLM, AutoModel, PoolingParams, SamplingParams, StructuredOutputsParams
from aerostat._core import raised

from conftest import fixture, python

GREEDY = SamplingParams(temperature=0, max_tokens=3)
HUGE = 10**30
#: Seconds that a busy machine takes for nothing.
LATE = 2.0
SURROGATE = "a\ud800b"


@pytest.fixture(scope="module")
def llm(chat: str) -> LLM:
    return LLM(chat, progress=False)


@pytest.fixture(scope="module")
def model(chat: str) -> AutoModel:
    return AutoModel.from_pretrained(chat, progress=False)


def same(llm: LLM) -> None:
    """It still works."""
    assert len(llm.generate("Hello", GREEDY)[0].outputs[0].token_ids) == 3


PROMPTS: list[Any] = [
    None, 5, 1.5, True, b"bytes", object(), [None], [5.0, 6.0], [["a", "b"]], [[True, False]], [[HUGE]], [[-1]], [[1, None]],
    [math.nan], [""], [[]], [{}], [{"prompt": None}], [{"prompt": 5}], [{"prompt": "x", "multi_modal_data": {"image": 1}}],
    [{"prompt_token_ids": "abc"}], SURROGATE, [SURROGATE], np.asarray([1.5, 2.5]), np.asarray(3), np.zeros((2, 2, 2), dtype=int),
    np.asarray([[1.0, 2.0]]), np.asarray([np.nan]), np.asarray(["a", None], dtype=object), [np.asarray([2**63], dtype=np.uint64)],
    [[320]], {"prompt_token_ids": [1, 2.5]}, [b"bytes"], bytearray(b"bytes"), {"prompt_token_ids": b"bytes"},
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_prompts(llm: LLM, prompt: Any) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda p: llm.generate(p, GREEDY), llm.embed, lambda p: llm.classify(p, ["a", "b"]), lambda p: llm.distil(p, 2),
        lambda p: llm.encode(p, pooling_task="token_embed"), lambda p: asyncio.run(llm.agenerate(p, GREEDY)),
        lambda p: list(llm.stream(p, GREEDY)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError):
            call(prompt)
    same(llm)


@pytest.mark.parametrize(
    "how",
    [
        {"max_tokens": HUGE}, {"max_tokens": 1.5}, {"max_tokens": "3"}, {"max_tokens": True}, {"temperature": math.nan},
        {"temperature": math.inf}, {"temperature": "hot"}, {"temperature": None}, {"top_p": math.nan}, {"top_k": 1.5}, {"top_k": HUGE},
        {"seed": HUGE}, {"seed": 0.5}, {"n": HUGE}, {"n": None}, {"stop": [5]}, {"stop": 5}, {"stop_token_ids": [-1]},
        {"stop_token_ids": [HUGE]}, {"stop_token_ids": ["a"]}, {"stop_token_ids": 3}, {"logit_bias": {"a": 1}}, {"logit_bias": {-1: 1}},
        {"logit_bias": {1: math.nan}}, {"logit_bias": {1: "x"}}, {"logit_bias": [1]}, {"allowed_token_ids": []},
        {"allowed_token_ids": [HUGE]}, {"bad_words": [5]}, {"logprobs": HUGE}, {"logprobs": 1.5}, {"min_tokens": -1},
        {"min_tokens": None}, {"structured_outputs": 5}, {"structured_outputs": {"json": {}, "regex": "a"}},
        {"truncate_prompt_tokens": 0}, {"repetition_penalty": math.nan}, {"repetition_penalty": -1}, {"ignore_eos": "no"},
        {"stop": SURROGATE}, {"stop": [None]}, {"stop": {"a": 1}}, {"bad_words": 3}, {"bad_words": [SURROGATE]}, {"allowed_token_ids": 5},
        {"logit_bias": {1: 10**400}},
    ],
    ids=repr,
)  # fmt: skip
def test_sampling_parameters(how: dict[str, Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=next(iter(how))):
        SamplingParams(**how)


def test_a_number_that_has_no_words() -> None:
    with pytest.raises(aerostat.UsageError, match="max_tokens"):
        SamplingParams(max_tokens=10**5000)


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"enum": {1}}}, {"json": 5}, {"json": "{"}, {"json": {"enum": [math.nan]}}, {"regex": 5}, {"regex": SURROGATE}, {"choice": 5}, {"choice": "a"},
        {"choice": [SURROGATE]}, {"choice": []}, {"choice": {"a": 1}}, {"grammar": 5}, {"grammar": SURROGATE},
    ],
    ids=repr,
)  # fmt: skip
def test_shapes(how: dict[str, Any]) -> None:
    with pytest.raises(aerostat.UsageError, match=next(iter(how))):
        StructuredOutputsParams(**how)


@pytest.mark.parametrize(
    "how",
    [{"temperature": -1}, {"max_tokens": 0}, {"max_tokens": "x"}, {"stop": [""]}, {"n": 0}, {"logprobs": -5}, {"seed": "x"}],
    ids=repr,
)
def test_sampling_parameters_that_were_set_later(llm: LLM, how: dict[str, Any]) -> None:
    params = SamplingParams()
    for name, value in how.items():
        setattr(params, name, value)
    with pytest.raises(aerostat.UsageError):
        llm.generate("Hello", params)
    same(llm)


@pytest.mark.parametrize(
    "how",
    [
        {"allowed_token_ids": [320]}, {"allowed_token_ids": [4294967295]}, {"structured_outputs": StructuredOutputsParams(regex="(" * 2000)},
        {"structured_outputs": StructuredOutputsParams(json={"type": "nonsense"})}, {"structured_outputs": StructuredOutputsParams(grammar="start: nothing")},
    ],
    ids=lambda how: str(how)[:60],
)  # fmt: skip
def test_requests_that_the_model_cannot_serve(llm: LLM, how: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        llm.generate("Hello", SamplingParams(max_tokens=3, **how))
    same(llm)


def test_numbers_of_numpy_are_numbers(llm: LLM) -> None:
    params = SamplingParams(
        max_tokens=np.int64(3), temperature=np.float32(0), top_k=np.int32(5), seed=np.uint8(1), stop_token_ids=np.asarray([7, 8]),
        logit_bias={np.int64(5): np.float64(1.5)},
    )  # fmt: skip
    assert len(llm.generate("Hello", params)[0].outputs[0].token_ids) == 3
    assert len(llm.distil("Hello", np.int64(3))[0].ids[0]) == 3


def test_answers_that_memory_has_no_room_for(chat: str) -> None:
    # All tests are in one process, which takes more with each.
    taken = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    llm = LLM(chat, memory=taken + (200 << 20), progress=False)
    with pytest.raises(MemoryError):
        llm.generate("Hello", SamplingParams(max_tokens=1 << 23, ignore_eos=True))
    # It stayed so: whatever was asked next was refused for the want of what the first call had asked for.
    same(llm)
    with pytest.raises(aerostat.UsageError, match="no model has as many"):
        llm.generate("Hello", SamplingParams(max_tokens=1 << 30, ignore_eos=True))


@pytest.mark.parametrize(
    "grammar",
    ["a ::= b", "root ::= nothing", 'root ::= "a', "root ::= * 3", "x\nroot ::= x", 'root ::= "a"\nroot ::= "b"', "root ::= [a", "root ::= root"],
)
def test_grammars_that_are_none(llm: LLM, grammar: str) -> None:
    with pytest.raises(ValueError):
        llm.generate("Hello", SamplingParams(max_tokens=3, structured_outputs=StructuredOutputsParams(grammar=grammar)))
    same(llm)


@pytest.mark.parametrize("messages", [None, 5, "Hello", {"role": "user"}, [5], [None], [{"role": "user", "content": SURROGATE}], [[{"role": 5}]], [[[]]],
                                      [{"role": "user", "content": object()}]], ids=repr)  # fmt: skip
def test_messages(llm: LLM, messages: Any) -> None:
    with pytest.raises(ValueError):
        llm.chat(messages, GREEDY)
    same(llm)


@pytest.mark.parametrize(
    "how",
    [
        {"memory": math.nan}, {"memory": -1}, {"memory": math.inf}, {"memory": "much"}, {"memory": HUGE}, {"threads": 0},
        {"threads": "two"}, {"threads": HUGE}, {"io": "magic"}, {"kv": "f8"}, {"headroom": "x"}, {"rows_max": -1}, {"seed": "x"}, {"seed": HUGE},
        {"max_model_len": 0}, {"max_model_len": "x"}, {"max_num_seqs": 1.5}, {"max_num_batched_tokens": 0}, {"pooler_config": {"pooling_type": "x"}},
        {"draft": "no/such/model"}, {"draft": "/dev/null"}, {"speculative_config": "ngram"}, {"speculative_config": {"model": "./no"}}, {"quantization": "awq"},
        {"override_generation_config": {"temperature": -1}}, {"revision": SURROGATE},
    ],
    ids=repr,
)  # fmt: skip
def test_options(chat: str, how: dict[str, Any]) -> None:
    with pytest.raises((ValueError, OverflowError, OSError)):
        LLM(chat, progress=False, **how).generate("Hello", GREEDY)


@pytest.mark.parametrize("path", [None, 5, "", SURROGATE, "\0", "/", "/dev/null", "../.."], ids=repr)
def test_paths(path: Any) -> None:
    for make in (LLM, AutoModel.from_pretrained):
        with pytest.raises((ValueError, TypeError, OSError)):
            make(path)


IDS: list[Any] = [
    None, 5, [], [[]], [[1, None]], [["a"]], [[1.5]], [[math.nan]], [[math.inf]], [[HUGE]], [[-1]], [[320]], [[[1]]], [[1], [1, 2]],
    [[True, False]], np.asarray([[True]]), np.zeros((2, 0), dtype=int), np.asarray([[2**63]], dtype=np.uint64), np.asarray([[1 + 2j]]), {"attention_mask": [[1]]},
]  # fmt: skip


@pytest.mark.parametrize("ids", IDS, ids=repr)
def test_token_ids(model: AutoModel, ids: Any) -> None:
    for call in (lambda: model.generate(ids, max_new_tokens=2), lambda: model(ids)):
        with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
            call()
    assert model.generate([[1, 2, 3]], max_new_tokens=1).shape == (1, 4)


@pytest.mark.parametrize(
    "how",
    [
        {"max_new_tokens": 0}, {"max_new_tokens": 1.5}, {"max_new_tokens": "x"}, {"max_new_tokens": HUGE}, {"max_length": math.nan}, {"do_sample": True, "top_k": -1},
        {"do_sample": True, "temperature": math.nan}, {"do_sample": True, "top_p": "x"}, {"num_return_sequences": 0}, {"num_return_sequences": 1.5},
        {"repetition_penalty": 0}, {"repetition_penalty": math.nan}, {"no_repeat_ngram_size": -1}, {"stop_strings": [""]}, {"stop_strings": 5},
        {"eos_token_id": -1}, {"eos_token_id": "x"}, {"pad_token_id": "x"}, {"bad_words_ids": [[]]}, {"bad_words_ids": [[-1]]}, {"bad_words_ids": 5},
        {"suppress_tokens": [HUGE]}, {"max_time": "x"}, {"min_length": -1}, {"attention_mask": [[2, 2]]}, {"attention_mask": "x"},
        {"attention_mask": [[[1, 1, 1]]]}, {"generation_config": 5}, {"streamer": 5}, {"stopping_criteria": 5}, {"logits_processor": 5},
        {"compression": "zip"}, {"forced_bos_token_id": -3},
    ],
    ids=repr,
)  # fmt: skip
def test_keywords_of_generate(model: AutoModel, how: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError, KeyError)):
        model.generate([[1, 2, 3]], **{"max_new_tokens": 2, **how} if "max_length" not in how else how)
    assert model.generate([[1, 2, 3]], max_new_tokens=1).shape == (1, 4)


class Odd(Exception):
    """The caller's own."""


def raising(fault: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise fault

    return call


@pytest.mark.parametrize("fault", [Odd("why"), KeyboardInterrupt(), SystemExit(3), StopIteration()], ids=repr)
def test_what_processors_and_criteria_raise_comes_to_the_caller(model: AutoModel, fault: BaseException) -> None:
    for how in ({"logits_processor": [raising(fault)]}, {"stopping_criteria": [raising(fault)]}):
        with pytest.raises(type(fault)) as caught:
            model.generate([[1, 2, 3]], max_new_tokens=5, **how)
        assert caught.value is fault
    assert model.generate([[1, 2, 3]], max_new_tokens=1).shape == (1, 4)


@pytest.mark.parametrize("scores", [lambda s: s[:, :5], lambda s: None, lambda s: "x", lambda s: s * np.nan, lambda s: s - np.inf])
def test_scores_that_are_none(model: AutoModel, scores: Any) -> None:
    with pytest.raises((ValueError, TypeError, ArithmeticError, AttributeError)):
        model.generate([[1, 2, 3]], max_new_tokens=3, logits_processor=[lambda _, s: scores(np.asarray(s))])
    assert model.generate([[1, 2, 3]], max_new_tokens=1).shape == (1, 4)


def test_a_streamer_that_raises_and_one_that_interrupts(model: AutoModel) -> None:
    class Streamer:
        def __init__(self, fault: BaseException) -> None:
            self.fault, self.seen, self.ended = fault, 0, False

        def put(self, _value: Any) -> None:
            self.seen += 1
            if self.seen == 3:
                raise self.fault

        def end(self) -> None:
            self.ended = True

    for fault in (Odd("why"), KeyboardInterrupt()):
        streamer = Streamer(fault)
        with pytest.raises(type(fault)):
            model.generate([[1, 2, 3]], max_new_tokens=1 << 16, eos_token_id=[], streamer=streamer)
        assert streamer.ended
        assert model.generate([[1, 2, 3]], max_new_tokens=1).shape == (1, 4)


def test_closing_while_others_work(chat: str) -> None:
    llm = LLM(chat, progress=False)
    wanted = llm.generate("Hello", GREEDY)[0].outputs[0].token_ids
    found: list[Any] = []

    def ask() -> None:
        for _ in range(20):
            found.append(llm.generate("Hello", GREEDY)[0].outputs[0].token_ids)

    def close() -> None:
        for _ in range(20):
            llm.close()

    threads = [threading.Thread(target=work) for work in (ask, ask, close)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)
    assert found == [wanted] * 40


def test_threads_and_event_loops_at_once(chat: str) -> None:
    llm = LLM(chat, progress=False)
    wanted = llm.generate("Hello", GREEDY)[0].outputs[0].token_ids
    found: list[Any] = []

    async def work() -> None:
        outputs = await asyncio.gather(*(llm.agenerate("Hello", GREEDY) for _ in range(20)))
        found.extend(output[0].outputs[0].token_ids for output in outputs)

    def ask() -> None:
        found.extend(llm.generate("Hello", GREEDY)[0].outputs[0].token_ids for _ in range(20))

    threads = [threading.Thread(target=target) for target in (ask, ask, lambda: asyncio.run(work()), lambda: asyncio.run(work()))]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert not any(thread.is_alive() for thread in threads) and found == [wanted] * 80


@pytest.mark.parametrize(
    "ask", [lambda m: m.generate([[1, 2]], max_new_tokens=1), lambda m: m([[1, 2]]), lambda m: m.close()], ids=["generate", "call", "close"]
)
@pytest.mark.parametrize("whose", ["logits_processor", "stopping_criteria"])
def test_a_hook_that_asks_its_own_model(chat: str, ask: Any, whose: str) -> None:
    """It waited for the thread that it ran on, for ever."""
    own, other = (AutoModel.from_pretrained(chat, progress=False) for _ in range(2))

    def asking(of: AutoModel) -> Any:
        def hook(ids: Any, scores: Any, **_: Any) -> Any:
            ask(of)
            return False if scores is None else scores

        return hook

    with pytest.raises(aerostat.UsageError, match="open another"):
        own.generate([[1, 2, 3]], max_new_tokens=2, **{whose: [asking(own)]})
    assert np.asarray(own.generate([[1, 2, 3]], max_new_tokens=2, **{whose: [asking(other)]})).shape == (1, 5)


@pytest.mark.parametrize(
    "work",
    [
        "model.generate([[1, 2]], max_new_tokens=200000, logits_processor=[lambda ids, scores: scores])",
        "model.generate([[1, 2]], max_new_tokens=200000, stopping_criteria=[lambda ids, scores: False])",
        "asyncio.run(model.agenerate(['a'] * 500, LONG))",
        "asyncio.run(pieces())",
        "model.generate(['a'] * 500, LONG)",
        "model.run_batch(sys.argv[1], sys.argv[1] + '.out')",
    ],
    ids=["processor", "criterion", "event loop", "stream", "answers", "batch"],
)
def test_an_interpreter_that_ends_while_a_thread_waits(chat: str, work: str, tmp_path: Path) -> None:
    """Hooks, and wake-ups of event loops, that went on while it was taken down ended the process by a fault; so did each thread that
    came back from waiting, where the extension had been linked with an unwinder of its own (as zig does)."""
    line = {"method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "a", "max_tokens": 400, "ignore_eos": True}}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"custom_id": str(n), **line}) + "\n" for n in range(300)))
    printed = python(f"""
import asyncio, sys, threading, time
from aerostat import AutoModel, LLM, SamplingParams
sys.argv = ["", {str(tmp_path / "in.jsonl")!r}]
LONG = SamplingParams(max_tokens=400, ignore_eos=True)
model = {"AutoModel.from_pretrained" if "new_tokens" in work else "LLM"}({chat!r})
async def pieces():
    async for _ in model.astream("a", SamplingParams(max_tokens=100000, ignore_eos=True)):
        pass
def work():
    try:
        {work}
    except BaseException:
        pass
threading.Thread(target=work, daemon=True).start()
while (model._core.status()["progress"] or {{"sweep": 0}})["sweep"] < 5:
    time.sleep(0.01)
time.sleep(0.2)
print("end")
""")
    assert printed.strip() == "end"


def test_no_thread_but_pythons_own_wakes_an_event_loop(llm: LLM) -> None:
    """One of the engine's did. Where Python ended meanwhile, it was unwound through frames that must not be unwound."""
    threads: set[threading.Thread] = set()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def seen(*arguments: Any, **how: Any) -> Any:
            threads.add(threading.current_thread())
            return wake(*arguments, **how)

        loop.call_soon_threadsafe = seen  # type: ignore[method-assign]
        async for _ in llm.astream("Hello", SamplingParams(max_tokens=20, ignore_eos=True)):
            pass

    asyncio.run(work())
    assert threads and not any(isinstance(thread, threading._DummyThread) for thread in threads)


def test_labels_that_come_one_by_one(llm: LLM) -> None:
    """They were used up before they were named."""
    found = llm.classify(["Hello"], (label for label in ("a", "b")))[0].outputs  # type: ignore[arg-type]
    assert found is not None and found.label in ("a", "b")


def test_a_model_without_a_tokenizer_says_so_everywhere() -> None:
    llm = LLM(fixture("llama"), progress=False)
    for call in (lambda: llm.generate("Hello", GREEDY), lambda: llm.classify([[1, 2]], ["a"]), lambda: llm.chat([{"role": "user", "content": "x"}], GREEDY)):
        with pytest.raises(aerostat.TextError):
            call()
    with pytest.raises(ValueError):
        llm.generate([[1, 2]], SamplingParams(max_tokens=3, structured_outputs=StructuredOutputsParams(choice=["a"])))
    assert llm.generate([[1, 2]], GREEDY)[0].outputs[0].text == ""


@pytest.mark.parametrize("labels", [None, [], "positive", [""], [None], [5], ["a", SURROGATE], {}], ids=repr)
def test_labels(llm: LLM, labels: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        llm.classify("Hello", labels)
    same(llm)


def test_vectors_of_more_elements_than_there_are(llm: LLM) -> None:
    with pytest.raises(ValueError):
        llm.embed("Hello", pooling_params=PoolingParams(dimensions=1000))
    same(llm)


OUTSIDE: list[dict[str, Any]] = [
    {"allowed_token_ids": [320]}, {"logit_bias": {320: 1.0}}, {"max_tokens": None, "truncate_prompt_tokens": 600},
    {"structured_outputs": StructuredOutputsParams(regex="(")}, {"structured_outputs": StructuredOutputsParams(grammar="start: nothing")},
]  # fmt: skip


@pytest.mark.parametrize("how", OUTSIDE, ids=lambda how: str(how)[:60])
def test_parameters_that_one_prompt_cannot_have(chat: str, how: dict[str, Any]) -> None:
    llm = LLM(chat, progress=False)
    prompts, params = ["Hello", [5] * 600, "you"], [GREEDY, SamplingParams(**{"max_tokens": 3, **how}), GREEDY]
    with pytest.raises(aerostat.UsageError, match="^prompt 1: "):
        llm.generate(prompts, params)
    # Nothing ran.
    assert llm.stats() is None
    outputs = llm.generate(prompts, params, on_error="return")
    assert [one.error is None for one in outputs] == [True, False, True] and outputs[1].outputs == []
    assert outputs[2].outputs[0].token_ids == llm.generate("you", GREEDY)[0].outputs[0].token_ids


def test_what_the_engine_refuses_names_the_callers_prompt(model: AutoModel) -> None:
    # The engine counts the requests of all calls.
    failed = ("failed", {"class": "UsageError", "message": f"prompt {(1 << 63) + 7}: it is wrong"})
    assert str(raised(failed, 1)) == "prompt 1: it is wrong"
    with pytest.raises(aerostat.UsageError, match="^the prompt: "):
        model.generate([[1, 2, 3]], max_new_tokens=2, suppress_tokens=[320])


@pytest.mark.parametrize(
    ("how", "named"),
    [({"sampling_params": {"max_tokens": 3}}, "not dict"), ({"max_tokens": 3}, "SamplingParams"), ({"on_error": "ignore"}, "on_error")],
)  # fmt: skip
def test_arguments_of_generate(llm: LLM, how: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        llm.generate("Hello", **how)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "x"}}], [{"type": "text"}], [5], [None], [{"type": "text", "text": 5}],
        [{"type": "text", "text": "a"}, {"type": "input_audio"}],
    ],
    ids=repr,
)  # fmt: skip
def test_messages_that_are_not_text(llm: LLM, content: Any) -> None:
    with pytest.raises(aerostat.UsageError, match="not text"):
        llm.chat([{"role": "user", "content": content}], GREEDY)
    with pytest.raises(aerostat.UsageError, match="content_format"):
        llm.chat([{"role": "user", "content": "a"}], GREEDY, chat_template_content_format="html")
    same(llm)


def test_columns_of_pyarrow_are_prompts(llm: LLM, model: AutoModel) -> None:
    """Tables are told to be given by their columns, and those of pyarrow were no prompts: they iterate over objects of their own."""
    pyarrow = pytest.importorskip("pyarrow")
    texts = ["Hello", "you there", "What is it"]
    wanted = [output.outputs[0].token_ids for output in llm.generate(texts, GREEDY)]
    whole = pyarrow.array(texts)
    for column in (whole, pyarrow.chunked_array([whole[:1], whole[1:]]), whole.dictionary_encode(), pyarrow.table({"text": whole}).column("text")):
        assert [output.outputs[0].token_ids for output in llm.generate(column, GREEDY)] == wanted
        assert len(llm.classify(column, ["a", "b"], template="{text}:")) == len(llm.embed(column)) == len(llm.score("Hello", column)) == 3
        assert list(model.generate(column, do_sample=False)) == list(model.generate(texts, do_sample=False))
    ids = pyarrow.chunked_array([[[1, 2], [3, 4]]])
    assert model.generate(ids, max_new_tokens=1).shape == (2, 3) and model(ids).logits.shape == (2, 2, 320)
    assert len(llm.generate(ids, GREEDY)) == 2


def test_numbers_of_numpy_in_a_list_are_one_prompt(llm: LLM) -> None:
    """``list(array)`` was taken for as many prompts as it has tokens, and each of those for none."""
    wanted = llm.generate([[1, 2]], GREEDY)[0].outputs[0].token_ids
    for ids in (list(np.asarray([1, 2])), (np.int32(1), np.uint8(2)), [[np.int64(1), np.int64(2)]], [1, np.int64(2)]):
        assert [output.outputs[0].token_ids for output in llm.generate(ids, GREEDY)] == [wanted]
    # An array without dimensions is one prompt, and no list of letters.
    assert len(llm.generate(np.asarray("Hello"), GREEDY)) == 1


def test_texts_where_lists_are_meant_are_not_lists_of_letters(llm: LLM) -> None:
    for contexts, ends in (("ab", ["c", "d"]), (["a", "b"], "cd")):
        with pytest.raises(aerostat.UsageError, match="expected a list of texts"):
            llm.log_likelihood(contexts, ends)  # type: ignore[arg-type]
    for tools in ("search", {"name": "search"}, 5, ["search"]):
        with pytest.raises(aerostat.UsageError, match="^tools: "):
            llm.chat([{"role": "user", "content": "a"}], GREEDY, tools=tools)  # type: ignore[arg-type]


def test_numbers_are_no_texts_to_be_compared(llm: LLM) -> None:
    """Four numbers were taken for one text of four tokens, and there was no score."""
    with pytest.raises(aerostat.UsageError, match="expected a text"):
        llm.score([1, 2], [3, 4])


@pytest.mark.parametrize("end", [[1.5], [math.nan], [-1], [320], [], "", None, 5, [None], [True]], ids=repr)
def test_continuations_that_are_none(llm: LLM, end: Any) -> None:
    with pytest.raises(aerostat.UsageError, match="^continuation 1: "):
        llm.log_likelihood(["a", "b"], ["c", end])


def test_likelihoods_of_what_comes_one_by_one(llm: LLM) -> None:
    wanted = [one.logprob for one in llm.log_likelihood(["a", "b"], ["c", [5, 6]])]
    found = llm.log_likelihood((c for c in ("a", "b")), (c for c in ("c", np.asarray([5, 6]))))  # type: ignore[arg-type]
    assert [one.logprob for one in found] == wanted


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_that_are_no_json(llm: LLM) -> None:
    # A recursion went as far as Python lets one, and came as that.
    for value in (math.nan, math.inf, _nested(100_000)):
        for call in (
            lambda v: llm.chat([{"role": "user", "content": "a", "more": v}], GREEDY),
            lambda v: llm.chat([{"role": "user", "content": "a"}], GREEDY, chat_template_kwargs={"more": v}),
        ):  # fmt: skip
            with pytest.raises(aerostat.UsageError, match="must be JSON"):
                call(value)
    with pytest.raises(aerostat.UsageError):
        llm.generate("a", SamplingParams(structured_outputs=StructuredOutputsParams(json={"items": _nested(100_000)})))
    with pytest.raises(aerostat.UsageError, match="chat_template_kwargs"):
        llm.chat([{"role": "user", "content": "a"}], GREEDY, chat_template_kwargs=5)  # type: ignore[arg-type]
    same(llm)


@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"])
def test_token_ids_that_are_none(model: AutoModel, name: str) -> None:
    """1.5 was 1."""
    for wrong in (1.5, [1.5], True, "x", [None]):
        with pytest.raises(aerostat.UsageError, match=name):
            model.generate([[1, 2, 3]], max_new_tokens=1, **{name: wrong})
    assert model.generate([[1, 2, 3]], max_new_tokens=1, pad_token_id=[]).shape == (1, 4)


def test_a_tokenizer_refuses_what_is_none(model: AutoModel) -> None:
    tokenizer = model.tokenizer
    for ids in ([math.nan], [math.inf], [1 << 40], [-1], -1, "123", ["a"], [1.5]):
        with pytest.raises(aerostat.UsageError):
            tokenizer.decode(ids)
    with pytest.raises(aerostat.UsageError):
        tokenizer.convert_ids_to_tokens(-1)
    # The last tokens were left out, as many as were asked for.
    with pytest.raises(aerostat.UsageError, match="max_length"):
        tokenizer("Hello there you", truncation=True, max_length=-1)


def test_numbers_of_numpy_are_options(chat: str, model: AutoModel) -> None:
    own = LLM(chat, memory=np.int64(4 << 30), threads=np.int64(1), max_num_batched_tokens=np.int32(64), progress=False)
    same(own)
    assert model([[1, 2, 3]], logits_to_keep=np.int64(1)).logits.shape == (1, 1, 320)
    with pytest.raises(aerostat.UsageError, match="memory"):
        LLM(chat, memory=True)


def test_a_time_is_kept_within_a_moment(model: AutoModel) -> None:
    """It was looked at four times a second."""
    begun = time.monotonic()
    found = model.generate([[1, 2]], max_new_tokens=1 << 16, max_time=0.05, eos_token_id=[])
    assert found.shape[1] > 2 and time.monotonic() - begun < 0.25 + LATE


def test_tensors_that_hold_no_numbers(model: AutoModel, llm: LLM) -> None:
    torch = pytest.importorskip("torch")
    meta = torch.ones(1, 3, dtype=torch.long, device="meta")
    for call in (
        lambda: model.generate(meta, max_new_tokens=1), lambda: model(meta), lambda: llm.generate(meta[0], GREEDY), lambda: llm.generate([meta[0]], GREEDY),
        lambda: model.tokenizer.decode(meta[0]), lambda: model.generate([[1, 2, 3]], attention_mask=meta, max_new_tokens=1),
        lambda: model.generate(torch.tensor([[1, 2]]).to_sparse(), max_new_tokens=1),
    ):  # fmt: skip
        with pytest.raises(aerostat.UsageError, match="cannot be read"):
            call()


def test_a_grammar_takes_a_part_of_the_memory() -> None:
    """Each takes some hundred times its bytes, which no budget counted."""
    within, without = (LLM(fixture("chat"), progress=False, memory=memory) for memory in ("128MiB", None))
    choices = StructuredOutputsParams(choice=[f"the answer with number {n}" for n in range(4000)])
    for llm, what in ((within, "so little memory"), (without, None)):
        params = SamplingParams(max_tokens=2, temperature=0, structured_outputs=choices)
        if what is None:
            assert llm.generate("Hello", params)[0].outputs[0].text
        else:
            with pytest.raises(aerostat.UsageError, match=what):
                llm.generate("Hello", params)
