"""Vectors of texts. As vLLM's examples/basic/offline_inference/embed.py."""

from argparse import Namespace

from aerostat.vllm import LLM, EngineArgs  # was: from vllm import LLM, EngineArgs
from aerostat.vllm.utils.argparse_utils import FlexibleArgumentParser  # was: from vllm.utils.argparse_utils import …
from aerostat.vllm.utils.print_utils import print_embeddings  # was: from vllm.utils.print_utils import print_embeddings

PROMPTS = ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"]


def main(args: Namespace) -> None:
    llm = LLM(**vars(args))
    for prompt, output in zip(PROMPTS, llm.embed(PROMPTS)):
        assert output.outputs is not None
        print_embeddings(output.outputs.embedding, prefix=repr(prompt))


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser = EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo", runner="pooling", enforce_eager=True)
    main(parser.parse_args())
