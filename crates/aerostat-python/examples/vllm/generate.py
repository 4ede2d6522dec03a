"""Options by command line, sampling as the model's makers recommend. As vLLM's basic/generate.py."""

from typing import Any

from aerostat.vllm import LLM, EngineArgs  # was: from vllm import LLM, EngineArgs
from aerostat.vllm.utils import FlexibleArgumentParser  # was: from vllm.utils import FlexibleArgumentParser

PROMPTS = ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"]


def main(args: dict[str, Any]) -> None:
    chosen = {name: args.pop(name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
    llm = LLM(**args)
    params = llm.get_default_sampling_params()
    for name, value in chosen.items():
        if value is not None:
            setattr(params, name, value)
    for output in llm.generate(PROMPTS, params):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    engine = parser.add_argument_group("Engine arguments")
    EngineArgs.add_cli_args(engine)
    engine.set_defaults(model="demo")
    sampling = parser.add_argument_group("Sampling parameters")
    sampling.add_argument("--max-tokens", type=int)
    sampling.add_argument("--temperature", type=float)
    sampling.add_argument("--top-p", type=float)
    sampling.add_argument("--top-k", type=int)
    main(vars(parser.parse_args()))
