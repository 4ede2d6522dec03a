"""The README's table of models: seconds a token and answers a night, from what `aerostat plan` and `aerostat batch --dry-run` say.

    cargo build -p aerostat-cli -p xtask
    python bench/plans/table.py --write

Nothing is downloaded and no weights are read: the models are files of full length that are holes. The plan says what a sweep
reads and how many sweeps a job takes; the disk's rate is given; how fast two cores compute is taken from the measured file
docs/benchmarks/kernels-2.json. So the table does not depend on the machine that makes it. A sweep takes as long as the longer
one of reading and computing, which is what sweeps were measured to take (docs/benchmarks.md). With --write the table goes into
README.md, between its two marks.
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


def used_parameters(folder, parameters):
    """Those that one token is multiplied with: without the embedding, and of the experts those that are chosen."""
    config = json.loads((folder / "config.json").read_text())
    used = parameters - config["vocab_size"] * config["hidden_size"]
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        width = config.get("moe_intermediate_size") or config["intermediate_size"]
        idle = experts - config["num_experts_per_tok"]
        used -= config["num_hidden_layers"] * idle * 3 * config["hidden_size"] * width
    return used


class Kernels:
    """What two cores were measured to do with BF16: with one row, bound by memory, and with many."""

    def __init__(self):
        points = json.loads((ROOT / "docs/benchmarks/kernels-2.json").read_text())["points"]
        rates = {point["rows"]: point["flops_per_second"] for point in points if point["format"] == "BF16"}
        self.one, self.many = rates[1], rates[128]

    def seconds(self, used, rows):
        return max(2 * used / self.one, 2 * used * rows / self.many)


class Model:
    """What the plans of one model in one budget say."""

    def __init__(self, binary, folder, requests, memory):
        common = ["--memory", memory, "--disk", DISKS[0], "--json"]
        plan = json.loads(run([binary, "plan", folder, *common]))
        self.used = used_parameters(folder, plan["parameters"])
        self.token_bytes = plan["expected_sweep_bytes"]["1"]
        output = requests.with_suffix(".out.jsonl")
        job = json.loads(run([binary, "batch", "-m", folder, "-i", requests, "-o", output, "--dry-run", *common]))
        self.sweeps = job["sweeps"]
        # Of experts, nearly all are read from so many rows on.
        self.job_bytes = job["plan"]["expected_sweep_bytes"]["64"]

    def token_seconds(self, disk, kernels):
        return max(self.token_bytes / disk, kernels.seconds(self.used, 1))

    def answers(self, disk, kernels):
        rows = REQUESTS * (PROMPT + ANSWER) / self.sweeps
        sweep = max(self.job_bytes / disk, kernels.seconds(self.used, rows))
        return NIGHT / (self.sweeps * sweep) * REQUESTS


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


def table(binary, xtask):
    kernels = Kernels()
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
                model = Model(binary, folder, work / "in.jsonl", memory)
                cells = []
                for disk in DISKS:
                    rate = float(disk.removesuffix("GB/s")) * 1e9
                    token, answers = model.token_seconds(rate, kernels), model.answers(rate, kernels)
                    cells.append(f"{rounded(token)} s · {rounded(answers)}")
                left = f"{name} | {size / 1e9:,.0f} GB" if i == 0 else " | "
                lines.append(f"| {left} | {memory.replace('GiB', ' GiB')} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerostat", default=ROOT / "target/debug/aerostat", type=pathlib.Path)
    parser.add_argument("--xtask", default=ROOT / "target/debug/xtask", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    text = table(options.aerostat, options.xtask)
    if not options.write:
        return print(text)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
