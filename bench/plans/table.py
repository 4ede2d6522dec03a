"""The README's table of models: seconds a token and answers a night, as `aerostat plan` and `batch --dry-run` reckon them.

    cargo build --release -p aerostat-cli -p xtask
    python bench/plans/table.py --write

Nothing is downloaded and no weights are read: the models are files of full length that are holes, and the rates of the disk
are given. What computing takes is measured on this machine, for a moment in each plan; the fastest of some tries counts, since
other programs only ever slow it down. With --write the table goes into README.md, between its two marks.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = {
    "llama3-8b": "Llama 3.1 8B",
    "qwen3-32b": "Qwen3 32B",
    "llama3-70b": "Llama 3.1 70B",
    "qwen3-30b-a3b": "Qwen3 30B-A3B",
    "mixtral-8x7b": "Mixtral 8x7B",
    "qwen3-235b-a22b": "Qwen3 235B-A22B",
}
MEMORY = ["4GiB", "16GiB"]
DISKS = ["0.5GB/s", "2GB/s", "7GB/s"]
REQUESTS, PROMPT, ANSWER = 1000, 200, 200
NIGHT = 8 * 3600
MARKS = "<!-- table: python bench/plans/table.py --write -->", "<!-- end of table -->"


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return done.stdout


def fastest(seconds, tries):
    return min(seconds() for _ in range(tries))


def cell(binary, model, requests, memory, disk, tries):
    common = ["--memory", memory, "--disk", disk, "--json"]

    def token():
        plan = json.loads(run([binary, "plan", model, *common]))
        return 1 / plan["tokens_per_second"]["1"]

    def job():
        plan = [binary, "batch", "-m", model, "-i", requests, "-o", requests.with_suffix(".out.jsonl"), "--dry-run"]
        return json.loads(run([*plan, *common]))["seconds"]

    return fastest(token, tries), NIGHT / fastest(job, tries) * REQUESTS


def rounded(value, digits=2):
    """With so many digits that mean something, and no more."""
    number = float(f"{value:.{digits}g}")
    return f"{number:,.0f}" if number >= 10 else f"{number:g}"


def requests(path):
    """Prompts that share nothing."""
    with path.open("w") as out:
        for i in range(REQUESTS):
            ids = [10 + (i * PROMPT + j) * 7919 % 30000 for j in range(PROMPT)]
            body = {"model": "m", "prompt": ids, "max_tokens": ANSWER, "ignore_eos": True}
            line = {"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body}
            out.write(json.dumps(line) + "\n")


def table(binary, xtask, tries):
    head = "| model, BF16 | on disk | memory | " + " | ".join(f"{disk.replace('GB', ' GB')}" for disk in DISKS) + " |"
    lines = [head, "|---|---:|---:|" + "---:|" * len(DISKS)]
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        requests(work / "in.jsonl")
        for shape, name in MODELS.items():
            folder = work / shape
            run([xtask, "synth", folder, "--shape", shape, "--sparse"])
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            for i, memory in enumerate(MEMORY):
                cells = []
                for disk in DISKS:
                    token, answers = cell(binary, folder, work / "in.jsonl", memory, disk, tries)
                    cells.append(f"{rounded(token)} s · {rounded(answers)}")
                left = f"{name} | {size / 1e9:,.0f} GB" if i == 0 else " | "
                lines.append(f"| {left} | {memory.replace('GiB', ' GiB')} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerostat", default=ROOT / "target/release/aerostat", type=pathlib.Path)
    parser.add_argument("--xtask", default=ROOT / "target/release/xtask", type=pathlib.Path)
    parser.add_argument("--tries", default=5, type=int)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    text = table(options.aerostat, options.xtask, options.tries)
    if not options.write:
        return print(text)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
