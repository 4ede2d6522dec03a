"""A vector for each token. As vLLM's examples/pooling/token_embed/multi_vector_retrieval_offline.py."""

from argparse import Namespace

from aerostat.vllm import LLM, EngineArgs  # was: from vllm import LLM, EngineArgs
from aerostat.vllm.config import PoolerConfig  # was: from vllm.config import PoolerConfig
from aerostat.vllm.utils.argparse_utils import FlexibleArgumentParser  # was: from vllm.utils.argparse_utils import …

PROMPTS = ["Hello, my name is", "The capital of France is"]


def main(args: Namespace) -> None:
    llm = LLM(**vars(args))
    for prompt, output in zip(PROMPTS, llm.encode(PROMPTS, pooling_task="token_embed")):
        assert output.outputs is not None
        print(f"{prompt!r}: {output.outputs.data.shape}")
    for alike in llm.score(PROMPTS[0], PROMPTS):
        print(alike.outputs.score)


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser = EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo", pooler_config=PoolerConfig(task="token_embed"), runner="pooling", enforce_eager=True)
    main(parser.parse_args())
