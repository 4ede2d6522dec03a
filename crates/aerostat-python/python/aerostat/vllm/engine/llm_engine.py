"""An engine that is stepped by hand."""

from __future__ import annotations

from typing import Any, Sequence

from ..._requests import Batch
from ...errors import AerostatError, UsageError
from ...llm import LLM
from ...outputs import RequestOutput
from ...params import SamplingParams
from .arg_utils import EngineArgs


class _UnderWay:
    """A request that was added and has not ended."""

    def __init__(self, llm: LLM, prompt: Any, params: SamplingParams) -> None:
        self.core = llm._core
        self.batch: Batch = llm._requests_of(prompt, params)
        self.results: list[Any] = [None] * len(self.batch.requests)
        self.call = self.core.call(self.batch.requests)

    def ended(self, seconds: float) -> RequestOutput | None:
        """Its output, once it has one."""
        for index, kind, members in self.call.next(seconds):
            if kind == "ended":
                raise self.core.error(members)
            if kind != "end":
                self.results[index] = (kind, members)
        if any(result is None for result in self.results):
            return None
        return self.batch.outputs(self.core, self.results, "raise")[0]


class LLMEngine:
    """Requests are added at any time, and share passes over the weights; :meth:`step` gives those that have ended."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._under_way: dict[str, _UnderWay] = {}

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs, **_usage: Any) -> "LLMEngine":
        """Of a model's options."""
        return cls(engine_args.create_llm())

    def add_request(self, request_id: str, prompt: Any, params: SamplingParams, **more: Any) -> None:
        """Hands a prompt over."""
        self._llm._refuse(more.pop("lora_request", None), more)
        if request_id in self._under_way:
            raise UsageError(f"request {request_id!r} is under way")
        self._under_way[request_id] = _UnderWay(self._llm, prompt, params)

    def abort_request(self, request_id: str | Sequence[str]) -> None:
        """Cancels requests; those that have ended are left alone."""
        for one in [request_id] if isinstance(request_id, str) else request_id:
            if one in self._under_way:
                self._under_way.pop(one).call.cancel()

    def has_unfinished_requests(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._under_way)

    def get_num_unfinished_requests(self) -> int:
        """How many have not."""
        return len(self._under_way)

    def reset_prefix_cache(self, *_args: Any, **_keywords: Any) -> bool:
        """Nothing: what is kept of prompts changes no result."""
        return True

    def step(self) -> list[RequestOutput]:
        """What has ended since the last step; waits a moment for it."""
        ended = []
        patience = 0.05
        for request_id, request in list(self._under_way.items()):
            try:
                output = request.ended(patience)
            except AerostatError:
                del self._under_way[request_id]
                raise
            patience = 0.0
            if output is not None:
                del self._under_way[request_id]
                output.request_id = request_id
                ended.append(output)
        return ended


__all__ = ["LLMEngine"]
