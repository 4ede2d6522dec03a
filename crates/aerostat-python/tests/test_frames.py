"""Tables in and out."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aerostat
from aerostat import LLM, SamplingParams

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

TEXTS = ["Hello", "you there", "What is it"]
GREEDY = SamplingParams(temperature=0, max_tokens=5)
KINDS = [pandas.DataFrame, polars.DataFrame, pyarrow.table]


@pytest.fixture(scope="module")
def llm(chat: str) -> LLM:
    return LLM(chat, progress=False)


def column(frame: Any, name: str) -> list[Any]:
    return frame.column(name).to_pylist() if hasattr(frame, "column_names") else list(frame[name])


@pytest.mark.parametrize("make", KINDS)
def test_answers_are_a_column_of_the_same_kind_of_table(llm: LLM, make: Any) -> None:
    frame = make({"id": [1, 2, 3], "text": TEXTS})
    found = llm.generate_frame(frame, "text", "answer", GREEDY)
    assert type(found) is type(frame) and column(found, "id") == [1, 2, 3]
    assert column(found, "answer") == [o.outputs[0].text for o in llm.generate(TEXTS, GREEDY)]
    talk = llm.generate_frame(frame, "text", "id", GREEDY, chat=True, system="Be brief.", template="Say {text}")
    messages = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say {t}"}] for t in TEXTS]
    assert column(talk, "id") == [o.outputs[0].text for o in llm.chat(messages, GREEDY)]


@pytest.mark.parametrize("make", KINDS)
def test_embeddings_are_lists_of_a_fixed_size(llm: LLM, make: Any) -> None:
    found = llm.embed_frame(make({"text": TEXTS}), "text")
    array = np.stack([o.outputs.array for o in llm.embed(TEXTS) if o.outputs is not None])
    assert np.array_equal(np.asarray([np.asarray(row) for row in column(found, "embedding")], dtype=np.float32), array)
    if make is pyarrow.table:
        assert found.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 32)
    if make is polars.DataFrame:
        assert found.schema["embedding"] == polars.Array(polars.Float32, 32)
    assert len(llm.embed_frame(make({"text": pyarrow.array([], pyarrow.string()) if make is pyarrow.table else []}), "text")) == 0


@pytest.mark.parametrize("make", KINDS)
def test_labels(llm: LLM, make: Any) -> None:
    found = llm.classify_frame(make({"text": TEXTS}), "text", ["good", "bad"], template="{text}:", probability="p")
    wanted = llm.classify(TEXTS, ["good", "bad"], template="{text}:")
    assert column(found, "label") == [o.outputs.label for o in wanted if o.outputs is not None]
    assert all(0.5 <= p <= 1 for p in column(found, "p"))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("talks", [False, True])
def test_rows_that_cannot_be_served_are_data_or_raise(llm: LLM, make: Any, talks: bool) -> None:
    frame = make({"text": ["Hello", None, "you"]})
    with pytest.raises(aerostat.UsageError):
        llm.generate_frame(frame, "text", "answer", GREEDY, chat=talks)
    found = llm.generate_frame(frame, "text", "answer", GREEDY, chat=talks, errors="error")
    errors, answers = column(found, "error"), column(found, "answer")
    assert [isinstance(e, str) for e in errors] == [False, True, False]
    assert [isinstance(a, str) for a in answers] == [True, False, True]
    labels = llm.classify_frame(frame, "text", ["a", "b"], errors="error")
    assert [isinstance(a, str) for a in column(labels, "label")] == [True, False, True]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("numbers", [[1, 2], [5]])
def test_whole_numbers_in_a_column_are_no_token_ids(llm: LLM, make: Any, numbers: list[int]) -> None:
    """A column of them was taken for one prompt of token ids, and a table of one row had an answer to it."""
    frame = make({"text": numbers})
    asks = [
        lambda **how: llm.generate_frame(frame, "text", "answer", GREEDY, **how), lambda **how: llm.embed_frame(frame, "text", **how),
        lambda **how: llm.generate_frame(frame, "text", "answer", GREEDY, template="Say {text}", **how),
        lambda **how: llm.classify_frame(frame, "text", ["a", "b"], **how),
        lambda **how: llm.classify_frame(frame, "text", ["a", "b"], template="Say {text}", **how),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(aerostat.UsageError, match="prompt 0: expected a text"):
            ask()
        assert all("expected a text" in error for error in column(ask(errors="error"), "error"))
    found = llm.mapper("text", "answer", GREEDY, errors="error")({"text": numbers})
    assert found["answer"] == [""] * len(numbers) and all("expected a text" in error for error in found["error"])


def test_columns_and_tables_that_are_not_there(llm: LLM) -> None:
    with pytest.raises(aerostat.UsageError, match="no column 'txt'; it has text"):
        llm.generate_frame(pandas.DataFrame({"text": TEXTS}), "txt")
    with pytest.raises(aerostat.UsageError, match="pandas, polars or pyarrow"):
        llm.generate_frame({"text": TEXTS}, "text")


@pytest.mark.parametrize("make", KINDS)
def test_a_table_is_no_list_of_prompts(llm: LLM, make: Any) -> None:
    # Its columns' names were answered once.
    for call in (llm.generate, llm.embed, lambda frame: llm.classify(frame, ["a", "b"])):
        with pytest.raises(aerostat.UsageError, match="is a table"):
            call(make({"text": TEXTS}))


def test_a_mapper_maps_batches_and_pickles_with_all_that_changes_results(llm: LLM, chat: str) -> None:
    mapper = llm.mapper("text", "answer", GREEDY)
    wanted = {"answer": [o.outputs[0].text for o in llm.generate(TEXTS, GREEDY)]}
    assert mapper({"text": TEXTS}) == wanted
    pickled = pickle.dumps(mapper)
    assert pickle.loads(pickled)({"text": TEXTS}) == wanted
    assert pickle.dumps(llm.mapper("text", "answer", GREEDY)) == pickled
    assert pickle.dumps(llm.mapper("text", "answer", SamplingParams(temperature=0, max_tokens=6))) != pickled
    assert pickle.dumps(LLM(chat, kv="q8", progress=False).mapper("text", "answer", GREEDY)) != pickled
    rows = llm.mapper("text", "answer", GREEDY, errors="error")({"text": ["Hello", None]})
    assert rows["error"][0] == rows["answer"][1] == "" and rows["error"][1] and rows["answer"][0]


def test_a_data_set_is_mapped_and_its_results_are_found_again(llm: LLM, chat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    # The first rows written have no error, and others have: its column once had no type.
    rows = datasets.Dataset.from_dict({"text": [*TEXTS, None, ""]})
    found = rows.map(llm.mapper("text", "answer", errors="error"), batched=True, batch_size=2)
    assert found["answer"][:3] == llm.mapper("text", "answer")({"text": TEXTS})["answer"] and found["answer"][3:] == ["", ""]
    assert [bool(error) for error in found["error"]] == [False] * 3 + [True] * 2
    again = rows.map(LLM(chat, progress=False).mapper("text", "answer", errors="error"), batched=True, batch_size=2)
    assert again._fingerprint == found._fingerprint
    for alone in (rows, rows.select([3])):
        with pytest.raises(aerostat.UsageError, match="batched=True"):
            alone.map(llm.mapper("text", "answer"))
    with pytest.raises(aerostat.UsageError, match="prompt 0"):
        rows.map(llm.mapper("text", "answer"), batched=True, batch_size=3)


def test_which_call_it_is_changes_nothing_for_a_mapper(chat: str) -> None:
    texts = {"text": TEXTS}
    mapper = LLM(chat, seed=3, progress=False).mapper("text", "answer")
    first = mapper(texts)
    assert mapper(texts) == first == pickle.loads(pickle.dumps(mapper))(texts)
    assert mapper({"text": TEXTS[1:]})["answer"] == first["answer"][1:]
    assert LLM(chat, seed=4, progress=False).mapper("text", "answer")(texts) != first


def test_a_mapper_knows_its_models_files(chat: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(chat, folder)
    before = pickle.dumps(LLM(folder, progress=False).mapper("text"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 1234.0}))
    assert pickle.dumps(LLM(folder, progress=False).mapper("text")) != before


def test_a_piece_of_a_table_stays_one(llm: LLM) -> None:
    piece = pyarrow.RecordBatch.from_pydict({"text": TEXTS})
    assert isinstance(llm.generate_frame(piece, "text", "answer", GREEDY), pyarrow.RecordBatch)
    assert isinstance(llm.embed_frame(piece, "text"), pyarrow.RecordBatch)


@pytest.mark.parametrize("make", [polars.DataFrame, pyarrow.table])
def test_pieces_of_a_table_have_the_same_types(llm: LLM, make: Any) -> None:
    pieces = [make({"text": pyarrow.array(texts, pyarrow.string()) if make is pyarrow.table else texts}) for texts in (["Hello"], ["you", None], [""])]
    answered = [llm.generate_frame(piece, "text", "answer", GREEDY, errors="error") for piece in pieces]
    labelled = [llm.classify_frame(piece, "text", ["a", "b"], errors="error", probability="p") for piece in pieces]
    for frames in (answered, labelled):
        assert len({str(frame.schema) for frame in frames}) == 1


@pytest.mark.parametrize("make", KINDS)
def test_rows_without_a_vector(llm: LLM, make: Any) -> None:
    frame = make({"text": ["Hello", None, "you"]})
    with pytest.raises(aerostat.UsageError):
        llm.embed_frame(frame, "text")
    found = llm.embed_frame(frame, "text", errors="error")
    vectors = column(found, "embedding")
    assert vectors[1] is None and len(vectors[0]) == len(vectors[2]) == 32
    assert [isinstance(e, str) for e in column(found, "error")] == [False, True, False]


def test_tables_of_every_kind(llm: LLM) -> None:
    missing = pandas.DataFrame({"text": pandas.array(["Hello", pandas.NA, "you"], dtype="string")}, index=[7, 7, 9])
    found = llm.generate_frame(missing, "text", "answer", GREEDY, errors="error")
    assert found.index.tolist() == [7, 7, 9] and found["error"].notna().tolist() == [False, True, False]
    twice = pandas.DataFrame([["Hello", "you"]], columns=["text", "text"])
    for wrong in (twice, polars.LazyFrame({"text": TEXTS})):
        with pytest.raises(aerostat.UsageError):
            llm.generate_frame(wrong, "text")
    kinds = polars.DataFrame({"text": polars.Series(TEXTS, dtype=polars.Categorical)})
    assert llm.generate_frame(kinds, "text", "answer", GREEDY)["answer"].null_count() == 0
    assert len(llm.generate(polars.Series(TEXTS), GREEDY)) == len(llm.generate(pandas.Series(TEXTS), GREEDY)) == 3


def test_a_dataset_is_mapped_and_remembered(llm: LLM, chat: str, tmp_path: Any) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    mapped = rows.map(llm.mapper("text", "answer", GREEDY), batched=True, batch_size=2)
    assert mapped["answer"][:] == [o.outputs[0].text for o in llm.generate(TEXTS, GREEDY)]
    # What is remembered goes by all that changes results, and by nothing else.
    fingerprint = datasets.fingerprint.Hasher.hash
    assert fingerprint(llm.mapper("text", "answer", GREEDY)) == fingerprint(LLM(chat, progress=False).mapper("text", "answer", GREEDY))
    assert fingerprint(llm.mapper("text", "answer", GREEDY)) != fingerprint(llm.mapper("text", "answer", SamplingParams(max_tokens=6)))


@pytest.mark.parametrize("make", KINDS)
def test_new_columns_that_cannot_be(llm: LLM, make: Any) -> None:
    """They were found out when all rows had their answers, or one was written over by the other."""
    own, frame = LLM(llm._core.path, progress=False), make({"text": TEXTS})
    for call in (
        lambda: own.generate_frame(frame, "text", "answer", GREEDY, errors="answer"), lambda: own.generate_frame(frame, "text", GREEDY),  # type: ignore[arg-type]
        lambda: own.embed_frame(frame, "text", None), lambda: own.embed_frame(frame, "text", "vector", errors="vector"),  # type: ignore[arg-type]
        lambda: own.classify_frame(frame, "text", ["a", "b"], "label", probability="label"), lambda: own.classify_frame(frame, "text", ["a"], 5),  # type: ignore[arg-type]
        lambda: own.mapper("text", "answer", GREEDY, errors="answer"),
    ):  # fmt: skip
        with pytest.raises(aerostat.UsageError, match="new column"):
            call()
    assert own.stats() is None
    twice = pyarrow.Table.from_arrays([pyarrow.array(TEXTS)] * 3, names=["text", "answer", "answer"])
    with pytest.raises(aerostat.UsageError, match="several columns 'answer'"):
        own.generate_frame(twice, "text", "answer", GREEDY)


@pytest.mark.parametrize("kind", ["arrow", "numpy", "pandas", "polars"])
def test_batches_of_every_format_are_mapped(llm: LLM, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": TEXTS}).with_format(kind).map(llm.mapper("text", "answer", GREEDY), batched=True)
    assert rows.with_format(None)["answer"][:] == [o.outputs[0].text for o in llm.generate(TEXTS, GREEDY)]


@pytest.mark.parametrize("make", KINDS)
def test_a_template_and_a_system_message_are_for_texts(llm: LLM, make: Any) -> None:
    """Conversations in cells went without either."""
    talk = [{"role": "user", "content": "Hello"}]
    frame = make({"talk": [talk, talk]})
    assert column(llm.generate_frame(frame, "talk", "answer", GREEDY, chat=True), "answer") == [llm.chat(talk, GREEDY)[0].outputs[0].text] * 2
    for how in ({"system": "Be brief."}, {"template": "Say {text}"}):
        with pytest.raises(aerostat.UsageError, match="row 0: system and template go with texts"):
            llm.generate_frame(frame, "talk", "answer", GREEDY, chat=True, **how)
        found = llm.generate_frame(frame, "talk", "answer", GREEDY, chat=True, errors="error", **how)
        assert not any(isinstance(answer, str) for answer in column(found, "answer")) and all("go with texts" in error for error in column(found, "error"))


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"system": "Be brief."}, "chat=True"), ({"chat": True, "system": 5}, "system is 5"), ({"chat": "no"}, "chat"), ({"template": 5}, "template"),
        ({"template": "no place"}, "template"), ({"sampling_params": SamplingParams(n=3)}, "n is 3"),
    ],
    ids=str,
)  # fmt: skip
def test_what_would_change_nothing_is_refused_before_anything_runs(chat: str, how: dict[str, Any], named: str) -> None:
    from aerostat import ray

    own = LLM(chat, progress=False)
    for call in (
        lambda: own.generate_frame(pandas.DataFrame({"text": TEXTS}), "text", **how), lambda: own.mapper("text", **how),
        lambda: ray.Generate(chat, "text", **how),
    ):  # fmt: skip
        with pytest.raises(aerostat.UsageError, match=named):
            call()
    assert own.stats() is None


def test_one_row_one_vector(llm: LLM, chat: str) -> None:
    from aerostat import PoolingParams, ray

    for params in ({"dimensions": 3}, [PoolingParams()] * 3, "x"):
        for call in (
            lambda: llm.embed_frame(pandas.DataFrame({"text": TEXTS}), "text", pooling_params=params),  # type: ignore[arg-type]
            lambda: ray.Embed(chat, pooling_params=params),  # type: ignore[arg-type]
        ):  # fmt: skip
            with pytest.raises(aerostat.UsageError, match="pooling_params"):
                call()


def test_batches_that_are_none(llm: LLM) -> None:
    for wrong in (5, None, "Hello", {"a": 1}):
        with pytest.raises(aerostat.UsageError, match="batched=True"):
            llm.mapper("text")({"text": wrong})


def test_pieces_of_a_pandas_table_have_the_same_types(llm: LLM) -> None:
    """Without rows a column of texts was one of numbers, and without texts one of objects."""
    whole = pandas.DataFrame({"text": ["Hello", None, "you"]}, index=[7, 7, 9])
    pieces = [whole, whole.iloc[:0], whole.iloc[:1], whole.iloc[1:2]]
    for call in (
        lambda piece: llm.generate_frame(piece, "text", "answer", GREEDY, errors="error"), lambda piece: llm.embed_frame(piece, "text", errors="error"),
        lambda piece: llm.classify_frame(piece, "text", ["a", "b"], errors="error", probability="p"),
    ):  # fmt: skip
        found = [call(piece) for piece in pieces]
        assert len({str(one.dtypes.to_dict()) for one in found}) == 1
        assert [one.index.tolist() for one in found] == [[7, 7, 9], [], [7], [7]]
        assert found[0]["error"].isna().tolist() == [True, False, True]


def test_tables_of_a_class_of_ones_own(llm: LLM) -> None:
    class Frame(pandas.DataFrame):  # type: ignore[misc]
        pass

    class Polar(polars.DataFrame):  # type: ignore[misc]
        pass

    for make in (Frame, Polar):
        assert column(llm.generate_frame(make({"text": TEXTS}), "text", "answer", GREEDY), "answer") == [o.outputs[0].text for o in llm.generate(TEXTS, GREEDY)]
    with pytest.raises(aerostat.UsageError, match="pandas, polars or pyarrow"):
        llm.generate_frame(type("Other", (), {"columns": ["text"]})(), "text")


def test_what_was_set_on_a_tokenizer_is_pickled(chat: str) -> None:
    """Other processes wrote conversations by the model's own template, and data sets found results of it again."""
    own, plain = LLM(chat, progress=False), LLM(chat, progress=False)
    messages = [{"role": "user", "content": "Hello"}]
    before = pickle.dumps(own.mapper("text", "answer", GREEDY, chat=True))
    own.get_tokenizer().chat_template = "{{ bos_token }}XX{{ messages[0].content }}"
    own.get_tokenizer().bos_token = own.get_tokenizer().convert_ids_to_tokens(5)
    wanted = own.chat(messages, GREEDY)[0]
    pickled = pickle.dumps(own.mapper("text", "answer", GREEDY, chat=True))
    assert pickled != before == pickle.dumps(plain.mapper("text", "answer", GREEDY, chat=True))
    again = pickle.loads(pickle.dumps(own))
    assert again.chat(messages, GREEDY)[0].prompt == wanted.prompt == "#XXHello" != plain.chat(messages, GREEDY)[0].prompt
    assert pickle.dumps(again.mapper("text", "answer", GREEDY, chat=True)) == pickled


def test_a_template_in_a_file_is_pickled_as_its_text(chat: str, tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("plain")
    pickled = pickle.dumps(LLM(chat, chat_template=str(file), progress=False))
    file.unlink()
    assert pickle.loads(pickled).chat([{"role": "user", "content": "Hello"}], GREEDY)[0].prompt == "plain"
