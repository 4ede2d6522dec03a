"""What Python costs beside the command: the same short prompts through `aerostat batch` and `LLM.generate`, in turns. Wall
and CPU seconds of the whole process, its peak of resident memory, and whether the answers are the same.

    python bench/python/cost.py MODEL [--prompts 4000] [--tokens 8] [--rounds 9] [--memory 400MiB] [--command aerostat]

Each round runs both, and each other round the other way around. What Python costs is the median of the rounds' own quotients,
with its quartiles, and the quotient of the least of each. On a machine that does other things compare CPU seconds: wall times
are of what it does besides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BODY = {"temperature": 0, "ignore_eos": True}
PROGRAM = """
import json, sys
from aerostat import LLM, SamplingParams
from aerostat._aerostat import peak_resident_bytes

model, memory, count, body, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]), sys.argv[5]
llm = LLM(model, memory=memory, progress=False)
outputs = llm.generate([f"Row {n}: what is it" for n in range(count)], SamplingParams(**body))
with open(out, "w") as file:
    file.writelines(json.dumps([n, output.outputs[0].text]) + "\\n" for n, output in enumerate(outputs))
print(json.dumps({"budget_bytes": llm.stats()["memory_budget_bytes"]}))
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", default="400MiB")
    parser.add_argument("--command", default="aerostat")
    return parser.parse_args()


def timed(command):
    """Wall seconds, CPU seconds with those of children, and the peak of resident bytes."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{command[0]} ended with {status}"
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main():
    given = arguments()
    parameters = {**BODY, "max_tokens": given.tokens}
    with tempfile.TemporaryDirectory() as folder:
        source, target, own = (str(Path(folder, name)) for name in ("in.jsonl", "out.jsonl", "python.jsonl"))
        with open(source, "w") as file:
            for n in range(given.prompts):
                body = {"model": "m", "prompt": f"Row {n}: what is it", **parameters}
                file.write(json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body}) + "\n")
        ways = {
            "batch": [given.command, "batch", "-m", given.model, "-i", source, "-o", target, "--restart", "--quiet", "--memory", given.memory],
            "python": [sys.executable, "-c", PROGRAM, given.model, given.memory, str(given.prompts), json.dumps(parameters), own],
        }
        found = {name: [] for name in ways}
        for number in range(given.rounds):
            for name in sorted(ways, reverse=number % 2 == 1):
                found[name].append(timed(ways[name]))
                print(name, *(f"{value:.2f}" for value in found[name][-1][:2]), f"{found[name][-1][2] >> 20} MiB", flush=True)
        rows = [json.loads(line) for line in Path(target).read_text().splitlines()]
        by_command = {int(row["custom_id"]): row["response"]["body"]["choices"][0]["text"] for row in rows}
        by_python = dict(json.loads(line) for line in Path(own).read_text().splitlines())
    print("the same answers:", by_command == by_python, len(by_python))
    for place, what in enumerate(("wall", "CPU")):
        values = {name: [one[place] for one in runs] for name, runs in found.items()}
        middle = {name: statistics.median(all) for name, all in values.items()}
        spread = {name: f"{min(all):.2f} to {max(all):.2f}" for name, all in values.items()}
        more = [100 * (python / batch - 1) for python, batch in zip(values["python"], values["batch"])]
        low, half, high = statistics.quantiles(more, n=4) if len(more) > 1 else more * 3
        print(f"{what}: {middle['batch']:.2f} s by the command ({spread['batch']}), {middle['python']:.2f} s by Python ({spread['python']})")
        least = 100 * (min(values["python"]) / min(values["batch"]) - 1)
        print(f"{what}, Python to the command: {half:+.1f} % (quartiles {low:+.1f} and {high:+.1f}), by the least {least:+.1f} %")
    print("peak of Python:", max(one[2] for one in found["python"]) >> 20, "MiB of", given.memory)


if __name__ == "__main__":
    main()
