"""Puts the server under load, kills it, fills its disk and slows it down; answers are compared with those of `aerostat batch`.

    python oracle/soak_serve.py [--only NAME] [--rounds N] [--memory SIZE] [AEROSTAT [MODEL]]

crowd       200 clients of every door at once, beside a running batch: all bytes are those of `batch`
flood       1,000 connections at once: answered alike, or told 429 with Retry-After; /health stays quick, memory in its bound
kills       --rounds (50) times kill -9 amid uploads, batches and background responses: nothing is lost or there twice
full        a disk that fills up under a batch and is freed again (needs root, for a small file system in memory)
throughput  says what a batch takes through the server and by the command, --rounds (7) times in turns; name a real MODEL, since
            with the fixture reading and writing are most of the work
slow        sweeps of 90 seconds: urllib, and curl behind nginx with its default time-outs if both are there

AEROSTAT is the command (target/release/aerostat), MODEL a folder with a tokenizer and a chat template (fixtures/chat). Nothing
but Python's library is needed. Takes some ten minutes without `slow`, which takes as long again.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import multiprocessing
import pathlib
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOUNDARY = "soak"


class Server:
    """A server of its own, and requests to it."""

    def __init__(self, *flags, **options):
        command = [ARGS.aerostat, "serve", ARGS.model, "--port", "0", "--json", "--quiet", "--served-model-name", "m"]
        self.process = subprocess.Popen([*command, *map(str, flags)], stdout=subprocess.PIPE, text=True, **options)
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.address = urllib.parse.urlsplit(self.url).netloc

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(timeout=120) == 0

    def ask(self, method, path, body=None, kind="application/json", timeout=900):
        """Status, headers and bytes of an answer."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        with contextlib.closing(connection):
            body = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def post(self, path, body):
        status, _, answer = self.ask("POST", path, body)
        assert status == 200, (status, answer[:300])
        return answer

    def get(self, path):
        status, _, answer = self.ask("GET", path)
        assert status == 200, (path, status, answer[:300])
        return json.loads(answer)

    def upload(self, text):
        body = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{text}\r\n--{BOUNDARY}--\r\n'
        )
        return self.ask("POST", "/v1/files", body.encode(), f"multipart/form-data; boundary={BOUNDARY}")

    def batch(self, lines):
        """Starts a batch of lines, and gives its id."""
        status, _, answer = self.upload(text_of(lines))
        assert status == 200, answer
        wish = {"input_file_id": json.loads(answer)["id"], "endpoint": lines[0]["url"], "completion_window": "24h"}
        return json.loads(self.post("/v1/batches", wish))["id"]

    def results(self, batch):
        """Waits for a batch, and gives its results by their names; each may be there once only."""
        while (found := self.get(f"/v1/batches/{batch}"))["status"] in ("validating", "in_progress", "finalizing"):
            time.sleep(0.1)
        assert found["status"] == "completed", found
        _, _, content = self.ask("GET", f"/v1/files/{found['output_file_id']}/content")
        lines = [json.loads(line) for line in content.decode().splitlines()]
        names = {line["custom_id"]: told(line["response"]["body"]) for line in lines}
        assert len(names) == len(lines) == found["request_counts"]["total"], found["request_counts"]
        return names

    def peak_mib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024


def text_of(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def line(name, url, body):
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def chat(i, tokens=24, words=3):
    content = " ".join(["question", str(i), *["again"] * words])
    sampled = {"max_tokens": tokens, "temperature": 0.9, "seed": i}
    return {"messages": [{"role": "user", "content": content}], **sampled}


def told(body):
    """What an answer says, without its name, its time and what it cost."""
    return json.dumps(body.get("choices") or body["data"], sort_keys=True)


def expected(lines):
    """The same by `aerostat batch`, by the lines' names."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
        given.write_text(text_of(lines))
        subprocess.run([ARGS.aerostat, "batch", "-m", ARGS.model, "-i", given, "-o", made, "--quiet"], check=True)
        results = map(json.loads, made.read_text().splitlines())
        return {result["custom_id"]: told(result["response"]["body"]) for result in results}


def events(answer):
    return [json.loads(line[6:]) for line in answer.decode().split("\n") if line.startswith("data: {")]


def doors(server, i):
    """A request at the i-th door, as a line of a batch, and a call that compares its answer with that line's."""
    asked, prompt = chat(i), {"prompt": f"once {i}", "max_tokens": 20, "temperature": 0.9, "seed": i}
    message = lambda wanted: json.loads(wanted)[0]["message"]["content"]

    def whole(path, body):
        return lambda wanted: told(json.loads(server.post(path, body))) == wanted

    def streamed(wanted):
        chunks = events(server.post("/v1/chat/completions", asked | {"stream": True}))
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == message(wanted)

    def completed(wanted):
        chunks = events(server.post("/v1/completions", prompt | {"stream": True}))
        return "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == json.loads(wanted)[0]["text"]

    def response(wanted):
        wish = {"input": asked["messages"], "max_output_tokens": asked["max_tokens"], "temperature": 0.9, "seed": i}
        output = json.loads(server.post("/v1/responses", wish))["output"]
        texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
        return "".join(texts) == message(wanted)

    def ollama(wanted):
        options = {"num_predict": asked["max_tokens"], "temperature": 0.9, "seed": i}
        wish = {"model": "m", "messages": asked["messages"], "options": options}
        lines = [json.loads(line) for line in server.post("/api/chat", wish).splitlines()]
        return "".join(line["message"]["content"] for line in lines if "message" in line) == message(wanted)

    texts = {"input": [f"text {i}", "another"]}
    score = {"text_1": f"what is {i}?", "text_2": [" a number", " a name"]}
    calls = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/score"
    return [
        (calls[0], asked, whole(calls[0], asked)),
        (calls[0], asked, streamed),
        (calls[0], asked, response),
        (calls[0], asked, ollama),
        (calls[1], prompt, whole(calls[1], prompt)),
        (calls[1], prompt, completed),
        (calls[2], texts, whole(calls[2], texts)),
        (calls[3], score, whole(calls[3], score)),
    ][i % 8]


def crowd(folder):
    jobs = [line(f"b{i}", "/v1/chat/completions", chat(10_000 + i, 60)) for i in range(400)]
    with Server("--data", folder / "data", "--ollama") as server:
        asked = [doors(server, i) for i in range(200)]
        lines = [line(f"s{i}", url, body) for i, (url, body, _) in enumerate(asked)]
        wanted, begun = expected(lines + jobs), time.time()
        batch = server.batch(jobs)
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            same = list(pool.map(lambda at: at[1][2](wanted[f"s{at[0]}"]), enumerate(asked)))
        seconds = time.time() - begun
        assert all(same), [i for i, equal in enumerate(same) if not equal]
        results = server.results(batch)
        assert results == {name: wanted[name] for name in results} and len(results) == len(jobs)
    print(f"ok crowd: 200 clients in {seconds:.1f} s beside a batch of {len(jobs)}, all equal", flush=True)


async def flooding(server, wanted, body):
    """What each of 1,000 connections was told."""
    host, port = server.address.rsplit(":", 1)
    data = json.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: application/json\r\n"
    text = f"{head}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode()

    async def one():
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text)
        await writer.drain()
        head, _, answer = (await asyncio.wait_for(reader.read(), 900)).partition(b"\r\n\r\n")
        writer.close()
        status = int(head.split()[1])
        if status == 429:
            return 429 if re.search(rb"(?i)\r\nretry-after: *\d+", head) else "429 without Retry-After"
        if b"chunked" in head.lower():
            answer = b"".join(re.findall(rb"\r\n(\{.*\})\s*\r\n", b"\r\n" + answer, re.S))
        return 200 if status == 200 and told(json.loads(answer)) == wanted else (status, answer[:200])

    return await asyncio.gather(*[one() for _ in range(1000)])


def watch(address, done, results):
    """How long /health takes, in seconds, asked again and again by a process of its own on a connection of its own."""
    connection, latencies = http.client.HTTPConnection(address, timeout=60), []
    while not done.is_set():
        begun = time.perf_counter()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        latencies.append(time.perf_counter() - begun)
        time.sleep(0.02)
    results.put(latencies)


def flood(folder):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    body = {"prompt": "once", "max_tokens": 30, "temperature": 0.9, "seed": 3}
    wanted = expected([line("a", "/v1/completions", body)])["a"]
    jobs = [line(f"b{i}", "/v1/chat/completions", chat(i, 60)) for i in range(2000)]
    with Server("--data", folder / "data", "--memory", ARGS.memory) as server:
        server.batch(jobs)
        done, results = multiprocessing.Event(), multiprocessing.Queue()
        watcher = multiprocessing.Process(target=watch, args=(server.address, done, results))
        watcher.start()
        time.sleep(0.5)
        answers = asyncio.run(flooding(server, wanted, body))
        done.set()
        latencies = results.get()
        counts = {answer: answers.count(answer) for answer in set(answers)}
        assert set(counts) <= {200, 429} and counts.get(200), counts
        slowest, peak = statistics.quantiles(latencies, n=100)[98] * 1000, server.peak_mib()
    number, unit = re.fullmatch(r"(\d+)([MG])iB", ARGS.memory).groups()
    assert slowest < 50 and peak <= int(number) * (1024 if unit == "G" else 1), (slowest, peak)
    print(f"ok flood: {counts}, /health p99 {slowest:.1f} ms, {peak:.0f} MiB of {ARGS.memory}", flush=True)


def disturb(server, given, files, batches, responses, wanted):
    """Uploads, batches and responses until the server is gone; what was acknowledged is kept."""
    while True:
        try:
            kind = random.random()
            i = random.randrange(given)
            if kind < 0.4:
                lines = [line(f"x{n}", "/v1/chat/completions", chat(n, 12)) for n in random.sample(range(given), 8)]
                status, _, answer = server.upload(text_of(lines))
                if status == 200:
                    files[json.loads(answer)["id"]] = lines
            elif kind < 0.7 and files:
                name = random.choice(list(files))
                wish = {"input_file_id": name, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
                batches[json.loads(server.post("/v1/batches", wish))["id"]] = name
            else:
                wish = {"input": chat(i)["messages"], "max_output_tokens": 12, "temperature": 0.9, "seed": i}
                responses[json.loads(server.post("/v1/responses", wish | {"background": True}))["id"]] = i
        except (OSError, http.client.HTTPException, ValueError, AssertionError):
            # An answer of which half came is none.
            if server.process.poll() is not None:
                return


def kills(folder):
    given, (files, batches, responses) = 40, ({}, {}, {})
    wanted = expected([line(f"x{n}", "/v1/chat/completions", chat(n, 12)) for n in range(given)])
    data = folder / "data"
    rounds = ARGS.rounds or 50
    for _ in range(rounds):
        server = Server("--data", data)
        arguments = (server, given, files, batches, responses, wanted)
        threads = [threading.Thread(target=disturb, args=arguments) for _ in range(3)]
        [thread.start() for thread in threads]
        time.sleep(random.uniform(0.05, 1.5))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        [thread.join() for thread in threads]
    with Server("--data", data) as server:
        for name, lines in files.items():
            status, _, content = server.ask("GET", f"/v1/files/{name}/content")
            assert (status, content.decode()) == (200, text_of(lines)), name
        for name, file in batches.items():
            results = server.results(name)
            assert results == {line["custom_id"]: wanted[line["custom_id"]] for line in files[file]}, name
        for name, i in responses.items():
            while (found := server.get(f"/v1/responses/{name}"))["status"] in ("queued", "in_progress"):
                time.sleep(0.1)
            texts = [part["text"] for item in found["output"] if item["type"] == "message" for part in item["content"]]
            assert "".join(texts) == json.loads(wanted[f"x{i}"])[0]["message"]["content"], found
    left = list((data / "tmp").glob("*")) if (data / "tmp").exists() else []
    assert not left, left
    counts = f"{len(files)} files, {len(batches)} batches, {len(responses)} responses"
    print(f"ok kills: {rounds} kills, {counts}: nothing lost, nothing twice", flush=True)


def full(folder):
    place = folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300m", "tmpfs", str(place)], check=True)
    try:
        jobs = [line(f"b{i}", "/v1/chat/completions", chat(i, 100)) for i in range(1000)]
        wanted = expected(jobs)
        with Server("--data", place / "data") as server:
            batch, ballast = server.batch(jobs), place / "ballast"
            time.sleep(1)
            with open(ballast, "wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
            status, _, answer = server.upload(text_of(jobs))
            assert status >= 400 and server.ask("GET", "/health")[0] == 200, answer
            time.sleep(5)
            assert server.get(f"/v1/batches/{batch}")["status"] != "failed"
            ballast.unlink()
            assert server.results(batch) == wanted
    finally:
        subprocess.run(["umount", str(place)], check=False)
    print(f"ok full: an upload was told {status}, the batch went on when there was room, all equal", flush=True)


def processor_seconds(process):
    """What a process took of the processor, in seconds; `None`: all children that have ended."""
    if process is None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def throughput(folder):
    ratios, walls = [], []
    with Server("--data", folder / "data") as server:
        for turn in range(ARGS.rounds or 7):
            jobs = [line(f"b{i}", "/v1/chat/completions", chat(turn * 5000 + i, 64)) for i in range(1000)]
            begun, before = time.time(), processor_seconds(server.process)
            results = server.results(server.batch(jobs))
            wall, used = time.time() - begun, processor_seconds(server.process) - before
            begun, before = time.time(), processor_seconds(None)
            assert expected(jobs) == results
            ratios.append((processor_seconds(None) - before) / used)
            walls.append((time.time() - begun) / wall)
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"throughput: command's by server's processor time {quartiles[1]:.3f} ({quartiles[0]:.3f} to {quartiles[2]:.3f}), "
          f"of wall time {statistics.median(walls):.3f}", flush=True)


NGINX = """daemon off; pid {0}/pid; error_log {0}/log; events {{}}
http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;
scgi_temp_path {0}/s; server {{ listen 127.0.0.1:{1}; location / {{ proxy_pass {2}; proxy_set_header Host $proxy_host; }} }} }}"""


def slow(folder):
    body = chat(1, 2)
    wanted = expected([line("a", "/v1/chat/completions", body)])["a"]
    with Server("--hold-sweeps", 90) as server, contextlib.ExitStack() as stack:
        calls = {"urllib": lambda: told(json.loads(server.post("/v1/chat/completions", body))) == wanted}
        if shutil.which("nginx") and shutil.which("curl"):
            port = random.randrange(20_000, 30_000)
            config = folder / "nginx.conf"
            config.write_text(NGINX.format(folder, port, server.url))
            proxy = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
            stack.callback(proxy.terminate)
            time.sleep(1)
            curl = ["curl", "-sSN", "--fail", f"http://127.0.0.1:{port}/v1/chat/completions", "-H", "Content-Type: application/json"]
            run = lambda body: subprocess.run([*curl, "-d", json.dumps(body)], check=True, capture_output=True).stdout
            content = json.loads(wanted)[0]["message"]["content"]
            pieces = lambda answer: "".join(c["choices"][0]["delta"].get("content") or "" for c in events(answer) if c["choices"])
            calls["curl behind nginx"] = lambda: told(json.loads(run(body))) == wanted
            calls["curl behind nginx, streamed"] = lambda: pieces(run(body | {"stream": True})) == content
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answers = {name: pool.submit(call) for name, call in calls.items()}
            assert all(answer.result() for answer in answers.values()), answers
    print(f"ok slow: {', '.join(calls)}", flush=True)


SOAKS = {soak.__name__: soak for soak in (crowd, flood, kills, full, throughput, slow)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SOAKS, metavar="NAME", help="may be given several times")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--memory", default="256MiB")
    parser.add_argument("aerostat", nargs="?", default=str(ROOT / "target/release/aerostat"))
    parser.add_argument("model", nargs="?", default=str(ROOT / "fixtures/chat"))
    return parser.parse_args()


ARGS = arguments()
for name in ARGS.only or [name for name in SOAKS if name != "slow"]:
    with tempfile.TemporaryDirectory() as temporary:
        SOAKS[name](pathlib.Path(temporary))
