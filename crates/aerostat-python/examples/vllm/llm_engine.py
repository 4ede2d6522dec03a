"""An engine that is stepped by hand. As vLLM's examples/offline_inference/llm_engine_example.py."""

import argparse

from aerostat.vllm import EngineArgs, LLMEngine, SamplingParams  # was: from vllm import EngineArgs, LLMEngine, …
from aerostat.vllm.utils import FlexibleArgumentParser  # was: from vllm.utils import FlexibleArgumentParser

REQUESTS = [
    ("A robot may not injure a human being", SamplingParams(temperature=0.0, logprobs=1, prompt_logprobs=1)),
    ("To be or not to be,", SamplingParams(temperature=0.8, top_k=5, presence_penalty=0.2, seed=3)),
    ("What is the meaning of life?", SamplingParams(n=2, temperature=0.8, top_p=0.95, frequency_penalty=0.1, seed=4)),
]


def main(args: argparse.Namespace) -> None:
    engine = LLMEngine.from_engine_args(EngineArgs.from_cli_args(args))
    waiting, number = list(REQUESTS), 0
    while waiting or engine.has_unfinished_requests():
        if waiting:
            prompt, params = waiting.pop(0)
            engine.add_request(str(number), prompt, params)
            number += 1
        for output in engine.step():
            if output.finished:
                print(f"{output.request_id}: {[one.text for one in output.outputs]!r}")


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser = EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo")
    main(parser.parse_args())
