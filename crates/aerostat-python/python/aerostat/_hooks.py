"""The caller's own hand in answers: logits processors, stopping criteria, and what was gathered of logits and states."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable, Sequence, TypeVar

from . import tensors
from .errors import UsageError


def _row(ids: list[int]) -> Any:
    """``[1, length]`` token ids, in torch's tensor where there is torch."""
    import numpy as np

    array = np.asarray([ids], dtype=np.int64)
    library = tensors.torch()
    return array if library is None else library.from_numpy(array)


Called = TypeVar("Called", bound=Callable[..., Any])


def kept(call: Called, faults: list[BaseException], asking: set[int]) -> Called:
    """The same; what it raises is kept, since it is called on a thread from which nothing is raised. Meanwhile the thread is
    among those that ask, and so wait for no answer of the same engine."""

    @functools.wraps(call)
    def keeping(*given: Any) -> Any:
        here = threading.get_ident()
        asking.add(here)
        try:
            return call(*given)
        except BaseException as fault:
            faults.append(fault)
            raise
        finally:
            asking.discard(here)

    return keeping  # type: ignore[return-value]


def processor(processors: Sequence[Callable[[Any, Any], Any]]) -> Callable[[list[int], bytearray], None]:
    """Processors ``(ids [1, length], scores [1, vocab]) -> scores``, one after the other, on logits in place."""

    def process(ids: list[int], logits: bytearray) -> None:
        import numpy as np

        row, values = _row(ids), np.frombuffer(logits, dtype=np.float32)
        library = tensors.torch()
        # A copy: processors may keep what they are given.
        scores = values[None, :].copy() if library is None else library.from_numpy(values[None, :].copy())
        for one in processors:
            scores = one(row, scores)
        changed = tensors.to_numpy(scores).reshape(-1)
        if changed.dtype.kind not in "fiub":
            raise UsageError(f"a logits processor gave scores of type {changed.dtype}; expected numbers")
        if changed.shape != values.shape:
            raise UsageError(f"a logits processor gave {changed.size} scores for {values.size}")
        values[:] = changed

    return process


def stopper(criteria: Sequence[Callable[..., Any]]) -> Callable[[list[int]], bool]:
    """Criteria ``(ids [1, length], scores=None) -> bool``, any of which ends the answer. All are asked each time."""

    def stops(ids: list[int]) -> bool:
        row = _row(ids)
        said = [one(row, None) for one in criteria]
        return any(bool(answer.any()) if hasattr(answer, "any") else bool(answer) for answer in said)

    return stops


class Gathered:
    """Logits and hidden states of one sequence, in order of positions."""

    def __init__(self, members: dict[str, Any] | None, facts: dict[str, Any]) -> None:
        self._members, self._vocab, self._width = members or {}, facts["vocab"], facts["hidden"]

    def _array(self, data: Any, width: int) -> Any:
        import numpy as np

        values = np.zeros(0, dtype=np.float32) if data is None else data
        return values.reshape(-1, width)

    def logits(self, processed: bool = False) -> Any:
        """``[rows, vocab]``."""
        return self._array(self._members.get("processed" if processed else "logits"), self._vocab)

    def hidden(self, layer: int | None) -> Any:
        """``[positions, hidden]``."""
        for number, data in self._members.get("hidden", []):
            if number == layer:
                return self._array(data, self._width)
        return self._array(None, self._width)
