"""Tables in and out: pandas, polars and pyarrow give back what they are, with a column more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Sequence

from ._checks import check_flag, check_text, wrong
from ._encoder import look_at_params
from ._prompts import Prompt, Rows, check_template, read_conversation, read_prompts
from .errors import UsageError
from .params import SamplingParams
from .tensors import plain

if TYPE_CHECKING:
    from .llm import LLM
    from .outputs import RequestOutput
    from .params import PoolingParams


def _kind(frame: Any) -> str:
    """The library of a table, by its class; nothing is imported."""
    for kind in type(frame).__mro__:
        name = kind.__module__.split(".")[0]
        if kind.__name__ == "LazyFrame":
            raise UsageError("a LazyFrame has no rows yet: give frame.collect()")
        if name in ("pandas", "polars") and hasattr(frame, "columns"):
            return name
        if name == "pyarrow" and hasattr(frame, "column_names"):
            return name
    raise UsageError(f"expected a table of pandas, polars or pyarrow, not {type(frame).__name__}")


def _names(frame: Any) -> list[Any]:
    return list(frame.column_names if _kind(frame) == "pyarrow" else frame.columns)


def _column(frame: Any, name: str) -> Rows:
    kind, names = _kind(frame), _names(frame)
    if name not in names:
        raise UsageError(f"the table has no column {name!r}; it has {', '.join(map(str, names))}")
    if names.count(name) > 1:
        raise UsageError(f"the table has several columns {name!r}")
    if kind == "pandas":
        series = frame[name]
        return Rows(None if missing else value for value, missing in zip(series.tolist(), series.isna().tolist()))
    return Rows(frame[name].to_list() if kind == "polars" else frame.column(name).to_pylist())


def look_at_names(frame: Any, *names: Any) -> None:
    """Refuses names of new columns that a table cannot have, before anything runs."""
    given = [name for name in names if name is not None]
    wrong = next((name for name in given if not isinstance(name, str)), None)
    if wrong is not None or not isinstance(names[0], str):
        raise UsageError(f"a new column's name is to be a text, not {type(names[0] if wrong is None else wrong).__name__}")
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two new columns are to be {twice!r}")
    there = [] if frame is None else _names(frame)
    twice = next((name for name in given if there.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the table has several columns {twice!r} that a new one could be in the place of")


def _with(frame: Any, columns: dict[str, Any]) -> Any:
    """The table with columns added, or in the place of those of the same name."""
    kind = _kind(frame)
    if kind == "pandas":
        return frame.assign(**{name: _pandas(values, frame.index) for name, values in columns.items()})
    if kind == "polars":
        return frame.with_columns([_polars(name, values) for name, values in columns.items()])
    for name, values in columns.items():
        made = _arrow(values)
        place = frame.schema.get_field_index(name)
        frame = frame.append_column(name, made) if place < 0 else frame.set_column(place, name, made)
    return frame


class Vectors:
    """A column of vectors of one width: ``[rows, width]`` float32, and which rows have none."""

    def __init__(self, vectors: Sequence[Any], width: int) -> None:
        import numpy as np

        self.missing = np.asarray([vector is None for vector in vectors], dtype=bool)
        self.values = np.zeros((len(vectors), width), dtype=np.float32)
        for row, vector in zip(self.values, vectors):
            if vector is not None:
                row[:] = vector

    def rows(self) -> list[Any]:
        return [None if missing else row for row, missing in zip(self.values, self.missing)]


class Numbers(list[Any]):
    """A column of numbers, and gaps. Other lists are columns of texts, also where they have nothing but gaps: pieces of a
    table have the same types."""


def _pandas(values: Any, index: Any) -> Any:
    import pandas

    if isinstance(values, Vectors):
        return pandas.Series(values.rows(), index, dtype=object)
    # The type of texts differs between versions and options of pandas.
    return pandas.Series(values, index, dtype="float64" if isinstance(values, Numbers) else pandas.Series(["text"]).dtype)


def _polars(name: str, values: Any) -> Any:
    import polars

    if not isinstance(values, Vectors):
        return polars.Series(name, values, dtype=polars.Float64 if isinstance(values, Numbers) else polars.String)
    kind = polars.Array(polars.Float32, values.values.shape[1])
    if values.missing.any():
        return polars.Series(name, [None if row is None else row.tolist() for row in values.rows()], dtype=kind)
    return polars.Series(name, values.values, dtype=kind)


def _arrow(values: Any) -> Any:
    import pyarrow

    if not isinstance(values, Vectors):
        return pyarrow.array(values, pyarrow.float64() if isinstance(values, Numbers) else pyarrow.string())
    flat = pyarrow.array(values.values.reshape(-1), type=pyarrow.float32())
    mask = pyarrow.array(values.missing) if values.missing.any() else None
    return pyarrow.FixedSizeListArray.from_arrays(flat, values.values.shape[1], mask=mask)


def _errors(outputs: Sequence[Any], errors: str | None) -> dict[str, list[Any]]:
    """The column of errors: text, or nothing."""
    if errors is None:
        return {}
    return {errors: [None if one.error is None else str(one.error) for one in outputs]}


def generate_frame(
    llm: "LLM", frame: Any, column: str, output: str = "answer", sampling_params: "SamplingParams | None" = None,
    *, chat: bool = False, system: str | None = None, template: str | None = None, errors: str | None = None,
    use_tqdm: bool = True,
) -> Any:  # fmt: skip
    """See ``LLM.generate_frame``."""
    look_at_names(frame, output, errors)
    outputs = answers(llm, _column(frame, column), sampling_params, chat, system, template, errors, use_tqdm)
    return _with(frame, {output: texts_of(outputs), **_errors(outputs, errors)})


def answers(
    llm: "LLM", values: Rows, params: "SamplingParams | None", chat: bool, system: str | None,
    template: str | None, errors: str | None, use_tqdm: bool,
) -> "list[RequestOutput]":  # fmt: skip
    """Answers to a column's values."""
    look_at_asking(params, chat, system, template)
    if chat:
        read = [_talk(llm, value, number, system, template) for number, value in enumerate(values)]
    else:
        read = read_prompts(values, llm._core, template=template)
    return llm._generate(read, params, use_tqdm, "raise" if errors is None else "return")


def look_at_asking(params: Any, chat: bool, system: str | None, template: str | None) -> None:
    """Refuses, before anything runs, what would change nothing."""
    check_template(template)
    if not check_flag("chat", chat) and system is not None:
        raise UsageError("system is the first message of a conversation, and values are continued as they are: give chat=True, too")
    if system is not None:
        check_text("system", system)
    for one in params if isinstance(params, (list, tuple)) else [params]:
        if getattr(one, "n", 1) != 1:
            raise UsageError(f"sampling_params: n is {one.n}; expected 1, since a row has one answer")


def _talk(llm: "LLM", value: Any, number: int, system: str | None, template: str | None) -> Prompt:
    """A value as a user's message, or a conversation as it is."""
    try:
        if isinstance(value, str):
            lead = [] if system is None else [{"role": "system", "content": system}]
            value = [*lead, {"role": "user", "content": value if template is None else template.replace("{text}", value)}]
        elif not isinstance(value, list):
            raise UsageError(f"expected a text or a list of messages, not {value!r}")
        elif system is not None or template is not None:
            raise UsageError("system and template go with texts, and this is a list of messages")
    except UsageError as error:
        return Prompt(None, [], UsageError(f"row {number}: {error}"))
    return read_conversation(value, number, llm._tokenizer, llm._core)


def texts_of(outputs: "Sequence[RequestOutput]") -> list[Any]:
    """The first answer of each; nothing where there is none."""
    return [one.outputs[0].text if one.outputs else None for one in outputs]


def embed_frame(
    llm: "LLM", frame: Any, column: str, output: str = "embedding", pooling_params: "PoolingParams | None" = None,
    *, errors: str | None = None, use_tqdm: bool = True,
) -> Any:  # fmt: skip
    """See ``LLM.embed_frame``."""
    look_at_names(frame, output, errors)
    look_at_params(pooling_params)
    on_error = "raise" if errors is None else "return"
    outputs = llm.embed(_column(frame, column), pooling_params=pooling_params, use_tqdm=use_tqdm, on_error=on_error)
    width = llm.embedding_size if pooling_params is None or pooling_params.dimensions is None else pooling_params.dimensions
    vectors = Vectors([None if one.outputs is None else one.outputs.array for one in outputs], width)
    return _with(frame, {output: vectors, **_errors(outputs, errors)})


def classify_frame(
    llm: "LLM", frame: Any, column: str, labels: Sequence[str], output: str = "label", *, template: str | None = None,
    measure: str = "sum", calibrate: str | None = None, probability: str | None = None, errors: str | None = None,
    use_tqdm: bool = True,
) -> Any:  # fmt: skip
    """See ``LLM.classify_frame``."""
    look_at_names(frame, output, probability, errors)
    values = _column(frame, column)
    on_error = "raise" if errors is None else "return"
    outputs = llm.classify(
        values, labels, template=template, measure=measure, calibrate=calibrate, use_tqdm=use_tqdm, on_error=on_error
    )
    columns: dict[str, Any] = {output: [None if one.outputs is None else one.outputs.label for one in outputs]}
    if probability is not None:
        columns[probability] = Numbers(None if one.outputs is None else max(one.outputs.probs) for one in outputs)
    return _with(frame, {**columns, **_errors(outputs, errors)})


class Mapper:
    """A function for ``datasets.Dataset.map(…, batched=True)``: a batch of columns in, the new column out. It pickles, so
    that other processes open the model for themselves, and what it pickles to changes with everything that changes
    results: the model's files, its options and the parameters, whose seed is the model's where they name none. Which
    call it is, and of which process, changes nothing."""

    def __init__(self, llm: "LLM", column: str, output: str, params: "SamplingParams | None", **how: Any) -> None:
        look_at_names(None, output, how["errors"])
        look_at_asking(params, how["chat"], how["system"], how["template"])
        if not isinstance(params, (SamplingParams, type(None))):
            raise wrong("sampling_params", params, "SamplingParams, one for all rows")
        params = llm.get_default_sampling_params() if params is None else params.clone()
        params.seed = llm._seed if params.seed is None else params.seed
        self.llm, self.column, self.output, self.params, self.how = llm, column, output, params, how
        self.digest = llm._core.model.digest()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        names = list(getattr(batch, "column_names", getattr(batch, "columns", batch)))
        if self.column not in names:
            raise UsageError(f"the batch has no column {self.column!r}; it has {', '.join(map(str, names))}")
        values = plain(batch[self.column])
        if isinstance(values, (str, Mapping)) or not hasattr(values, "__iter__"):
            raise UsageError("a mapper takes batches: dataset.map(…, batched=True)")
        outputs = answers(self.llm, Rows(values), self.params, use_tqdm=False, **self.how)
        columns = {self.output: texts_of(outputs), **_errors(outputs, self.how["errors"])}
        # The library takes the type of a column from the first rows that it sees, and there may be no text among them.
        return {name: ["" if value is None else value for value in values] for name, values in columns.items()}


#: What a mapper is.
MapFunction = Callable[[dict[str, Any]], dict[str, list[Any]]]
