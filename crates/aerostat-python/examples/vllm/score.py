"""How alike a question and documents are. As vLLM's examples/basic/offline_inference/score.py."""

from argparse import Namespace

from aerostat.vllm import LLM, EngineArgs  # was: from vllm import LLM, EngineArgs
from aerostat.vllm.utils.argparse_utils import FlexibleArgumentParser  # was: from vllm.utils.argparse_utils import …

QUERY = "What is the capital of France?"
DOCUMENTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]


def main(args: Namespace) -> None:
    llm = LLM(**vars(args))
    for document, output in zip(DOCUMENTS, llm.score(QUERY, DOCUMENTS)):
        print(f"{document!r}: {output.outputs.score}")


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser = EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo", runner="pooling", enforce_eager=True)
    main(parser.parse_args())
