"""A wheel as users get it: what its tag promises, and what it does in a clean environment.

    python oracle/check_wheel.py WHEEL [--python PYTHON …] [--model MODEL] [--from-source]

The tag: no part asks for a newer glibc than its name says, nor for libraries that a system may lack. Then for each PYTHON (this
one, unless some are named) a virtual environment of its own, into which the wheel is installed with what it requires and
nothing else: the command, `python -m aerostat`, and the first lines of README.md and docs/python.md run there. Needs readelf
(binutils), and a network or a cache for numpy. MODEL is the fixture `chat` unless one is named. A wheel that pip built of the
source distribution (`--from-source`) is for the machine that built it, and has no command: `python -m aerostat` says so.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Libraries that every Linux of manylinux has.
LIBRARIES = {"libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "libutil.so.1"}
#: docs/python.md, README.md and AirLLM's first page.
PROGRAM = """
import sys
MODEL = sys.argv[1]
import time
begun = time.process_time()
import aerostat
took = time.process_time() - begun
assert not {"numpy", "torch"} & set(sys.modules), "something heavy was imported"
from aerostat.airllm import AutoModel
from aerostat import LLM, SamplingParams

llm = LLM(MODEL, memory="1GiB")
outputs = llm.generate(["Why is the sky blue?", "And the sea?"], SamplingParams(temperature=0, max_tokens=16))
assert [len(output.outputs) for output in outputs] == [1, 1] and all(output.outputs[0].text for output in outputs)

model = AutoModel.from_pretrained(MODEL)
tokens = model.tokenizer(["What is the capital of United States?"], return_tensors="pt",
                         return_attention_mask=False, truncation=True, max_length=128, padding=False)
out = model.generate(tokens["input_ids"].cuda(), max_new_tokens=20, use_cache=True, return_dict_in_generate=True)
assert model.tokenizer.decode(out.sequences[0])
print(f"{aerostat.__version__} {took * 1000:.0f}")
"""
failures = 0


def check(name, holds, detail=""):
    global failures
    failures += not holds
    print(f"  {'ok  ' if holds else 'FAIL'} {name} {detail}", flush=True)


def tag(wheel):
    """What programs and libraries in the wheel ask of a system."""
    named = re.search(r"manylinux_(\d+)_(\d+)_x86_64", wheel.name)
    check("its name has a tag of manylinux", named is not None, wheel.name)
    promised = (int(named[1]), int(named[2])) if named else (0, 0)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        check("it has the command, types and stubs", all(any(name.endswith(end) for name in names) for end in ("scripts/aerostat", "py.typed", "_aerostat.pyi")))
        check("no file of another system is in it", not [name for name in names if "__pycache__" in name or name.endswith(".pyc")])
        for name in names:
            path = archive.extract(name, folder)
            if Path(path).is_dir() or Path(path).read_bytes()[:4] != b"\x7fELF":
                continue
            told = subprocess.run(["readelf", "-dVW", path], capture_output=True, text=True, check=True).stdout
            needs = set(re.findall(r"\(NEEDED\).*\[(.*)\]", told))
            glibc = max((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", told))
            check(f"{name}: glibc {glibc[0]}.{glibc[1]} is enough", glibc <= promised, f"(promised {promised[0]}.{promised[1]})")
            check(f"{name}: libraries", needs <= LIBRARIES, " ".join(sorted(needs)))


def command_runs(run, here, version, model):
    """The command, and what it says its version is."""
    command, module = run("aerostat", "--version"), run(here / "python", "-m", "aerostat", "--version")
    # The first line; others say how it was built.
    said = command.stdout.partition("\n")[0]
    check(f"{version}: the command, and python -m", command.returncode == 0 and command.stdout == module.stdout, said)
    answer = run("aerostat", "run", model, "Explain quantum computing in one sentence.", "--max-new-tokens", "8", "--quiet")
    check(f"{version}: aerostat run", answer.returncode == 0 and answer.stdout.strip() != "", answer.stderr[-200:])
    return said.split()[-1]


def installed(wheel, python, model, from_source):
    """In an environment that has nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        here = Path(folder, "bin")
        clean = {**{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}, "PATH": f"{here}:/usr/bin:/bin"}

        def run(*command, **how):
            return subprocess.run([str(part) for part in command], env=clean, cwd=folder, capture_output=True, text=True, **how)

        run(here / "python", "-m", "pip", "install", "--quiet", wheel.resolve(), check=True)
        version = run(here / "python", "--version").stdout.strip()
        if from_source:
            module, said = run(here / "python", "-m", "aerostat", "--version"), None
            check(f"{version}: python -m says that there is no command", module.returncode != 0 and "not installed" in module.stderr, module.stderr[-200:])
        else:
            said = command_runs(run, here, version, model)
        told = run(here / "python", "-W", "error", "-c", PROGRAM, model)
        check(f"{version}: the first lines of the pages", told.returncode == 0, told.stderr[-600:])
        if told.returncode == 0:
            number, took = told.stdout.split()
            check(f"{version}: its version is the command's", said in (None, number), number)
            check(f"{version}: it is imported within 150 ms", int(took) < 150, f"{took} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", action="append")
    parser.add_argument("--model", default=str(ROOT / "fixtures" / "chat"))
    parser.add_argument("--from-source", action="store_true")
    given = parser.parse_args()
    if not given.from_source:
        tag(given.wheel)
    for python in given.python or [sys.executable]:
        installed(given.wheel, python, given.model, given.from_source)
    print("failures:", failures)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
