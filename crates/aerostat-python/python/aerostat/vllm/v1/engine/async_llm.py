"""An engine for event loops."""

from __future__ import annotations

from typing import Any, AsyncIterator

from ...._requests import answer_output
from ....errors import UsageError
from ....llm import LLM
from ....outputs import CompletionOutput, RequestOutput
from ....params import RequestOutputKind, SamplingParams
from ...engine.arg_utils import EngineArgs


class AsyncLLM:
    """Answers as they come. Requests of several tasks share passes over the weights."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs, **_usage: Any) -> "AsyncLLM":
        """Of a model's options."""
        return cls(engine_args.create_llm())

    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **more: Any
    ) -> AsyncIterator[RequestOutput]:
        """One prompt's answer: with ``RequestOutputKind.DELTA`` what is new each time, with ``CUMULATIVE`` (the default) all
        so far, with ``FINAL_ONLY`` the whole. Leaving it cancels the request."""
        self._llm._refuse(more.pop("lora_request", None), more)
        batch = self._llm._requests_of(prompt, sampling_params)
        core, kind_of = self._llm._core, sampling_params.output_kind
        if kind_of == RequestOutputKind.FINAL_ONLY:
            yield _named(batch.outputs(core, await core.aresults(batch.requests), "raise")[0], request_id)
            return
        if len(batch.requests) != 1:
            raise UsageError("answers come piece by piece one at a time: n is 1, or output_kind is FINAL_ONLY")
        text, ids = "", list[int]()
        new_ids = list[int]()
        async for _, kind, told in core.aevents(batch.requests, follow=True):
            if kind == "tokens":
                new_ids = list(told[0])
                ids += new_ids
                continue
            if kind == "text":
                text += told
                delta = kind_of == RequestOutputKind.DELTA
                piece = CompletionOutput(0, told if delta else text, new_ids if delta else list(ids), None, None)
                new_ids = []
                yield self._output(batch.prompts[0], request_id, piece)
                continue
            whole = batch.outputs(core, [(kind, told)], "raise")[0]
            if kind_of == RequestOutputKind.DELTA:
                last = answer_output(core, 0, told, sampling_params)
                last.text, last.token_ids = last.text[len(text) :], last.token_ids[len(ids) - len(new_ids) :]
                whole.outputs = [last]
            yield _named(whole, request_id)

    def _output(self, prompt: Any, request_id: str, piece: CompletionOutput) -> RequestOutput:
        return RequestOutput(request_id, prompt.text, prompt.token_ids, None, [piece], False)

    async def abort(self, request_id: str) -> None:
        """Nothing: leaving :meth:`generate` cancels its request."""

    def shutdown(self) -> None:
        """Gives the memory of weights and cache back."""
        self._llm.close()


def _named(output: RequestOutput, request_id: str) -> RequestOutput:
    output.request_id = request_id
    return output


__all__ = ["AsyncLLM"]
