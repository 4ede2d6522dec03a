#!/usr/bin/env python3
"""Show that the results of an aerostat binary do not depend on how it runs.

usage: exactness.py BINARY MODEL [--token-ids 5,6,7] [--kv f32] [--device gpu]

Scores one prompt with all logits of its last position over and over: at memory budgets from the least that the plan
allows to resident, with one and two threads, every instruction set of this machine, several tile sizes and prefill
chunks, alone and among 16 other prompts. Every result must equal the first, digit for digit. Exits 1 otherwise.

With `--device gpu` (or gpu:N) on that adapter: device memory from the least that the plan allows to all weights, each with
the least and with ample memory of the host, tile sizes, prefill chunks, rows of a sweep, and company.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys

OTHERS = 16
TILE_BYTES = [4096, 65536, 1 << 20]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--token-ids", default=",".join(str(3 + 7 * i % 101) for i in range(33)))
    parser.add_argument("--kv", default="f32")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    reference, different, seen = None, 0, 0
    for label, flags, place in ways(args):
        result, error = score(args, flags, place)
        reference = reference or result
        same = error is None and result == reference
        different += not same
        seen += 1
        digest = hashlib.sha256(result.encode()).hexdigest()[:12] if result else error
        print(f"{'same' if same else 'DIFFERENT':9}  {label:44}  {digest}", flush=True)
    print(f"{seen - different} of {seen} ways give the same results")
    sys.exit(1 if different or not reference else 0)


def ways(args):
    """(label, flags, place of the prompt among others or None), the plainest first."""
    if args.device.startswith("gpu"):
        yield from ways_on_a_device(args)
        return
    yield "default", [], None
    least, weights = plan(args)
    for quarters in (0, 1, 2, 8):
        budget = least + weights * quarters // 4
        yield f"memory {budget} (least + {quarters}/4 of weights)", ["--memory", str(budget)], None
    for threads in (1, 2):
        yield f"threads {threads}", ["--threads", str(threads)], None
    for isa in instruction_sets():
        yield f"isa {isa}", ["--isa", isa], None
    for size in TILE_BYTES:
        yield f"tile bytes {size}", ["--tile-bytes", str(size)], None
    length = len(args.token_ids.split(","))
    for chunk in (1, 7, length):
        yield f"prefill chunk {chunk}", ["--prefill-chunk", str(chunk)], None
    for place in (0, OTHERS // 2, OTHERS):
        yield f"among {OTHERS} others, place {place}", [], place
    yield "among others, least memory, chunk 7, 1 thread", ["--memory", str(least), "--prefill-chunk", "7", "--threads", "1"], 3
    yield "among others, portable, small tiles", ["--isa", instruction_sets()[0], "--tile-bytes", str(TILE_BYTES[0])], 5


def ways_on_a_device(args):
    """The same on a graphics card, or on a program that does the work of one."""
    least, weights = plan(args)
    yield "all on the device", ["--vram", str(2 * weights + (1 << 29))], None
    vram = least_device_memory(args)
    for quarters in (0, 1, 2, 3):
        for name, memory in (("the least", least + (1 << 24)), ("ample", least + 3 * weights)):
            some = vram + weights * quarters // 4
            yield f"device memory {some}, {name} of the host's", ["--vram", str(some), "--memory", str(memory)], None
    for size in TILE_BYTES:
        yield f"tile bytes {size}", ["--tile-bytes", str(size), "--vram", str(vram + (1 << 24))], None
    for chunk in (1, 7):
        yield f"prefill chunk {chunk}", ["--prefill-chunk", str(chunk)], None
    for rows in (1, 3, 40):
        yield f"at most {rows} rows in a sweep", ["--rows-max", str(rows)], None
    for place in (0, OTHERS // 2, OTHERS):
        yield f"among {OTHERS} others, place {place}", [], place
    yield "among others, least memory, chunk 7", ["--vram", str(vram + (1 << 24)), "--prefill-chunk", "7"], 3


def least_device_memory(args):
    """What the message says that refuses less."""
    call = [args.binary, "score", args.model, "--device", args.device, "--vram", "1MiB", "--token-ids", args.token_ids]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.search(r"GPU memory of .* needs at least (\d+) MiB of it", done.stderr)
    if not found:
        sys.exit(f"a device memory of 1 MiB was not refused: {done.stderr}")
    return (int(found[1]) + 1) << 20


def plan(args):
    call = [args.binary, "plan", args.model, "--kv", args.kv, "--json", "--device", args.device]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return answer["minimum_bytes"], answer["weight_bytes"]


def instruction_sets():
    """Those that the processor reports; the binary refuses others."""
    flags = pathlib.Path("/proc/cpuinfo")
    words = set(flags.read_text().split()) if flags.exists() else set()
    found = ["portable"]
    if {"avx2", "fma", "f16c"} <= words:
        found.append("avx2")
    if {"avx512f", "avx512bw", "avx512vl"} <= words:
        found.append("avx512")
    return found


def score(args, flags, place):
    """The result of the prompt, as text with the digits that the binary printed."""
    prompts = [args.token_ids]
    if place is not None:
        ids = args.token_ids.split(",")
        others = [",".join(ids[i % 5:2 + i % 5 + 2 * i]) for i in range(OTHERS)]
        prompts = others[:place] + prompts + others[place:]
    call = [args.binary, "score", args.model, "--logits", "--json", "--kv", args.kv, "--device", args.device, *flags]
    for ids in prompts:
        call += ["--token-ids", ids]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return None, f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    results = json.loads(done.stdout, parse_float=lambda digits: "float " + digits)["results"]
    if len(results) != len(prompts):
        return None, f"{len(results)} results for {len(prompts)} prompts"
    result = results[place or 0]
    result.pop("index", None)
    return json.dumps(result, sort_keys=True), None


if __name__ == "__main__":
    main()
