"""Checks the server with clients that people use, each in an environment of its own.

    python oracle/check_serve.py [--client NAME] [AEROSTAT [MODEL]]
    python oracle/check_serve.py --all [--slow] [--environments FOLDER] [AEROSTAT [MODEL]]

The first runs a client that this Python has; `--all` makes an environment for each in FOLDER (target/clients), installs what
PINS names into it, and runs all of them. With `--slow` a sweep takes 90 seconds, and clients wait as they do by themselves. AEROSTAT is the command (target/debug/aerostat), MODEL a folder with a tokenizer
(fixtures/chat). The chat template is Qwen's, so that functions can be called. But for installing, nothing of the network is
needed. Environments are made by uv, which takes two minutes for Open WebUI's; it needs no PyTorch, whose vectors are ours.
"""

import argparse
import asyncio
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib import metadata

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "crates/aerostat-text/tests/data/chat/templates/qwen3.jinja"
CITIES = ["Rome", "Oslo"]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": CITIES}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


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
    from pydantic import BaseModel

    class Label(BaseModel):
        label: bool
        number: int

    parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Label, max_tokens=60, seed=1)
    assert isinstance(parsed.choices[0].message.parsed, Label), parsed
    wish = dict(model=model, messages=messages, response_format=Label, max_tokens=60, seed=1)
    with client.chat.completions.stream(**wish) as stream:
        assert stream.get_final_completion().choices[0].message.content == parsed.choices[0].message.content


def check_tools(client, model):
    messages = [{"role": "user", "content": "Weather?"}]
    wish = dict(model=model, messages=messages, tools=[{"type": "function", "function": WEATHER}], max_tokens=200, seed=1)
    wish |= dict(temperature=1, tool_choice="required", parallel_tool_calls=False)
    choice = client.chat.completions.create(**wish).choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in CITIES
    with client.chat.completions.stream(**wish) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.message.tool_calls[0].function.arguments == call.function.arguments and final.finish_reason == "tool_calls"
    messages += [choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    after = client.chat.completions.create(model=model, messages=messages, max_tokens=5, seed=1)
    assert after.choices[0].message.content is not None


def check_responses(client, model):
    wish = dict(model=model, input="Say something.", max_output_tokens=12, temperature=1, extra_body={"seed": 1})
    whole = client.responses.create(**wish)
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say something."}], max_tokens=12, seed=1, temperature=1
    )
    assert whole.output_text == (chat.choices[0].message.content or ""), (whole, chat)
    text, last = "", None
    for event in client.responses.create(**wish, stream=True):
        last = event
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == whole.output_text and last.type in ("response.completed", "response.incomplete")
    with client.responses.stream(**wish) as stream:
        for _ in stream:
            pass
    tools = [{"type": "function", "strict": True, **WEATHER}]
    called = client.responses.create(
        model=model, input="Weather?", tools=tools, tool_choice="required", parallel_tool_calls=False, extra_body={"seed": 1}
    )
    item = next(item for item in called.output if item.type == "function_call")
    assert json.loads(item.arguments)["city"] in CITIES
    output = [{"type": "function_call_output", "call_id": item.call_id, "output": "rain"}]
    client.responses.create(model=model, input=output, previous_response_id=called.id, max_output_tokens=5)
    made = client.responses.create(**wish, background=True)
    while (found := client.responses.retrieve(made.id)).status in ("queued", "in_progress"):
        time.sleep(0.05)
    assert found.output_text == whole.output_text, (found, whole)
    events = list(client.responses.retrieve(made.id, stream=True))
    rest = list(client.responses.retrieve(made.id, stream=True, starting_after=3))
    assert [e.sequence_number for e in rest] == [e.sequence_number for e in events][4:]
    assert client.responses.input_items.list(made.id).data[0].role == "user"
    long = client.responses.create(**wish | dict(max_output_tokens=400), background=True)
    assert client.responses.cancel(long.id).status in ("cancelled", "completed", "incomplete")
    client.responses.delete(made.id)


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
    import openai
    from openai import OpenAI

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


def openai_client(url, model):
    import openai
    from openai import OpenAI

    client = OpenAI(base_url=url + "/v1", api_key="sesame", max_retries=0, timeout=300)
    assert [m.id for m in client.models.list()] == [model]
    checks = [check_chat, check_tools, check_responses, check_completions, check_embeddings, check_errors, check_batches]
    for check in checks:
        check(client, model)
        print("ok", check.__name__, flush=True)
    check_lists(client)
    print("ok check_lists, openai", openai.__version__)


def langchain(url, model):
    from typing import Literal

    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import BaseModel

    class Label(BaseModel):
        label: bool

    @tool
    def clock(zone: Literal["UTC", "CET"]) -> str:
        """The time in a zone."""
        return zone

    common = dict(model=model, base_url=url + "/v1", api_key="sesame", max_retries=0)
    chat = ChatOpenAI(**common, max_tokens=12, seed=1, temperature=1)
    whole = chat.invoke("Say something.")
    assert "".join(chunk.text for chunk in chat.stream("Say something.")) == whole.text

    async def streamed():
        return "".join([chunk.text async for chunk in chat.astream("Say something.")])

    assert asyncio.run(streamed()) == whole.text
    parsed = ChatOpenAI(**common, max_tokens=60, seed=1).with_structured_output(Label).invoke("Yes?")
    assert isinstance(parsed, Label)
    called = ChatOpenAI(**common, max_tokens=200, seed=1).bind_tools([clock], tool_choice="any").invoke("Time?")
    assert called.tool_calls[0]["name"] == "clock" and called.tool_calls[0]["args"]["zone"] in ("UTC", "CET"), called
    responses = ChatOpenAI(**common, max_tokens=12, temperature=1, use_responses_api=True).invoke("Say something.")
    assert isinstance(responses.text, str)
    embedder = OpenAIEmbeddings(
        model=model, base_url=url + "/v1", api_key="sesame", check_embedding_ctx_length=False, max_retries=0
    )
    assert len(embedder.embed_documents(["a", "b"])) == 2


def litellm(url, model):
    import litellm as library

    wish = dict(model=f"openai/{model}", api_base=url + "/v1", api_key="sesame", max_tokens=12, seed=1, temperature=1)
    wish |= dict(messages=[{"role": "user", "content": "Say something."}], timeout=600)
    whole = library.completion(**wish).choices[0].message.content
    chunks = library.completion(**wish, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    tools = [{"type": "function", "function": WEATHER}]
    called = library.completion(**wish | dict(max_tokens=200), tools=tools, tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.name == "weather"
    vectors = library.embedding(model=f"openai/{model}", input=["a", "b"], api_base=url + "/v1", api_key="sesame")
    assert len(vectors.data) == 2


def llamaindex(url, model):
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    common = dict(model=model, api_base=url + "/v1", api_key="sesame", max_tokens=12, temperature=1, timeout=600)
    chat = OpenAILike(**common, is_chat_model=True, additional_kwargs={"seed": 1})
    messages = [ChatMessage(role="user", content="Say something.")]
    whole = chat.chat(messages).message.content
    assert "".join(chunk.delta or "" for chunk in chat.stream_chat(messages)) == whole
    assert isinstance(OpenAILike(**common, is_chat_model=False).complete("one").text, str)


def llm(url, model):
    with tempfile.TemporaryDirectory() as folder:
        entry = f'- {{model_id: here, model_name: {model}, api_base: "{url}/v1", api_key_name: openai}}\n'
        pathlib.Path(folder, "extra-openai-models.yaml").write_text(entry)
        environment = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "sesame"}
        for more in ([], ["--no-stream"]):
            command = [pathlib.Path(sys.executable).parent / "llm", "-m", "here", "-o", "max_tokens", "12", "-o", "seed", "1"]
            answered = subprocess.run([*command, *more, "Say something."], env=environment, capture_output=True, text=True)
            assert answered.returncode == 0, answered.stderr


def lmeval(url, model):
    """A task of 200 questions by lm-eval itself: its log-likelihoods are the command's, bit for bit, and so are accuracies."""
    os.environ |= {"OPENAI_API_KEY": "sesame", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import lm_eval
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    lm = LocalCompletionsAPI(
        base_url=url + "/v1/completions",
        model=model,
        tokenizer_backend="remote",
        auth_token="sesame",
        num_concurrent=8,
        timeout=3600,
        max_length=512,
    )
    words = ["one", "two", "seventeen", "many more"]
    asked = [{"question": f"Item {i} of many:", "choices": [words[i % 4], words[(i + 1) % 4]]} for i in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        path = pathlib.Path(folder, "asked.jsonl")
        path.write_text("\n".join(json.dumps(entry | {"answer": int(i % 3 == 0)}) for i, entry in enumerate(asked)))
        task = {
            "task": "tiny",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
        # Its own thousands of tasks are not looked through.
        own = TaskManager(include_defaults=False)
        found = lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=own, log_samples=True, bootstrap_iters=0)
    samples = sorted(found["samples"]["tiny"], key=lambda sample: sample["doc_id"])
    pairs = [tuple(pair) for sample in samples for pair in sample["arguments"]]
    theirs = [float(response[0][0]) for sample in samples for response in sample["resps"]]
    ours = [sum(logprobs) for logprobs in scores([lm._encode_pair(*pair) for pair in pairs])]
    assert len(samples) == 200 and len(ours) == len(theirs) == 400
    assert ours == theirs, max(abs(a - b) for a, b in zip(ours, theirs))
    lengths = [len(text.strip()) for _, text in pairs]
    for metric, weights in (("acc", [1] * 400), ("acc_norm", lengths)):
        values = [value / weight for value, weight in zip(ours, weights)]
        right = [int(values[2 * i + 1] > values[2 * i]) == int(i % 3 == 0) for i in range(200)]
        told = found["results"]["tiny"][f"{metric},none"]
        assert abs(told - sum(right) / 200) < 1e-12, (metric, told, sum(right))
        print(f"200 questions, {metric} {told}, 400 of 400 log-likelihoods the same")


def scores(pairs):
    """For each pair of token ids the log-probabilities of the second's, by the command."""
    lines = [
        {"custom_id": str(i), "method": "POST", "url": "/v1/score", "body": {"text_1": given, "text_2": ids}}
        for i, (given, ids) in enumerate(pairs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        given.write_text("\n".join(map(json.dumps, lines)))
        command = [ARGS.aerostat, "batch", "-m", MODEL, "-i", str(given), "-o", str(made), "--quiet"]
        subprocess.run(command, check=True)
        results = {line["custom_id"]: line for line in map(json.loads, made.read_text().splitlines())}
    return [results[str(i)]["response"]["body"]["data"][0]["token_logprobs"] for i in range(len(pairs))]


def curl(url, model, tokens=8):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "seed": 1}

    def run(body):
        headers = ["-H", "Content-Type: application/json", "-H", "Authorization: Bearer sesame"]
        command = ["curl", "-sSN", "--fail", url + "/v1/chat/completions", *headers, "-d", json.dumps(body)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    whole = json.loads(run(body))["choices"][0]["message"]["content"]
    lines = [line[6:] for line in run(body | {"stream": True}).split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]) == whole


def openwebui(url, model):
    """Open WebUI itself: models, chats whole and in chunks, a chat's title, vectors, and a file that is searched."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "DATA_DIR": folder,
            "OPENAI_API_BASE_URL": url + "/v1",
            "OPENAI_API_KEY": "sesame",
            "RAG_EMBEDDING_ENGINE": "openai",
            "RAG_EMBEDDING_MODEL": model,
            "RAG_OPENAI_API_BASE_URL": url + "/v1",
            "RAG_OPENAI_API_KEY": "sesame",
            "ENABLE_OLLAMA_API": "False",
            "WEBUI_AUTH": "False",
            "WEBUI_SECRET_KEY": "x",
            "OFFLINE_MODE": "true",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = pathlib.Path(sys.executable).parent / "open-webui"
        command = [program, "serve", "--host", "127.0.0.1", "--port", str(port)]
        with open(folder + "/log", "wb") as log:
            webui = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
        try:
            openwebui_session(f"http://127.0.0.1:{port}", url, model)
        except Exception:
            print(pathlib.Path(folder, "log").read_text()[-4000:])
            raise
        finally:
            webui.terminate()
            webui.wait(timeout=60)


def openwebui_session(webui, url, model):
    def ask(path, body=None, kind="application/json"):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(webui + path, data, {"Content-Type": kind, **token})
        return urllib.request.urlopen(request, timeout=300).read()

    token = {}
    for _ in range(600):
        try:
            ask("/health")
            break
        except OSError:
            time.sleep(0.5)
    token["Authorization"] = "Bearer " + json.loads(ask("/api/v1/auths/signin", {"email": "", "password": ""}))["token"]
    (entry,) = json.loads(ask("/api/models"))["data"]
    assert entry["id"] == model
    messages = [{"role": "user", "content": "Hello"}]
    wish = {"model": model, "messages": messages, "max_tokens": 12, "seed": 1, "temperature": 1}
    whole = json.loads(ask("/api/chat/completions", wish | {"stream": False}))["choices"][0]["message"]["content"]
    lines = ask("/api/chat/completions", wish | {"stream": True}).decode().split("\n")
    chunks = [line[6:] for line in lines if line.startswith("data: ")]
    deltas = [choice["delta"] for chunk in chunks[:-1] for choice in json.loads(chunk).get("choices", [])]
    assert chunks[-1] == "[DONE]" and "".join(delta.get("content") or "" for delta in deltas) == whole
    models = urllib.request.Request(url + "/v1/models", headers={"Authorization": "Bearer sesame"})
    if json.loads(urllib.request.urlopen(models).read())["data"][0]["max_model_len"] >= 4096:
        # It asks for 1,000 tokens.
        title = {"model": model, "messages": [*messages, {"role": "assistant", "content": whole}], "stream": False}
        assert json.loads(ask("/api/v1/tasks/title/completions", title))["choices"][0]["message"]["content"]
    assert len(json.loads(ask("/api/embeddings", {"input": ["a", "b"], "model": model}))["data"]) == 2
    text = "The sky is blue. Grass is green."
    part = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain'
    form = f"--x\r\n{part}\r\n\r\n{text}\r\n--x--\r\n".encode()
    path = "/api/v1/files/?process=true&process_in_background=false"
    file = json.loads(ask(path, form, "multipart/form-data; boundary=x"))["id"]
    found = ask("/api/v1/retrieval/query/doc", {"collection_name": f"file-{file}", "query": "the sky", "k": 1})
    assert json.loads(found)["documents"] == [[text]]


def schemathesis(url, model):
    """The document of the API against the server: no failure of the server, no answer that the document does not tell of."""

    def ask(path, body):
        headers = {"Authorization": "Bearer sesame", "Content-Type": body[0]}
        request = urllib.request.Request(url + path, body[1].encode(), headers)
        return json.loads(urllib.request.urlopen(request, timeout=60).read())["id"]

    line = {"custom_id": "a", "method": "POST", "url": "/v1/score", "body": {"text_1": "a", "text_2": "b"}}
    parts = [("purpose", "", "batch"), ("file", '; filename="a"', json.dumps(line))]
    form = "".join(f'--x\r\nContent-Disposition: form-data; name="{n}"{f}\r\n\r\n{v}\r\n' for n, f, v in parts) + "--x--\r\n"
    file = ask("/v1/files", ("multipart/form-data; boundary=x", form))
    batch = {"input_file_id": file, "endpoint": "/v1/score", "completion_window": "24h"}
    batch = ask("/v1/batches", ("application/json", json.dumps(batch)))
    places = {
        "/v1/batches": batch,
        "/v1/aerostat/batches": batch,
        "/v1/models": model,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = "".join(
            f'[[operations]]\ninclude-path-regex = "^{path}/\\\\{{id"\nparameters = {{ id = "{id}" }}\n'
            for path, id in places.items()
        )
        pathlib.Path(folder, "schemathesis.toml").write_text(config)
        command = [pathlib.Path(sys.executable).parent / "schemathesis", "run", url + "/openapi.json", "--no-color"]
        command += ["--header", "Authorization: Bearer sesame", "--max-examples", "20", "--request-timeout", "60"]
        # It never ends: that is what it is for.
        command += ["--exclude-path", "/v1/aerostat/events"]
        # Whether a request is good depends on the model, its context and its vocabulary, which no schema can tell.
        command += ["--exclude-checks", "positive_data_acceptance"]
        command += ["--seed", "1", "--workers", "2", "--continue-on-failure", "--generation-database", "none"]
        subprocess.run(command, check=True, cwd=folder)


def slow_openai(url, model):
    from openai import OpenAI

    wish = dict(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=2, seed=1, temperature=1)
    client = OpenAI(base_url=url + "/v1", api_key="sesame")
    whole = client.chat.completions.create(**wish).choices[0].message.content
    chunks = client.chat.completions.create(**wish, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole


def slow_langchain(url, model):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=url + "/v1", api_key="sesame", max_tokens=2, seed=1, temperature=1)

    async def streamed():
        return "".join([chunk.text async for chunk in chat.astream("Hello")])

    assert asyncio.run(streamed()) == chat.invoke("Hello").text


def slow_curl(url, model):
    """curl, and undici, which is what Node's `fetch` is."""
    curl(url, model, 2)
    if not shutil.which("node"):
        return print("SKIPPED undici: there is no node")
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "seed": 1}
    script = """
        const [url, body] = process.argv.slice(1);
        const headers = {"content-type": "application/json", authorization: "Bearer sesame"};
        fetch(url, {method: "POST", headers, body}).then(a => a.json()).then(a => console.log(a.choices[0].finish_reason));
    """
    command = ["node", "-e", script, url + "/v1/chat/completions", json.dumps(body)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() in ("stop", "length")


SLOW = {"openai": slow_openai, "openai2": slow_openai, "openai3": slow_openai, "langchain": slow_langchain, "curl": slow_curl}
CLIENTS = {
    "openai": openai_client,
    "openai2": openai_client,
    "openai3": openai_client,
    "langchain": langchain,
    "litellm": litellm,
    "llamaindex": llamaindex,
    "llm": llm,
    "lmeval": lmeval,
    "curl": curl,
    "openwebui": openwebui,
    "schemathesis": schemathesis,
}
# What is installed, for each environment.
PINS = {
    "openai2": ["openai==2.54.0"],
    "openai3": ["openai==3.57.0"],
    "langchain": ["langchain-openai==1.7.4"],
    "litellm": ["litellm==1.110.2"],
    "llamaindex": ["llama-index-llms-openai-like==0.8.1"],
    "llm": ["llm==0.36"],
    "lmeval": ["lm-eval[api]==0.4.13"],
    "curl": [],
    "openwebui": ["open-webui==0.12.4"],
    "schemathesis": ["schemathesis==4.32.5"],
}


def all_clients():
    """Runs each in an environment of its own."""
    failed = []
    for name, pins in PINS.items():
        if ARGS.slow and name not in SLOW:
            continue
        folder = pathlib.Path(ARGS.environments, name)
        python = folder / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            without = folder / "without"
            without.write_text("torch; sys_platform == 'none'\n")
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "uv==0.13.9"], check=True)
            install = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--override"]
            if pins:
                subprocess.run([*install, str(without), *pins], check=True)
        command = [str(python), __file__, "--client", name, *["--slow"] * ARGS.slow, ARGS.aerostat, ARGS.model]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"{'ok' if ended.returncode == 0 else 'FAILED'} {name} {' '.join(pins)}", flush=True)
        if ended.returncode:
            failed.append(name)
            print(ended.stdout)
    assert not failed, failed


def check_pins(name):
    """What is checked is what is said to be."""
    for pin in PINS.get(name, []):
        package, version = pin.split("==")
        assert metadata.version(package.split("[")[0]) == version, f"pip install '{pin}'"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, default="openai")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--environments", default=str(ROOT / "target/clients"))
    parser.add_argument("aerostat", nargs="?", default=str(ROOT / "target/debug/aerostat"))
    parser.add_argument("model", nargs="?", default=str(ROOT / "fixtures/chat"))
    return parser.parse_args()


def main():
    global MODEL
    check_pins(ARGS.client)
    with tempfile.TemporaryDirectory() as folder:
        MODEL = folder + "/model"
        shutil.copytree(ARGS.model, MODEL)
        shutil.copy(TEMPLATE, MODEL + "/chat_template.jinja")
        keys = pathlib.Path(folder, "keys")
        keys.write_text("sesame\n")
        command = [ARGS.aerostat, "serve", MODEL, "--port", "0", "--json", "--quiet", "--data", folder + "/data", "--ollama"]
        command += ["--api-key-file", str(keys), "--served-model-name", "m", *["--hold-sweeps", "90"] * ARGS.slow]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            (SLOW if ARGS.slow else CLIENTS)[ARGS.client](json.loads(server.stdout.readline())["url"], "m")
            print("ok", ARGS.client)
        finally:
            server.terminate()
            assert server.wait(timeout=60) == 0


ARGS = arguments()
if ARGS.all:
    all_clients()
else:
    main()
