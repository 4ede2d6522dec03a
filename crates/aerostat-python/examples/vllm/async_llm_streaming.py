"""Answers piece by piece in an event loop. As vLLM's examples/offline_inference/async_llm_streaming.py."""

import asyncio

from aerostat.vllm.engine.arg_utils import AsyncEngineArgs  # was: from vllm.engine.arg_utils import AsyncEngineArgs
from aerostat.vllm.sampling_params import RequestOutputKind, SamplingParams  # was: from vllm.sampling_params import …
from aerostat.vllm.v1.engine.async_llm import AsyncLLM  # was: from vllm.v1.engine.async_llm import AsyncLLM


async def stream(engine: AsyncLLM, prompt: str, request_id: str) -> None:
    params = SamplingParams(max_tokens=24, temperature=0.8, top_p=0.95, seed=42, output_kind=RequestOutputKind.DELTA)
    pieces = []
    async for output in engine.generate(request_id=request_id, prompt=prompt, sampling_params=params):
        for completion in output.outputs:
            pieces.append(completion.text)
        if output.finished:
            print(f"{request_id}: {''.join(pieces)!r}")
            break


async def main() -> None:
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model="demo", enforce_eager=True))
    try:
        for number, prompt in enumerate(["The future of AI is", "In a galaxy far away"], 1):
            await stream(engine, prompt, f"stream-{number}")
    finally:
        engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
