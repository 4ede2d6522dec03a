#!/usr/bin/env python3
"""Run a model of at least twenty times the memory of a graphics card that it may use, and check what it took.

usage: check_vram.py BINARY [--model FOLDER] [--vram 64MiB] [--memory 192MiB] [--device gpu]

Without --model, `cargo xtask synth` writes 1.5 GB of random weights in a shape of Llama's (14 blocks of TinyLlama) to a
temporary folder first. One prompt is scored with all logits of its last position:
 - through --vram and --memory: device memory by our own count and by its allocator's report are at most --vram, the peak
   of the process (as its parent sees it, and as it says) at most --memory, and what was sent is what the plan streams and
   what stays in memory of the host, as often as it swept;
 - with all weights in memory of the device, and with all in memory of the host: the same bits;
 - on the CPU: within 2e-3 of the largest logit.
Exits 1 if something is not so. A software driver will do (`apt-get install mesa-vulkan-drivers`).
"""

import argparse
import hashlib
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

TIMES = 20
TOKENS = ",".join(str(3 + 7 * i % 301) for i in range(24))
TOLERANCE = 2e-3
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--model")
    parser.add_argument("--vram", default="64MiB")
    parser.add_argument("--memory", default="192MiB")
    parser.add_argument("--device", default="gpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or synth(pathlib.Path(folder) / "model")
        sys.exit(0 if check(args, model) else 1)


def synth(folder):
    root = pathlib.Path(__file__).resolve().parent.parent
    call = ["cargo", "xtask", "synth", str(folder), "--shape", "tinyllama-1.1b", "--layers", "14"]
    subprocess.run(call, cwd=root, check=True)
    return str(folder)


def check(args, model):
    vram, memory = size(args.vram), size(args.memory)
    # First, since what a child took can only grow.
    bounds = ["--vram", args.vram, "--memory", args.memory]
    logits, stats, seconds = score(args, model, ["--device", args.device, *bounds])
    seen = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    weights = json.loads(run(args, ["plan", model, "--context", "64", "--json"]))["weight_bytes"]
    gpu, sweeps = stats["gpu"], stats["sweeps"]
    streamed = stats["streamed_bytes_per_sweep"]
    print(f"{stats['device']}: {weights} bytes of weights, {weights / vram:.1f} times --vram; {sweeps} sweeps in {seconds:.1f} s")
    good = [
        at_least("weights", weights, TIMES * vram),
        at_most("device memory, our count", gpu["memory_peak_bytes"], vram),
        at_most("device memory, its allocator", gpu["reserved_bytes"] or 0, vram),
        at_most("peak of the process, as it says", stats["memory_peak_bytes"], memory),
        at_most("peak of the process, as its parent sees it", seen, memory),
        at_least("bytes sent", gpu["uploaded_bytes"], sweeps * streamed),
        at_most("bytes sent", gpu["uploaded_bytes"], sweeps * (streamed + stats["pinned_bytes"])),
        at_most("waits", gpu["waits"], gpu["turns"] + gpu["read_backs"]),
    ]
    ample = str(weights * 3)
    for name, more in [("in device memory", ["--vram", ample]), ("in host memory", ["--vram", args.vram])]:
        again, stats, seconds = score(args, model, ["--device", args.device, "--memory", ample, *more])
        print(f"all {name}: {stats['gpu']['uploaded_bytes']} bytes sent, {seconds:.1f} s")
        good.append(equal(f"bits with weights {name}", digest(again), digest(logits)))
    cpu, _, _ = score(args, model, ["--device", "cpu", "--memory", ample])
    largest = max(abs(float(v)) for v in cpu)
    error = max(abs(float(a) - float(b)) for a, b in zip(cpu, logits, strict=True)) / largest
    good.append(at_most("of the largest logit, against the CPU", error, TOLERANCE))
    return all(good)


def score(args, model, flags):
    begun = time.monotonic()
    call = ["score", model, "--token-ids", TOKENS, "--logits", "--json", "--threads", "1", *flags]
    answer = json.loads(run(args, call), parse_float=str)
    return answer["results"][0]["logits_last"], answer["stats"], time.monotonic() - begun


def run(args, call):
    done = subprocess.run([args.binary, *call], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(call)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def size(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]iB|)", text).groups()
    return int(number) * UNITS[unit]


def digest(logits):
    return hashlib.sha256(" ".join(logits).encode()).hexdigest()[:16]


def verdict(good, text):
    print(f"{'ok' if good else 'WRONG':6} {text}", flush=True)
    return good


def at_most(what, found, bound):
    return verdict(found <= bound, f"{what}: {found}, at most {bound}")


def at_least(what, found, bound):
    return verdict(found >= bound, f"{what}: {found}, at least {bound}")


def equal(what, found, want):
    return verdict(found == want, f"{what}: {found}" + ("" if found == want else f", not {want}"))


if __name__ == "__main__":
    main()
