"""Measure Aerostat and its peers side by side: same machine, same weights, same memory limit, interleaved.

    python bench/peers/run.py --aerostat target/release/aerostat --work DIR

Needs Linux and root (memory cgroup, page cache, loop device). Peers that are not installed are skipped by name, with
the lines that install them. Writes DIR/results-CASE.json and .md after every measurement.
"""

import argparse
import ast
import dataclasses
import itertools
import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

import aerostat
import box
import llama_cpp
import models
import report

HERE = Path(__file__).parent
PROMPT_TOKENS = 4  # as in steps.py
ROWS = (1, 50)
STEPS = {"streamed": 6, "fast": 6, "rows": 18}
FEW = 2  # steps that are left out: the prompt, and what is read or built once
SMALL_BYTES = 200_000_000
PROMPT, GENERATE = 512, 64  # of the resident case, unless options say otherwise
BUSY = 0.5  # load average


@dataclasses.dataclass
class Place:
    """Where the forms of the model are, and the limit of the memory cgroup."""

    folder: Path
    gguf: Path
    split: Path
    limit_bytes: int | None


@dataclasses.dataclass
class Peer:
    """`command(place, rows, steps)` is an argv; `result(output, steps)` what it tells of its steps."""

    name: str
    needs: Path
    file: str
    cases: tuple
    command: object
    result: object


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options.work.mkdir(parents=True, exist_ok=True)
    if os.getloadavg()[0] > BUSY:
        print("other work runs here; peers whose threads spin while they wait suffer most from it", file=sys.stderr)
    record = {"machine": machine(options), "skipped": {}, "steps": [], "resident": []}
    all_peers = list(installed([peer for peer in peers(options) if wanted(options, peer.name)], record))
    for case in [options.case] if options.case else ["streamed", "fast", "resident"]:
        {"streamed": streamed, "fast": fast, "resident": resident}[case](options, all_peers, record)
    save(options, record)
    print(results(options, "md").read_text())


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerostat", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for models and results; about 16 GB")
    parser.add_argument("--case", choices=["streamed", "fast", "resident"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", help="only these, separated by commas")
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",") if n], default=ROWS)
    parser.add_argument("--formats", default=",".join(models.FORMATS), help="of the resident case")
    parser.add_argument("--prompt", type=int, default=PROMPT, help="tokens to read in each format")
    parser.add_argument("--generate", type=int, default=GENERATE, help="tokens to answer in each format")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit-bytes", type=int, default=1_100_000_000, help="of the memory cgroup")
    parser.add_argument("--ghz", type=float, default=clock_ghz(), help="the clock, for cycles per byte")
    parser.add_argument("--llama", type=Path, help="folder of llama.cpp's programs; WORK/llama/bin")
    parser.add_argument("--airllm-python", type=Path, help="WORK/airllm/bin/python")
    parser.add_argument("--python", type=Path, help="with transformers and accelerate; WORK/transformers/bin/python")
    options = parser.parse_args()
    options.work, options.aerostat = (Path(os.path.abspath(path)) for path in (options.work, options.aerostat))
    options.llama = options.llama or options.work / "llama/bin"
    options.airllm_python = options.airllm_python or options.work / "airllm/bin/python"
    options.python = options.python or options.work / "transformers/bin/python"
    return options


def peers(options):
    """Everyone, in the order in which they take turns."""
    threads = options.threads

    def ours(budget):
        return lambda place, rows, steps: aerostat.streamed(
            options.aerostat, place.folder, prompts(rows), steps, budget(place), threads)

    def theirs(python, script, *extra):
        return lambda place, rows, steps: [
            python, HERE / script, place.folder, "--rows", rows, "--steps", steps, "--threads", threads,
            *(place.split if word == "SPLIT" else word for word in extra)]

    def batched(place, rows, steps):
        return llama_cpp.batched(options.llama, place.gguf, rows, steps, PROMPT_TOKENS, threads)

    def whole(place):
        return place.limit_bytes and place.limit_bytes - aerostat.SLACK_BYTES

    limited, every = ("streamed", "fast"), ("streamed", "fast", "rows")
    air, plain = options.airllm_python, options.python
    binary, llama = options.aerostat, options.llama / "llama-batched-bench"
    return [
        Peer("aerostat", binary, "aerostat.py", every, ours(whole), aerostat.streamed_result),
        Peer("aerostat-200MB", binary, "aerostat.py", limited, ours(lambda _: SMALL_BYTES), aerostat.streamed_result),
        Peer("llama.cpp", llama, "llama_cpp.py", every, batched, llama_cpp.batched_result),
        Peer("transformers", plain, "transformers_run.py", every, theirs(plain, "transformers_run.py"), last_line),
        Peer("accelerate", plain, "accelerate_offload.py", limited, theirs(plain, "accelerate_offload.py"), last_line),
        Peer("airllm-nogc", air, "airllm_run.py", limited, theirs(air, "airllm_run.py", "--split", "SPLIT", "--no-gc"),
             last_line),
        Peer("airllm", air, "airllm_run.py", limited, theirs(air, "airllm_run.py", "--split", "SPLIT"), last_line),
    ]


def installed(everyone, record):
    """Those that are there; the others are noted and named with the lines of their file that install them."""
    for peer in everyone:
        if peer.needs.exists():
            yield peer
            continue
        text = ast.get_docstring(ast.parse((HERE / peer.file).read_text()))
        record["skipped"][peer.name] = f"{peer.needs} is missing. " + text[max(text.find("Install"), 0):]
        print(f"skipped {peer.name}: {record['skipped'][peer.name]}", file=sys.stderr)


def streamed(options, everyone, record):
    """Case A: more weights than memory, on the disk that is there."""
    place = Place(models.folder(options.work), models.gguf(options.work, options.python),
                  models.split(options.work, options.airllm_python), options.limit_bytes)
    take_turns(options, "streamed", place, everyone, record)


def fast(options, everyone, record):
    """Case B: the same on a device as fast as memory, where what is left is the processor's work."""
    models.folder(options.work)
    sources = [models.folder(options.work), models.gguf(options.work, options.python),
               models.split(options.work, options.airllm_python)]
    with box.fast_device(options.work, [source for source in sources if source and source.exists()]) as disk:
        folder, gguf, split = (source and disk / source.name for source in sources)
        take_turns(options, "fast", Place(folder, gguf, split, options.limit_bytes), everyone, record)


def resident(options, everyone, record):
    """Case C: no limit. Rows that share a step, then prompt and generation in each format."""
    folder, gguf = models.folder(options.work), models.gguf(options.work, options.python)
    take_turns(options, "rows", Place(folder, gguf, None, None), everyone, record)
    for repeat in range(options.repeats):
        for name in filter(None, options.formats.split(",")):
            file = gguf if name == "bf16" else models.quantised(options.work, options.llama, name)
            if file:
                one_format(options, record, {"format": name, "threads": options.threads, "repeat": repeat}, file)


def one_format(options, record, point, file):
    """llama.cpp and Aerostat, one after the other, on the same file."""
    sides = {
        "llama.cpp": (llama_cpp.resident(options.llama, file, options.prompt, options.generate, point["threads"]),
                      llama_cpp.resident_result),
        "aerostat": (aerostat.resident(options.aerostat, file, options.prompt, options.generate, point["threads"]),
                     aerostat.resident_result),
    }
    for name, (argv, result) in sides.items():
        if wanted(options, name) and Path(argv[0]).exists():
            entry = {**point, "peer": name, "command": line(argv)}
            try:
                entry |= result(box.run(argv)["output"])
            except box.Failed as error:
                entry["failed"] = str(error)
            note(options, record, "resident", entry)


def take_turns(options, case, place, everyone, record):
    """Every peer once, then again, so that a slow minute of the machine hits all of them alike."""
    for repeat in range(options.repeats):
        for rows in options.rows:
            for peer in everyone:
                if case in peer.cases:
                    entry = {"case": case, "peer": peer.name, "rows": rows, "repeat": repeat}
                    try:
                        entry |= measure(peer, place, rows, STEPS[case])
                    except box.Failed as error:
                        entry |= {"failed": str(error), "command": line(peer.command(place, rows, STEPS[case]))}
                    note(options, record, "steps", entry)


def measure(peer, place, rows, steps):
    """One cold run; a second, short one where the peer does not tell when its steps began and ended."""
    argv = peer.command(place, rows, steps)
    ran = cold(argv, place)
    told = peer.result(ran.pop("output"), steps)
    entry = {**ran, "steps": steps, "tokens": told.get("tokens"), "command": line(argv)}
    if "stamps" in told:
        one, two = told["stamps"][FEW], told["stamps"][-1]
        entry["steps_seconds"] = [b[0] - a[0] for a, b in itertools.pairwise(told["stamps"])]
        seconds, cpu, read = ((b - a) / (steps - FEW) for a, b in zip(one, two, strict=True))
    else:
        short = cold(peer.command(place, rows, FEW), place)
        less = peer.result(short["output"], FEW)
        cpu, read = ((ran[key] - short[key]) / (steps - FEW) for key in ("cpu_seconds", "read_bytes"))
        seconds = told.get("step_seconds")
        if seconds is None:
            seconds = (told["all_steps_seconds"] - less["all_steps_seconds"]) / (steps - FEW)
    return entry | {"step_seconds": seconds, "step_cpu_seconds": cpu, "step_read_bytes": max(read, 0),
                    "tokens_per_second": rows / seconds}


def cold(argv, place):
    box.drop_caches()
    return box.run(argv, place.limit_bytes, environment={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})


def last_line(output, _):
    """What the Python peers print after everything else."""
    return json.loads(output.strip().splitlines()[-1])


def prompts(rows):
    """The same as in steps.py."""
    return [[3 + (row * 977 + place * 131) % 31990 for place in range(PROMPT_TOKENS)] for row in range(rows)]


def wanted(options, name):
    return options.peers is None or name in options.peers.split(",")


def note(options, record, table, entry):
    """Keep an entry, save everything, and say it in a line."""
    record[table].append(entry | {"load_average": os.getloadavg()[0]})
    save(options, record)
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in entry.items()
             if key not in ("command", "commands", "tokens", "steps_seconds")}
    print(time.strftime("%H:%M:%S"), *(f"{key}={value}" for key, value in shown.items()), file=sys.stderr, flush=True)


def save(options, record):
    results(options, "json").write_text(json.dumps(record, indent=1))
    results(options, "md").write_text(report.markdown(record, statistics.median))
    for case, entries in report.cases(record).items():
        command = f"python bench/peers/run.py --case {case} --repeats {options.repeats}"
        machine = {"cpu": record["machine"]["processor"], "threads": options.threads,
                   "system": record["machine"]["system"]}
        told = {"command": command, "machine": machine, "case": case, "results": entries}
        (options.work / f"peers-{case}.json").write_text(json.dumps(told, indent=1) + "\n")


def results(options, suffix):
    return options.work / f"results-{options.case or 'all'}.{suffix}"


def machine(options):
    model = options.work / models.SHAPE / "model.safetensors"
    models.folder(options.work)
    return {"processor": processor("model name"), "threads": options.threads, "ghz": options.ghz,
            "system": platform.platform(), "memory_limit_bytes": options.limit_bytes,
            "weight_bytes": model.stat().st_size, "begun": time.strftime("%Y-%m-%d %H:%M"),
            "aerostat": box.call(options.aerostat, "--version")}


def processor(key):
    """A field of the first core in /proc/cpuinfo."""
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith(key):
            return row.split(":", 1)[1].strip()
    return ""


def clock_ghz():
    return float(processor("cpu MHz") or 0) / 1000


def line(argv):
    return " ".join(str(word) for word in argv)


if __name__ == "__main__":
    main()
