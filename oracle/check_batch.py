"""Checks batch results with the OpenAI client's own types, and inputs written by them.

    python oracle/check_batch.py write IN.jsonl          writes a batch file through the client's types
    python oracle/check_batch.py read OUT.jsonl [IN.jsonl]  parses every result with them

Needs `pip install openai`, and nothing of the network.
"""

import gzip
import json
import sys

from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as CompletionParams
from openai.types.shared_params import ResponseFormatJSONSchema


def requests():
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["good", "bad"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    form = ResponseFormatJSONSchema(type="json_schema", json_schema={"name": "label", "schema": schema, "strict": True})
    user = {"role": "user", "content": "Say something."}
    parts = {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "something."}]}
    yield "/v1/chat/completions", ChatParams(model="m", messages=[user], max_completion_tokens=8)
    yield "/v1/chat/completions", ChatParams(
        model="m", messages=[parts], max_tokens=8, n=2, logprobs=True, top_logprobs=3, temperature=0.7, seed=1
    )
    yield "/v1/chat/completions", ChatParams(model="m", messages=[user], response_format=form, max_tokens=40)
    yield "/v1/chat/completions", ChatParams(model="m", messages=[user], stop=["a", "b"], logit_bias={"5": 1}, top_p=0.9)
    yield "/v1/completions", CompletionParams(model="m", prompt=["one", "two"], max_tokens=6, n=2, logprobs=2)
    yield "/v1/completions", CompletionParams(model="m", prompt=[5, 6, 7], max_tokens=6, presence_penalty=0.5)


def write(path):
    with open(path, "w") as file:
        for i, (url, body) in enumerate(requests()):
            file.write(json.dumps({"custom_id": f"request-{i}", "method": "POST", "url": url, "body": body}) + "\n")


def read(path, source=None):
    opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    types = {
        "chat.completion": ChatCompletion,
        "text_completion": Completion,
        "list": CreateEmbeddingResponse,
    }
    seen = set()
    with opened as file:
        for line in file:
            result = json.loads(line)
            assert result["custom_id"] not in seen, result["custom_id"]
            seen.add(result["custom_id"])
            assert result["error"] is None and result["response"]["status_code"] == 200, line
            body = result["response"]["body"]
            if str(body.get("id", "")).startswith("score-"):
                continue
            # Strict: the client's own `construct` checks nothing.
            parsed = types[body["object"]].model_validate(body, strict=True)
            assert not parsed.model_extra, parsed.model_extra
            if isinstance(parsed, ChatCompletion):
                assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens
    if source:
        wanted = {json.loads(line)["custom_id"] for line in open(source)}
        assert seen == wanted, wanted - seen
    print(f"{len(seen)} results parse")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
