"""Checks the server with OpenAI's own client: chat, stream, parse, embeddings, files, batches, lists, errors.

    python oracle/check_serve.py [AEROSTAT [MODEL]]

AEROSTAT is the command (target/debug/aerostat), MODEL a model with a tokenizer and a chat template (fixtures/chat).
Needs `pip install openai==3.*`, and the same again with 2.*; nothing of the network.
"""

import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import openai
from openai import OpenAI
from pydantic import BaseModel

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Label(BaseModel):
    label: bool
    number: int


def check_chat(client, model):
    messages = [{"role": "user", "content": "Say something."}]
    plain = client.chat.completions.create(model=model, messages=messages, max_tokens=12, seed=1, temperature=1)
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens
    assert plain.choices[0].finish_reason in ("stop", "length") and plain.system_fingerprint
    wish = dict(model=model, messages=messages, max_tokens=12, seed=1, temperature=1)
    chunks = list(client.chat.completions.create(**wish, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage and not chunks[-1].choices
    several = client.chat.completions.create(
        model=model, messages=messages, max_tokens=5, n=3, logprobs=True, top_logprobs=2, seed=3, temperature=1
    )
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert len(several.choices[0].logprobs.content[0].top_logprobs) == 2
    parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Label, max_tokens=60, seed=1)
    assert isinstance(parsed.choices[0].message.parsed, Label), parsed
    wish = dict(model=model, messages=messages, response_format=Label, max_tokens=60, seed=1)
    with client.chat.completions.stream(**wish) as stream:
        assert stream.get_final_completion().choices[0].message.content == parsed.choices[0].message.content


def check_completions(client, model):
    answer = client.completions.create(model=model, prompt=["one", "two"], max_tokens=6, n=2, logprobs=2, seed=1)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert len(answer.choices[0].logprobs.tokens) <= 6
    chunks = list(client.completions.create(model=model, prompt="one", max_tokens=6, seed=1, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == answer.choices[0].text
    echoed = client.completions.create(model=model, prompt=[[5, 6, 7]], max_tokens=1, logprobs=1, echo=True, temperature=0)
    logprobs = echoed.choices[0].logprobs
    assert len(logprobs.tokens) == 4 and logprobs.token_logprobs[0] is None
    assert all(l <= max(t.values()) for l, t in zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:]))


def check_embeddings(client, model):
    vectors = client.embeddings.create(model=model, input=["one", "two"]).data
    floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float").data
    for a, b in zip(vectors, floats, strict=True):
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding, strict=True)) < 1e-6


def check_errors(client, model):
    refused = [
        (openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[])),
        (openai.NotFoundError, lambda: client.models.retrieve("none")),
        (openai.NotFoundError, lambda: client.files.retrieve("file-" + "0" * 32)),
    ]
    for kind, call in refused:
        try:
            call()
        except kind as error:
            assert error.request_id and error.code, error
        else:
            raise AssertionError(f"{kind} was expected")
    stranger = OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0)
    try:
        stranger.models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


def check_batches(client, model):
    def line(i):
        body = {"model": model, "messages": [{"role": "user", "content": f"question {i}"}], "max_tokens": 8, "seed": i}
        return json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})

    lines = [line(i) for i in range(30)] + [line(99).replace("max_tokens", "novel")]
    file = client.files.create(file=("in.jsonl", io.BytesIO("\n".join(lines).encode())), purpose="batch")
    assert client.files.content(file.id).text == "\n".join(lines)
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    while (batch := client.batches.retrieve(made.id)).status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.1)
    assert batch.status == "completed" and batch.metadata == {"a": "b"}, batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (31, 30, 1)
    results = {r["custom_id"]: r for r in map(json.loads, client.files.content(batch.output_file_id).text.splitlines())}
    assert len(results) == 30
    alone = client.chat.completions.create(**json.loads(lines[7])["body"])
    assert results["r7"]["response"]["body"]["choices"][0]["message"]["content"] == alone.choices[0].message.content
    errors = client.files.content(batch.error_file_id).text.splitlines()
    assert json.loads(errors[0])["custom_id"] == "r99"
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert client.batches.cancel(made.id).status in ("cancelling", "cancelled")


def check_lists(client):
    ids = [client.files.create(file=(f"{i}", b"x"), purpose="batch").id for i in range(5)]
    listed = [f.id for f in client.files.list(limit=2, purpose="batch")]
    assert listed[:5] == ids[::-1] and len(set(listed)) == len(listed), (listed, ids)
    batches = [b.id for b in client.batches.list(limit=1)]
    assert len(batches) == len(set(batches)) >= 2
    for file in ids:
        assert client.files.delete(file).deleted


def main():
    aerostat = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/aerostat")
    model = sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "fixtures/chat")
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder, "keys")
        keys.write_text("sesame\n")
        command = [aerostat, "serve", model, "--port", "0", "--json", "--quiet", "--data", folder + "/data"]
        server = subprocess.Popen(
            [*command, "--api-key-file", str(keys), "--served-model-name", "m"], stdout=subprocess.PIPE, text=True
        )
        try:
            url = json.loads(server.stdout.readline())["url"]
            client = OpenAI(base_url=url + "/v1", api_key="sesame", max_retries=0, timeout=120)
            assert [m.id for m in client.models.list()] == ["m"]
            for check in (check_chat, check_completions, check_embeddings, check_errors, check_batches):
                check(client, "m")
                print("ok", check.__name__)
            check_lists(client)
            print("ok check_lists, openai", openai.__version__)
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0


main()
