"""`aerostat.ray` on a cluster of three nodes on this machine. The same rows through `LLM.generate`, `aerostat batch` and Ray
Data give the same bytes, also when an actor is killed, a node is removed, and the driver is killed and run again: then
nothing is lost and nothing is there twice. The example of docs/ray.md runs there, too, as it is.

    python oracle/check_ray.py [MODEL]

Needs `pip install "ray[data]"` and aerostat with its command (or AEROSTAT_COMMAND). Uses the fixture `chat` unless a model
is named. Takes two to five minutes, and longer where the machine is busy.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "fixtures" / "chat")
COMMAND = os.environ.get("AEROSTAT_COMMAND", "aerostat")
ROWS, BLOCK = 240, 20
PARAMS = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "max_tokens": 24, "seed": 7}
NODES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
STORE_BYTES = 80 << 20
#: Nodes and workers that a busy machine holds up are not taken for dead.
PATIENCE = {"RAY_health_check_timeout_ms": "120000", "RAY_worker_register_timeout_seconds": "600", "RAY_worker_niceness": "0",
            "RAY_agent_register_timeout_ms": "600000", "RAY_raylet_start_wait_time_s": "600", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip


class Seen:
    """Generate, which tells its process and node, and takes its time."""

    def __init__(self, folder, **options):
        import aerostat.ray
        import ray

        self.inner = aerostat.ray.Generate(**options)
        Path(folder, str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())

    def __call__(self, batch):
        time.sleep(0.4)
        return self.inner(batch)


def dataset(source, folder, actors):
    import ray

    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    rows = ray.data.read_parquet(source).repartition(target_num_rows_per_block=BLOCK)
    return rows.map_batches(
        Seen,
        fn_constructor_kwargs=dict(
            folder=folder, model=MODEL, column="text", output="answer", sampling_params=PARAMS, journal=str(Path(folder).parent / "journal")
        ),
        batch_size=BLOCK,
        num_cpus=0,
        resources={"aerostat": 1},
        compute=ray.data.ActorPoolStrategy(size=actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True),
    )


def patient(ask, seconds=600):
    """The same question, asked until it has an answer: a busy machine takes more than the 30 s that Ray gives a node."""

    def asking(*arguments):
        until = time.monotonic() + seconds
        while True:
            try:
                return ask(*arguments)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)

    return asking


def cluster():
    import ray._private.services
    from ray.cluster_utils import Cluster

    ray._private.services.get_node = patient(ray._private.services.get_node)
    shared = {"resources": {"aerostat": 1}, "object_store_memory": STORE_BYTES}
    head = {"num_cpus": 2, "node_ip_address": NODES[0], "include_dashboard": False, **shared}
    made = Cluster(initialize_head=True, head_node_args=head)
    return made, [made.add_node(num_cpus=1, node_ip_address=ip, **shared) for ip in NODES[1:]]


def texts():
    return [f"Row {number}: the answer" for number in range(ROWS)]


def by_python():
    from aerostat import LLM, SamplingParams

    outputs = LLM(MODEL, progress=False).generate(texts(), SamplingParams(**PARAMS), use_tqdm=False)
    return {number: output.outputs[0].text for number, output in enumerate(outputs)}


def by_command(work):
    line = {"method": "POST", "url": "/v1/completions"}
    bodies = [{"model": MODEL, "prompt": text, **PARAMS} for text in texts()]
    rows = [{"custom_id": str(number), **line, "body": body} for number, body in enumerate(bodies)]
    (work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [COMMAND, "batch", "-m", MODEL, "-i", str(work / "in.jsonl"), "-o", str(work / "out.jsonl"), "--quiet"]
    subprocess.run(asked, check=True)
    answers = map(json.loads, (work / "out.jsonl").read_text().splitlines())
    return {int(row["custom_id"]): row["response"]["body"]["choices"][0]["text"] for row in answers}


def check(name, holds, detail=""):
    print(f"  {'ok  ' if holds else 'FAIL'} {name} {detail}", flush=True)
    return holds


def beside(kill, folder, rows):
    """The rows of a data set of which something is killed meanwhile, and how many had their answers then."""
    had = []
    thread = threading.Thread(target=kill, args=(folder, had))
    thread.start()
    found = rows.take_all()
    thread.join()
    return found, had[0]


def compare(name, rows, had, wanted):
    """Whether these are the answers to all rows, and something was left to do when ``had`` of them were there."""
    found = sorted((int(row["id"]), row["answer"].encode()) for row in rows)
    same = found == sorted((number, text.encode()) for number, text in wanted.items())
    when = f"{len(found)} rows" + (f", {had} of them before" if had else "")
    return check(name, same and all(row["error"] is None for row in rows) and had < ROWS, when)


def driver(source, target, folder, address):
    """A driver that is killed and run again."""
    import ray
    from ray.data.checkpoint import CheckpointConfig

    ray.init(address=address, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(Path(target).parent / "checkpoint"))
    dataset(source, folder, 3).write_parquet(target)


def by_the_page(work, source):
    """What the example of docs/ray.md writes, with this model and these folders, beside what the model answers."""
    import pyarrow.parquet
    import ray
    from aerostat import LLM, SamplingParams

    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "ray.md").read_text(), re.S)[1]
    changes = {'MODEL, MACHINES = "org/name", 4 ': f"MODEL, MACHINES = {MODEL!r}, 3 ", '"/shared/in"': repr(source), '"/shared': f'"{work}/page'}
    for there, here in changes.items():
        assert there in code, f"the page has no {there}"
        code = code.replace(there, here)
    exec(code, {})
    ray.data.DataContext.get_current().checkpoint_config = None
    rows = pyarrow.parquet.read_table(work / "page" / "out").to_pylist()
    asked = [[{"role": "user", "content": text}] for text in texts()]
    outputs = LLM(MODEL, progress=False).chat(asked, SamplingParams(temperature=0, max_tokens=200, seed=0), use_tqdm=False)
    return rows, {number: output.outputs[0].text for number, output in enumerate(outputs)}


def fresh(work):
    """A folder for the processes of the next run; its journal is new, too."""
    shutil.rmtree(work / "journal", ignore_errors=True)
    shutil.rmtree(work / "pids", ignore_errors=True)
    (work / "pids").mkdir()
    return str(work / "pids")


def answered(folder):
    """Rows whose answers the journals have."""
    return sum(file.read_text().count('"completion"') for file in (Path(folder).parent / "journal").glob("*.jsonl"))


def begun(folder, had):
    """Waits until some rows have their answers: Ray cannot lose what reads its files, and it is the work that is to be cut."""
    while not answered(folder):
        time.sleep(0.05)
    had.append(answered(folder))


def kill_an_actor(folder, had):
    begun(folder, had)
    os.kill(int(next(Path(folder).iterdir()).name), signal.SIGKILL)


def remove_a_node(made, nodes, folder, had):
    """The first node beside the head that an actor is on."""
    while True:
        used = {path.read_text() for path in Path(folder).iterdir()}
        found = [node for node in nodes if node.node_id in used]
        if found:
            break
        time.sleep(0.05)
    begun(folder, had)
    made.remove_node(found[0], allow_graceful=False)


def kill_the_driver(work, source, folder, address):
    """Kills it when some of its rows are written, and runs it again; the rows that were written before."""
    import pyarrow.parquet

    target = work / "out"
    command = [sys.executable, __file__, "--driver", source, str(target), folder, address]
    first = subprocess.Popen(command, env={**os.environ, "MODEL": MODEL})
    while not list(target.glob("*.parquet")):
        assert first.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.05)
    first.kill()
    first.wait()
    time.sleep(5)
    written = sum(pyarrow.parquet.read_metadata(file).num_rows for file in target.glob("*.parquet"))
    subprocess.run(command, env={**os.environ, "MODEL": MODEL}, check=True)
    return written, pyarrow.parquet.read_table(target).to_pylist()


def main():
    import pyarrow
    import pyarrow.parquet
    import ray

    work = Path(tempfile.mkdtemp())
    source = str(work / "source")
    os.mkdir(source)
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(ROWS)), "text": texts()}), f"{source}/rows.parquet")
    wanted = by_python()
    holds = [check("aerostat batch", by_command(work) == wanted, f"{ROWS} rows")]
    made, nodes = cluster()
    try:
        ray.init(address=made.address, log_to_driver=False)
        folder = fresh(work)
        holds.append(compare("Ray on three nodes", dataset(source, folder, 3).take_all(), 0, wanted))
        used = {path.read_text() for path in Path(folder).iterdir()}
        holds.append(check("an actor on each node", len(used) == 3))

        rows, answers = by_the_page(work, source)
        holds.append(compare("the example of the page", rows, 0, answers))

        folder = fresh(work)
        holds.append(compare("an actor killed", *beside(kill_an_actor, folder, dataset(source, folder, 3)), wanted))
        ray.shutdown()

        written, rows = kill_the_driver(work, source, fresh(work), made.address)
        holds.append(compare("the driver killed and run again", rows, written, wanted))
        holds.append(check("it went on where it was", 0 < written))

        ray.init(address=made.address, log_to_driver=False)
        folder = fresh(work)
        # The actor that is lost begins anew on the node that is free.
        remove = partial(remove_a_node, made, nodes)
        holds.append(compare("a node removed", *beside(remove, folder, dataset(source, folder, 2)), wanted))
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({"failures": holds.count(False)}))
    sys.exit(not all(holds))


if __name__ == "__main__":
    os.environ.update({name: value for name, value in PATIENCE.items() if name not in os.environ})
    if sys.argv[1:2] == ["--driver"]:
        MODEL = os.environ["MODEL"]
        driver(*sys.argv[2:])
    else:
        main()
