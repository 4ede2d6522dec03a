"""A job of prompts of mixed lengths: `aerostat batch` beside AirLLM's best padded batches, same model, same memory limit.

    python bench/peers/mixed.py --aerostat target/release/aerostat --work DIR [--prompts 200] [--whole]

Needs what run.py needs. AirLLM takes the batch (1, 2, 4, ... until it is killed) and the order that its own times say are
fastest, without its garbage collections. It would run for hours: unless `--whole` is given, a few
steps of a few batches are measured, and the rest is reckoned from them (time to read a prompt as a line over padded
tokens, time of a step as the mean), which leaves out what a longer cache costs it. Writes DIR/mixed.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aerostat
import box
import models
import run

HERE = Path(__file__).parent
VOCAB = 32000
BATCH_MAX = 64
STEPS = 4  # of a batch that is sampled


def main():
    options = arguments()
    lengths = mixed(options.prompts, options.prompt, options.answer)
    record = {"machine": run.machine(options), "prompts": len(lengths), "prompt_tokens": sum(p for p, _ in lengths),
              "answer_tokens": sum(a for _, a in lengths), "limit_bytes": options.limit_bytes}
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        for peer in (ours, theirs):
            if options.peers is None or peer.__name__ in options.peers.split(","):
                record[peer.__name__] = peer(options, lengths, Path(scratch))
                print(json.dumps(record[peer.__name__], indent=1), file=sys.stderr, flush=True)
    if "ours" in record and "theirs" in record:
        record["times"] = record["theirs"]["seconds"] / record["ours"]["seconds"]
    record["load_average"] = os.getloadavg()[0]
    (options.work / "mixed.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pair = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--aerostat", type=lambda p: Path(os.path.abspath(p)), required=True)
    parser.add_argument("--work", type=lambda p: Path(os.path.abspath(p)), required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--prompt", type=pair, default=[16, 512], metavar="LEAST,MOST")
    parser.add_argument("--answer", type=pair, default=[1, 128], metavar="LEAST,MOST")
    parser.add_argument("--limit-bytes", type=int, default=1_100_000_000, help="of the memory cgroup")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--airllm-python", type=Path, help="WORK/airllm/bin/python")
    parser.add_argument("--batch", type=int, help="only this batch of AirLLM")
    parser.add_argument("--whole", action="store_true", help="let AirLLM do all of it")
    parser.add_argument("--peers", help="ours, theirs")
    options = parser.parse_args()
    options.airllm_python = options.airllm_python or options.work / "airllm/bin/python"
    options.ghz = run.clock_ghz()
    return options


def mixed(count, prompt, answer):
    """The lengths of `aerostat bench batch`: spread evenly by steps of the golden ratio."""
    spread = lambda i, bounds, ratio: bounds[0] + int(i * ratio % 1 * (bounds[1] - bounds[0] + 1))
    return [(spread(i, prompt, 0.61803398875), spread(i, answer, 0.75487766625)) for i in range(count)]


def tokens(i, length):
    return [3 + (i * 977 + place * 131) % (VOCAB - 10) for place in range(length)]


def ours(options, lengths, scratch):
    """The whole job, from the start of the process to its last durable line."""
    source, output = scratch / "in.jsonl", scratch / "out.jsonl"
    with source.open("w") as file:
        for i, (prompt, answer) in enumerate(lengths):
            body = {"model": "m", "prompt": tokens(i, prompt), "max_tokens": answer, "ignore_eos": True, "temperature": 0}
            file.write(json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body}) + "\n")
    argv = [options.aerostat, "batch", "-m", models.folder(options.work), "-i", source, "-o", output, "--quiet",
            "--threads", options.threads, "--memory", f"{options.limit_bytes - aerostat.SLACK_BYTES}B"]
    box.drop_caches()
    ran = box.run(argv, options.limit_bytes, timeout_seconds=7200)
    made = [json.loads(line)["response"]["body"]["usage"]["completion_tokens"] for line in output.open()]
    assert sum(made) == sum(a for _, a in lengths) and len(made) == len(lengths), "not all was answered"
    return summary(ran["wall_seconds"], lengths) | {"command": run.line(argv), "cpu_seconds": ran["cpu_seconds"],
                                                    "peak_cgroup_bytes": ran["peak_cgroup_bytes"]}


def theirs(options, lengths, scratch):
    """AirLLM, measured whole or reckoned from a part, with the batch that is fastest by its own times."""
    told = min(sampled(options, lengths, scratch), key=lambda told: told["reckoned_seconds"])
    if options.whole:
        begin = time.monotonic()
        air(options, ordered(lengths, told["batch"])[told["order"]], scratch, None)
        return summary(time.monotonic() - begin, lengths) | told
    return summary(told["reckoned_seconds"], lengths) | told


def sampled(options, lengths, scratch):
    """Some steps of the first, the middle and the last batch of each order, by size, up to the first that dies."""
    size, all_of = options.batch or 1, []
    while size <= (options.batch or BATCH_MAX):
        orders = ordered(lengths, size)
        some = [batch for order in orders.values() for batch in (order[0], order[len(order) // 2], order[-1])]
        try:
            ran = air(options, some, scratch, STEPS)
        except box.Failed as error:
            print(f"batches of {size}: {error}", file=sys.stderr)
            break
        best = min(orders, key=lambda name: reckoned(orders[name], ran))
        all_of.append({"batch": size, "order": best, "batches": len(orders[best]),
                       "reckoned_seconds": reckoned(orders[best], ran), "measured": ran})
        print(f"batches of {size}: {all_of[-1]['reckoned_seconds']:.0f} s", file=sys.stderr, flush=True)
        size *= 2
    if not all_of:
        raise SystemExit("not even one prompt fits")
    return all_of


def ordered(lengths, size):
    orders = {"by answer": lambda i: lengths[i][::-1], "by prompt": lambda i: lengths[i]}
    return {name: batches(lengths, sorted(range(len(lengths)), key=key), size) for name, key in orders.items()}


def batches(lengths, order, size):
    some = [order[i : i + size] for i in range(0, len(order), size)]
    return [{"prompts": [tokens(i, lengths[i][0]) for i in batch], "answer": max(lengths[i][1] for i in batch)}
            for batch in some]


def air(options, some, scratch, steps_max):
    file = scratch / "batches.json"
    file.write_text(json.dumps(some))
    argv = [options.airllm_python, HERE / "airllm_mixed.py", models.folder(options.work), file, "--no-gc",
            "--split", models.split(options.work, options.airllm_python), "--threads", options.threads]
    argv += ["--steps-max", steps_max] if steps_max else []
    box.drop_caches()
    output = box.run(argv, options.limit_bytes, timeout_seconds=48 * 3600, environment={"HF_HUB_OFFLINE": "1"})["output"]
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def reckoned(all_of, ran):
    """Seconds of all batches, from those that ran."""
    reads = [(r["rows"] * r["prompt"], r["stamps"][1] - r["stamps"][0]) for r in ran]
    slope, base = statistics.linear_regression(*zip(*reads))
    step = statistics.mean(b - a for r in ran for a, b in zip(r["stamps"][1:], r["stamps"][2:]))
    padded = lambda batch: len(batch["prompts"]) * max(map(len, batch["prompts"]))
    return sum(base + slope * padded(batch) + (batch["answer"] - 1) * step for batch in all_of)


def summary(seconds, lengths):
    return {"seconds": seconds, "tokens_per_second": sum(a for _, a in lengths) / seconds}


if __name__ == "__main__":
    main()
