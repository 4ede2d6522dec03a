"""The package as a guest: what importing does, what goes wrong how, forks, pickles, signals."""

import asyncio
import ctypes
import gc
import logging
import os
import pickle
import signal
import statistics
import sys
import threading
import time
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Callable

import pytest

import aerostat
from aerostat import LLM, AutoModel, SamplingParams

from conftest import fixture, python


def test_importing_is_quick_and_imports_no_numpy(tmp_path: Path) -> None:
    # With files compiled, as they are wherever the package is installed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    code = (
        "import sys, time; begun = time.process_time(); import aerostat; aerostat.LLM; aerostat.AutoModel; "
        "took = time.process_time() - begun; "
        "assert not {'numpy', 'torch', 'tqdm', 'asyncio', 'pandas', 'pyarrow'} & set(sys.modules); "
        "print(took)"
    )
    # Of the processor's time, since a machine that does other things takes longer by the clock; a third of this is usual.
    assert statistics.median(float(python(code, env)) for _ in range(9)) < 0.15


def test_importing_prints_nothing_and_leaves_signals_and_environment() -> None:
    code = (
        "import os, signal; before = dict(os.environ), signal.getsignal(signal.SIGINT); import aerostat.airllm, aerostat.llm; "
        "assert before == (dict(os.environ), signal.getsignal(signal.SIGINT))"
    )
    assert python(code) == ""


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="Foo"):
        aerostat.Foo  # noqa: B018
    assert {"LLM", "AutoModel", "SamplingParams"} <= set(dir(aerostat))


def test_exceptions_have_two_bases() -> None:
    pairs = [
        (aerostat.UsageError, ValueError), (aerostat.ModelError, OSError), (aerostat.TextError, ValueError),
        (aerostat.BudgetError, MemoryError), (aerostat.ReadError, OSError), (aerostat.DeviceError, RuntimeError),
        (aerostat.ForkedError, RuntimeError), (aerostat.JobError, OSError),
    ]  # fmt: skip
    assert all(issubclass(ours, theirs) and issubclass(ours, aerostat.AerostatError) for ours, theirs in pairs)
    assert issubclass(aerostat.Interrupted, KeyboardInterrupt)


def test_a_model_that_is_not_there_says_so() -> None:
    with pytest.raises(aerostat.ModelError, match="no such model"):
        LLM("./nothing/here")
    with pytest.raises(OSError):
        AutoModel.from_pretrained("./nothing/here")


def test_paths_come_as_text_bytes_and_objects(chat: str, tmp_path: Path) -> None:
    texts = []
    for path in (chat, os.fsencode(chat), Path(chat)):
        llm = LLM(path, progress=False)  # type: ignore[arg-type]
        texts.append(llm.generate("Hello", SamplingParams(temperature=0, max_tokens=3))[0].outputs[0].text)
        pickle.loads(pickle.dumps(llm))
        AutoModel.from_pretrained(path, progress=False)  # type: ignore[arg-type]
    assert len(set(texts)) == 1


def test_a_budget_that_cannot_work_names_the_smallest() -> None:
    llm = LLM(fixture("llama"), memory="1MiB", headroom=0, progress=False)
    with pytest.raises(aerostat.BudgetError) as caught:
        llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2))
    assert caught.value.smallest is not None and caught.value.smallest > 1 << 20


def test_the_smallest_budget_counts_the_headroom() -> None:
    """It was named without: whoever asked for what the message said was refused again."""

    def run(memory: str) -> str:
        return python(f"""
import pickle
from aerostat import BudgetError, LLM, SamplingParams
try:
    print(len(LLM({fixture("llama")!r}, memory={memory}, progress=False).generate([[1, 2, 3]], SamplingParams(max_tokens=2))))
except BudgetError as error:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    print(error.smallest, error)
""")

    smallest, _, said = run("'20MiB'").partition(" ")
    assert "memory='20MiB' is too small" in said and "64 MiB of headroom" in said and "--" not in said
    # What a process holds differs a little from run to run.
    assert run(str(int(smallest) + (2 << 20))).strip() == "1"


def test_a_budget_bounds_the_process_with_its_results() -> None:
    def run(how: str) -> str:
        return python(f"""
import aerostat
from aerostat import LLM, SamplingParams
from aerostat._aerostat import peak_resident_bytes
prompts = [[1 + n % 90, 2, 3, 1 + n % 7] for n in range(2000)]
params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, logprobs=3)
try:
    outputs = LLM({fixture("llama")!r}, progress=False, {how}).generate(prompts, params)
    print(len(outputs), peak_resident_bytes())
except aerostat.BudgetError as error:
    print(error.smallest)
""")

    memory = int(run("memory='1MiB', headroom=0")) + (66 << 20)
    count, peak = run(f"memory={memory}, headroom=64 << 20").split()
    assert int(count) == 2000 and int(peak) <= memory


def test_results_that_cannot_be_held_are_refused_before_anything_is_opened() -> None:
    llm = LLM(fixture("llama"), memory="2MiB", headroom=0, progress=False)
    rows = [[1 + n % 90 for n in range(200)]] * 400
    calls = [
        lambda: llm.encode(rows, pooling_task="token_embed"), lambda: llm.distil(rows, 20),
        lambda: llm.generate(rows, SamplingParams(max_tokens=1, prompt_logprobs=5)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(aerostat.BudgetError, match="fewer prompts"):
            call()
    assert llm.stats() is None


def test_keywords_that_nobody_knows_name_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'max_model_len'"):
        LLM(fixture("llama"), max_model_length=3)
    with pytest.raises(TypeError, match="did you mean 'max_seq_len'"):
        AutoModel.from_pretrained(fixture("llama"), max_seq_length=3)


@pytest.mark.parametrize("given", ["4", "4 GiB", "500MB", "0.5GiB", 1 << 30])
def test_sizes(given: object) -> None:
    from aerostat._options import parse_size

    sizes = {"4": 4, "4 GiB": 4 << 30, "500MB": 500_000_000, "0.5GiB": 1 << 29}
    assert parse_size(given) == sizes.get(given, given)  # type: ignore[arg-type, call-overload]
    for wrong in ("", "GiB", "-1", "4 bananas", 0, None):
        with pytest.raises(aerostat.UsageError):
            parse_size(wrong)  # type: ignore[arg-type]


def test_a_pickled_model_answers_alike_and_holds_no_token() -> None:
    params = SamplingParams(max_tokens=6, temperature=0.0)
    llm = LLM(fixture("llama"), hf_token="hf_secret", progress=False, threads=1)
    pickled = pickle.dumps(llm)
    assert b"hf_secret" not in pickled
    assert "hf_secret" not in repr(llm) and "hf_secret" not in repr(vars(llm))
    again = pickle.loads(pickled)
    assert again.generate([[1, 2, 3]], params)[0].outputs[0].token_ids == llm.generate([[1, 2, 3]], params)[0].outputs[0].token_ids
    model = AutoModel.from_pretrained(fixture("llama"), hf_token="hf_secret", progress=False)
    pickled = pickle.dumps(model)
    assert b"hf_secret" not in pickled
    assert pickle.loads(pickled).generate([[1, 2, 3]], max_new_tokens=3).tolist() == model.generate([[1, 2, 3]], max_new_tokens=3).tolist()


def test_a_pickled_model_answers_as_it_was_set(chat: str) -> None:
    model = AutoModel.from_pretrained(chat, progress=False)
    model.tokenizer.pad_token, model.tokenizer.padding_side = "<|im_end|>", "left"
    model.generation_config.max_new_tokens, model.generation_config.do_sample = 3, False
    again = pickle.loads(pickle.dumps(model))
    assert again.tokenizer.pad_token == "<|im_end|>"
    texts = ["Hello", "you there"]
    assert again.tokenizer(texts, padding=True) == model.tokenizer(texts, padding=True)
    assert again.generate([[1, 2]]).tolist() == model.generate([[1, 2]]).tolist() and again.generate([[1, 2]]).shape == (1, 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_is_told_and_does_not_hang() -> None:
    llm = LLM(fixture("llama"), progress=False)
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2))
        except aerostat.ForkedError:
            code = 0
            del llm
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_closing_gives_back_and_the_next_call_opens_again() -> None:
    with LLM(fixture("llama"), progress=False) as llm:
        first = llm.generate([[1, 2, 3]], SamplingParams(max_tokens=4, temperature=0))
        assert llm.stats() is not None
        llm.close()
        assert llm.stats() is None
        again = llm.generate([[1, 2, 3]], SamplingParams(max_tokens=4, temperature=0))
    assert first[0].outputs[0].token_ids == again[0].outputs[0].token_ids


def test_ctrl_c_ends_the_call_with_what_there_is() -> None:
    llm = LLM(fixture("llama"), progress=False, max_model_len=100_010, max_num_seqs=2)
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2))
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    short, long = SamplingParams(max_tokens=1, temperature=0), SamplingParams(max_tokens=100_000, temperature=0, ignore_eos=True)
    with pytest.raises(aerostat.Interrupted) as caught:
        llm.generate([[1, 2, 3], [1, 2, 4]], [short, long])
    assert time.monotonic() - begun < 10
    done, cut = caught.value.outputs
    assert done.outputs[0].finish_reason == "length" and done.finished
    assert cut.outputs[0].finish_reason == "abort" and not cut.finished and len(cut.outputs[0].token_ids) > 1
    # It goes on to work.
    assert llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids == done.outputs[0].token_ids


def test_ctrl_c_ends_what_comes_one_by_one() -> None:
    """It came as Python's own, and what had not been given was lost or came as if it were whole."""
    llm = LLM(fixture("llama"), progress=False, max_model_len=100_010, max_num_seqs=2)
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2))
    short, long = SamplingParams(max_tokens=1, temperature=0), SamplingParams(max_tokens=100_000, temperature=0, ignore_eos=True)
    given = []
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(aerostat.Interrupted) as caught:
        for number, output in llm.as_completed([[1, 2, 3], [1, 2, 4]], [short, long]):
            given.append((number, output.finished))
    assert given == [(0, True)]
    [(number, cut)] = caught.value.outputs
    assert number == 1 and not cut.finished and len(cut.outputs[0].token_ids) > 1
    chat = LLM(fixture("chat"), progress=False)
    chat.generate("Hello", short)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(aerostat.Interrupted) as caught:
        for piece in chat.stream("Hello", long):
            assert isinstance(piece, str)
    assert caught.value.outputs == []
    assert len(chat.generate("Hello", short)) == 1


@pytest.mark.parametrize("what", ["embed", "token_embed", "classify", "calibrated", "score", "likelihood", "distil", "rerank", "texts", "ids"])
def test_ctrl_c_gives_what_there_is_in_the_shape_of_the_call(what: str, chat: str) -> None:
    """Vectors and labels came as the engine had told them."""
    llm = LLM(chat, progress=False, max_model_len=510, max_num_batched_tokens=512)
    model = AutoModel.from_pretrained(chat, progress=False)
    rows: list[list[int]] = [[1, 2, 3]] + [[1 + n % 90 for n in range(500)]] * 5000
    how = {"measure": "calibrated", "calibrate": "a"} if what == "calibrated" else {}
    calls: dict[str, Callable[[], object]] = {
        "embed": lambda: llm.embed(rows), "token_embed": lambda: llm.encode(rows[:2000], pooling_task="token_embed"),
        "score": lambda: llm.score(rows[:1], rows[1:]), "likelihood": lambda: llm.log_likelihood(rows, [[7]] * len(rows)),
        "distil": lambda: llm.distil(rows[:2000], 2), "rerank": lambda: ranker.rerank("a", ["b", *["b " * 40] * 5000]),
        "texts": lambda: model.generate(["a", "b"], max_new_tokens=1 << 16, eos_token_id=[]),
        "ids": lambda: model.generate([[1, 2], [3, 4]], max_new_tokens=1 << 16, eos_token_id=[]),
    }  # fmt: skip
    llm.embed([[1, 2]])
    ranker = LLM(fixture("sentences/ranker"), progress=False, max_model_len=100, max_num_batched_tokens=100)

    def press() -> None:
        core = {"texts": model, "ids": model, "rerank": ranker}.get(what, llm)._core
        seen = (core.status()["progress"] or {"sweep": 0})["sweep"]
        while (core.status()["progress"] or {"sweep": 0})["sweep"] < seen + 5:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(aerostat.Interrupted) as caught:
        calls.get(what, lambda: llm.classify(rows, ["a", "b"], **how))()  # type: ignore[arg-type]
    outputs = caught.value.outputs
    if what == "texts":
        assert len(outputs) == 2 and all(isinstance(text, str) and text for text in outputs)
    elif what == "ids":
        assert len(outputs) == 2 and all(isinstance(token, int) for ids in outputs for token in ids)
    else:
        kind = {
            "embed": "EmbeddingRequestOutput", "token_embed": "EmbeddingRequestOutput", "score": "ScoringRequestOutput",
            "rerank": "ScoringRequestOutput", "likelihood": "LikelihoodOutput", "distil": "DistilOutput",
        }.get(what, "ClassificationRequestOutput")  # fmt: skip
        assert len(outputs) in (2000, 5000, 5001) and {type(one).__name__ for one in outputs} <= {"NoneType", kind}
        assert outputs[-1] is None and (what == "calibrated" or outputs[0] is not None)


def test_ctrl_c_while_a_model_is_forgotten_is_not() -> None:
    """It fell into a callback of a weak reference, whose exceptions Python ignores, and the call went on: the models of the test before were
    collected just then."""
    models = [LLM(fixture("llama"), progress=False)]
    # Nothing of Python runs between these, but for what they call; `os.kill` would look at once what it had done.
    steps = [partial(ctypes.CDLL(None).kill, os.getpid(), int(signal.SIGINT)), models.clear, gc.collect]
    with pytest.raises(KeyboardInterrupt):
        list(map(methodcaller("__call__"), steps))


def test_ctrl_c_gives_no_other_thread_half_a_result() -> None:
    llm = LLM(fixture("llama"), progress=False, max_model_len=100_010, max_num_seqs=6)
    long = SamplingParams(max_tokens=100_000, temperature=0, ignore_eos=True)
    rows = [[1 + n % 90 for n in range(2000)]] * 200
    ended: list[str] = []

    def ask(call: Callable[[], object]) -> None:
        try:
            ended.append(repr(call())[:200])
        except aerostat.Cancelled:
            ended.append("cancelled")

    others: list[Callable[[], object]] = [
        lambda: llm.generate([[1, 2, 5]], long), lambda: llm.embed(rows), lambda: asyncio.run(llm.agenerate([[1, 2, 6]], long)),
        lambda: list(llm.as_completed([[1, 2, 7], [1, 2, 8]], long)),
    ]  # fmt: skip
    def press() -> None:
        # What is asked for later is not ended.
        while llm._core.status()["calls"] < 5:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threads = [threading.Thread(target=target) for target in (*(partial(ask, call) for call in others), press)]
    [thread.start() for thread in threads]
    with pytest.raises(aerostat.Interrupted):
        llm.generate([[1, 2, 3]], long)
    [thread.join(30) for thread in threads]
    # Answers that were cut once came as if they had ended.
    assert ended == ["cancelled"] * 4


def test_ctrl_c_ends_nothing_that_is_asked_for_later() -> None:
    """What other threads had asked for was not quite over when the call that was interrupted came back, and until then the next call was
    ended by the same Ctrl-C."""
    llm = LLM(fixture("llama"), progress=False, max_model_len=3000, max_num_seqs=10)
    short, long = SamplingParams(max_tokens=2, temperature=0), SamplingParams(max_tokens=2900, temperature=0, ignore_eos=True)
    wanted = llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids

    def ask() -> None:
        with pytest.raises(aerostat.Cancelled):
            llm.generate([[1, 2, 4]] * 3, long)

    for _ in range(8):
        threads = [threading.Thread(target=ask) for _ in range(3)]
        [thread.start() for thread in threads]
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(aerostat.Interrupted):
            llm.generate([[1, 2, 3]], long)
        assert llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids == wanted
        [thread.join(30) for thread in threads]
        assert llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids == wanted


def test_threads_share_a_model() -> None:
    llm = LLM(fixture("llama"), progress=False)
    params = SamplingParams(max_tokens=8, temperature=0)
    alone = [llm.generate([[1, 2, n]], params)[0].outputs[0].token_ids for n in range(3, 11)]
    found: dict[int, list[int]] = {}

    def ask(n: int) -> None:
        found[n] = llm.generate([[1, 2, n]], params)[0].outputs[0].token_ids

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3, 11)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [found[n] for n in range(3, 11)] == alone


def test_nothing_is_written_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    AutoModel.from_pretrained(fixture("chat")).generate(["hello"], max_new_tokens=3)
    assert capfd.readouterr().out == ""


def test_the_logger_is_aerostat(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="aerostat"):
        AutoModel.from_pretrained(fixture("llama"), dtype="float16", attn_implementation="sdpa", progress=False)
    assert any("dtype float16 has no effect" in record.message for record in caplog.records)
    assert any("attn_implementation" in record.message for record in caplog.records)
