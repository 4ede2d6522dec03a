"""`aerostat.ray` on a cluster of three nodes on this machine: rows equal the bits that one process gives, also after an
actor was killed and a node removed; a driver that was killed goes on with what is not written.

    python oracle/check_ray.py [MODEL]

Needs `pip install "ray[data]"` and aerostat. Uses the fixture `chat` unless a model is named.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MODEL = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).resolve().parents[1] / "fixtures" / "chat")
ROWS, BLOCK = 240, 20
PARAMS = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}
HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")


class Pids:
    """Generate, which tells its process and takes its time."""

    def __init__(self, folder, **options):
        import aerostat.ray

        self.inner = aerostat.ray.Generate(**options)
        Path(folder, str(os.getpid())).touch()

    def __call__(self, batch):
        time.sleep(0.4)
        return self.inner(batch)


def dataset(source, folder, actors=2):
    import ray

    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    rows = ray.data.read_parquet(source).repartition(target_num_rows_per_block=BLOCK)
    return rows.map_batches(
        Pids,
        fn_constructor_kwargs=dict(folder=folder, model=MODEL, column="text", output="answer", sampling_params=PARAMS),
        batch_size=BLOCK,
        num_cpus=0,
        resources={"aerostat": 1},
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        max_restarts=3,
        max_task_retries=3,
    )


def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "node_ip_address": HEAD, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1, resources={"aerostat": 1}, node_ip_address=ip) for ip in NODES]
    return made, nodes


def texts():
    return [f"Row {number}: the answer" for number in range(ROWS)]


def expected():
    from aerostat import LLM, SamplingParams

    outputs = LLM(MODEL, progress=False).generate(texts(), SamplingParams(**PARAMS), use_tqdm=False)
    return {number: output.outputs[0].text for number, output in enumerate(outputs)}


def compare(name, rows, wanted):
    found = sorted((int(row["id"]), row["answer"]) for row in rows)
    holds = found == sorted(wanted.items()) and all(row["error"] is None for row in rows)
    print(f"  {'ok  ' if holds else 'FAIL'} {name}: {len(found)} rows", flush=True)
    return holds


def driver(source, target, folder, address):
    """A driver that is killed and run again."""
    import ray
    from ray.data.checkpoint import CheckpointConfig

    ray.init(address=address, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(Path(target).parent / "checkpoint"))
    dataset(source, folder).write_parquet(target)


def main():
    import pyarrow
    import pyarrow.parquet
    import ray

    work = Path(tempfile.mkdtemp())
    source, folder, target = work / "source", work / "pids", work / "out"
    source.mkdir()
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(ROWS)), "text": texts()}), source / "rows.parquet")
    wanted = expected()
    made, nodes = cluster()
    holds = []
    try:
        ray.init(address=made.address, log_to_driver=False)
        holds.append(compare("as it is", dataset(str(source), str(folder)).take_all(), wanted))

        [pid.unlink() for pid in folder.iterdir()]

        def kill():
            while not (pids := list(folder.iterdir())):
                time.sleep(0.1)
            time.sleep(1)
            os.kill(int(pids[0].name), signal.SIGKILL)
            print("  killed an actor", flush=True)

        thread = threading.Thread(target=kill)
        thread.start()
        holds.append(compare("an actor killed", dataset(str(source), str(folder)).take_all(), wanted))
        thread.join()
        ray.shutdown()

        command = [sys.executable, __file__, "--driver", str(source), str(target), str(folder), made.address]
        first = subprocess.Popen(command, env={**os.environ, "MODEL": MODEL})
        while not list(target.glob("*.parquet")):
            assert first.poll() is None, "the driver ended before it could be killed"
            time.sleep(0.1)
        first.kill()
        first.wait()
        written = sum(pyarrow.parquet.read_metadata(file).num_rows for file in target.glob("*.parquet"))
        print(f"  killed the driver after {written} rows", flush=True)
        time.sleep(5)
        subprocess.run(command, env={**os.environ, "MODEL": MODEL}, check=True)
        rows = pyarrow.parquet.read_table(target).to_pylist()
        holds.append(compare("the driver killed and run again", rows, wanted) and 0 < written < ROWS)

        ray.init(address=made.address, log_to_driver=False)
        threading.Timer(4, lambda: made.remove_node(nodes[1])).start()
        holds.append(compare("a node removed", dataset(str(source), str(folder), actors=1).take_all(), wanted))
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({"failures": holds.count(False)}))
    sys.exit(not all(holds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--driver"]:
        MODEL = os.environ["MODEL"]
        driver(*sys.argv[2:])
    else:
        main()
