"""The first elements of vectors. As vLLM's examples/pooling/embed/embed_matryoshka_fy_offline.py."""

from argparse import Namespace

from aerostat.vllm import LLM, EngineArgs, PoolingParams  # was: from vllm import LLM, EngineArgs, PoolingParams
from aerostat.vllm.utils.argparse_utils import FlexibleArgumentParser  # was: from vllm.utils.argparse_utils import …

PROMPTS = ["Follow the white rabbit.", "Sigue al conejo blanco.", "Suis le lapin blanc."]


def main(args: Namespace) -> None:
    model = LLM(**vars(args))
    for prompt, output in zip(PROMPTS, model.embed(PROMPTS, pooling_params=PoolingParams(dimensions=8))):
        assert output.outputs is not None
        print(f"{prompt!r}: {output.outputs.embedding} (size={len(output.outputs.embedding)})")


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser = EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo", runner="pooling", trust_remote_code=True)
    main(parser.parse_args())
