"""Ray Data: classes for ``Dataset.map_batches``, one actor a machine. ``docs/ray.md`` has a whole example.

Each takes ``model`` and any option of :class:`aerostat.LLM`. A row that cannot be served is data: its ``error`` column says
why. Several calls of an actor at once share passes over the weights. With ``journal=`` (a folder that all machines see)
results are kept as they come: a batch that comes again, since its actor died, is asked for what is missing.
"""

from __future__ import annotations

from typing import Any, Sequence

from ._checks import items
from ._encoder import look_at_params
from ._journal import Journal
from ._prompts import Rows, check_template
from .errors import UsageError
from .frames import look_at_asking, look_at_names, texts_of
from .llm import LLM
from .params import PoolingParams, SamplingParams

Batch = dict[str, Any]


class _Actor:
    """A model, and the column that it reads."""

    def __init__(self, model: str, column: str, options: dict[str, Any]) -> None:
        journal = options.pop("journal", None)
        self.llm = LLM(model, **{"progress": False, **options})
        self.column = column
        if journal is not None:
            core = self.llm._core
            core.journal = Journal(journal, f"{core.model.digest()} {core.engine.identity()}")

    def values(self, batch: Batch) -> Rows:
        if not hasattr(batch, "keys"):
            raise UsageError(f"a batch is a dict of columns, not {type(batch).__name__}: leave batch_format as it is")
        if self.column not in batch:
            raise UsageError(f"the batch has no column {self.column!r}; it has {', '.join(map(str, batch.keys()))}")
        return Rows(batch[self.column])


def _objects(values: Sequence[Any]) -> Any:
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _errors(outputs: Sequence[Any]) -> Any:
    return _objects([None if one.error is None else str(one.error) for one in outputs])


class Generate(_Actor):
    """Answers in a column. ``sampling_params`` is a ``SamplingParams`` or a dict of its members; ``chat=True`` asks each value
    as a user's message, after ``system``."""

    def __init__(
        self, model: str, column: str = "text", output: str = "answer", sampling_params: SamplingParams | dict[str, Any] | None = None,
        *, chat: bool = False, system: str | None = None, template: str | None = None, error: str = "error", **options: Any,
    ) -> None:  # fmt: skip
        look_at_names(None, output, error)
        if not isinstance(sampling_params, (SamplingParams, dict, type(None))):
            raise UsageError(f"sampling_params: expected SamplingParams or a dict of its members, not {type(sampling_params).__name__}")
        params = SamplingParams(**sampling_params) if isinstance(sampling_params, dict) else sampling_params
        look_at_asking(params, chat, system, template)
        super().__init__(model, column, options)
        # Blocks go to whichever actor is free, and come again after one died: their answers must not depend on which
        # call of which actor it is.
        params = self.llm.get_default_sampling_params() if params is None else params.clone()
        params.seed = 0 if params.seed is None else params.seed
        self.output, self.params, self.error = output, params, error
        self.how = {"chat": chat, "system": system, "template": template}

    def __call__(self, batch: Batch) -> Batch:
        from .frames import answers

        outputs = answers(self.llm, self.values(batch), self.params, errors=self.error, use_tqdm=False, **self.how)  # type: ignore[arg-type]
        return {**batch, self.output: _objects(texts_of(outputs)), self.error: _errors(outputs)}


class Embed(_Actor):
    """Vectors in a column."""

    def __init__(
        self, model: str, column: str = "text", output: str = "embedding", pooling_params: PoolingParams | None = None,
        *, error: str = "error", **options: Any,
    ) -> None:  # fmt: skip
        look_at_names(None, output, error)
        look_at_params(pooling_params)
        super().__init__(model, column, options)
        self.output, self.params, self.error = output, pooling_params, error

    def __call__(self, batch: Batch) -> Batch:
        import numpy as np

        outputs = self.llm.embed(self.values(batch), pooling_params=self.params, use_tqdm=False, on_error="return")
        size = self.llm.embedding_size if self.params is None or self.params.dimensions is None else self.params.dimensions
        empty = np.full(size, np.nan, dtype=np.float32)
        rows = [empty if one.outputs is None else one.outputs.array for one in outputs]
        return {**batch, self.output: np.stack(rows) if rows else np.zeros((0, size), np.float32), self.error: _errors(outputs)}


class Classify(_Actor):
    """Labels in a column, and the share of each in another."""

    def __init__(
        self, model: str, column: str = "text", output: str = "label", labels: Sequence[str] = (), *,
        template: str | None = None, measure: str = "sum", calibrate: str | None = None, probability: str = "probability",
        error: str = "error", **options: Any,
    ) -> None:  # fmt: skip
        look_at_names(None, output, probability, error)
        check_template(template)
        labels = items("labels", labels)
        super().__init__(model, column, options)
        self.output, self.labels, self.error, self.probability = output, labels, error, probability
        self.how = {"template": template, "measure": measure, "calibrate": calibrate}

    def __call__(self, batch: Batch) -> Batch:
        import numpy as np

        outputs = self.llm.classify(self.values(batch), self.labels, use_tqdm=False, on_error="return", **self.how)  # type: ignore[arg-type]
        labels = [None if one.outputs is None else one.outputs.label for one in outputs]
        shares = [np.nan if one.outputs is None else max(one.outputs.probs) for one in outputs]
        return {**batch, self.output: _objects(labels), self.probability: np.asarray(shares), self.error: _errors(outputs)}


class Distil(_Actor):
    """What the model expects after each token: token ids, and the ``k`` likeliest ids with their log-probabilities after
    each of them."""

    def __init__(self, model: str, column: str = "text", k: int = 20, *, error: str = "error", **options: Any) -> None:
        super().__init__(model, column, options)
        self.k, self.error = k, error

    def __call__(self, batch: Batch) -> Batch:
        outputs = self.llm.distil(self.values(batch), self.k, use_tqdm=False, on_error="return")
        columns = {name: _objects([getattr(one, name) for one in outputs]) for name in ("token_ids", "ids", "logprobs")}
        return {**batch, **columns, self.error: _errors(outputs)}
