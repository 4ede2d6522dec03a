"""A conversation, and many at a time. As vLLM's examples/basic/offline_inference/chat.py."""

from typing import Any

from aerostat.vllm import LLM, EngineArgs  # was: from vllm import LLM, EngineArgs
from aerostat.vllm.outputs import RequestOutput  # was: from vllm.outputs import RequestOutput
from aerostat.vllm.utils.argparse_utils import FlexibleArgumentParser  # was: from vllm.utils.argparse_utils import …

CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I help?"},
    {"role": "user", "content": "Write a line about schools."},
]


def show(outputs: list[RequestOutput]) -> None:
    for output in outputs:
        print(repr(output.outputs[0].text))


def main(args: dict[str, Any]) -> None:
    max_tokens, path = args.pop("max_tokens"), args.pop("chat_template_path")
    llm = LLM(**args)
    params = llm.get_default_sampling_params()
    if max_tokens is not None:
        params.max_tokens = max_tokens
    show(llm.chat(CONVERSATION, params, use_tqdm=False))
    conversations = [CONVERSATION for _ in range(4)]
    show(llm.chat(conversations, params, use_tqdm=True))
    if path is not None:
        with open(path) as file:
            show(llm.chat(conversations, params, use_tqdm=False, chat_template=file.read()))


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="demo")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--chat-template-path", type=str)
    main(vars(parser.parse_args()))
