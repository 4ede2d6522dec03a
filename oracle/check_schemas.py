#!/usr/bin/env python3
"""Ask a real model for answers to many JSON schemas, and validate every one with another implementation.

usage: check_schemas.py MODEL BINARY SUITE [--count N] [--max-tokens N]

SUITE is JSON-Schema-Test-Suite, or anything that has its `tests/draft2020-12`; the source package of jsonschema does:
`pip download --no-deps --no-binary :all: jsonschema==4.25.1 && tar xzf jsonschema-4.25.1.tar.gz`, then
`jsonschema-4.25.1/json`. Needs `pip install jsonschema`. A schema that the binary refuses is an error line of its own and
does not count; the first N that are served do. Exits 1 when fewer than N are, or when one answer does not validate.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

from jsonschema import Draft202012Validator

PROMPT = "Write an example of a JSON value that this schema describes: "


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("binary")
    parser.add_argument("suite", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=200)
    args = parser.parse_args()
    schemas = list(collect(args.suite))
    with tempfile.TemporaryDirectory() as scratch:
        answers, refused = ask(args, schemas, pathlib.Path(scratch))
    served = [i for i in range(len(schemas)) if i in answers]
    whole = [i for i in served if answers[i][1] == "stop"][: args.count]
    failed = 0
    for i in whole:
        where, schema = schemas[i]
        fault = validate(schema, answers[i][0])
        if fault:
            failed += 1
            print(f"{where}: {answers[i][0]!r}: {fault}")
    kinds = collections.Counter(where.split(":")[0] for where, _ in (schemas[i] for i in whole))
    print(f"{len(schemas)} schemas: {len(refused)} refused, {len(served)} served, of which "
          f"{sum(answers[i][1] == 'length' for i in served)} reached --max-tokens")
    print(f"{len(whole)} answers, {len(whole) - failed} valid, from {len(kinds)} files")
    sys.exit(0 if len(whole) >= args.count and not failed else 1)


def collect(suite):
    """(where, schema) of every schema that says something about values, once each."""
    seen = set()
    for path in sorted((suite / "tests/draft2020-12").glob("*.json")):
        for case in json.loads(path.read_text()):
            schema = case["schema"]
            key = json.dumps(schema, sort_keys=True)
            # References to other documents need a server.
            if isinstance(schema, dict) and key not in seen and "http://localhost" not in key:
                seen.add(key)
                yield f"{path.name}: {case['description']}", schema


def ask(args, schemas, scratch):
    """Answers and their finish reasons by number of schema, and the numbers of those that were refused."""
    source, output, errors = (scratch / name for name in ("in.jsonl", "out.jsonl", "errors.jsonl"))
    with source.open("w") as file:
        for i, (_, schema) in enumerate(schemas):
            form = {"type": "json_schema", "json_schema": {"name": "value", "schema": schema, "strict": True}}
            messages = [{"role": "user", "content": PROMPT + json.dumps(schema)}]
            body = {"model": "m", "messages": messages, "response_format": form, "max_tokens": args.max_tokens,
                    "temperature": 0}
            line = {"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    call = [args.binary, "batch", "-m", args.model, "-i", source, "-o", output, "--errors", errors]
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"exit {done.returncode}: {done.stderr}")
    answers = {}
    for line in output.read_text().splitlines():
        result = json.loads(line)
        choice = result["response"]["body"]["choices"][0]
        answers[int(result["custom_id"])] = choice["message"]["content"], choice["finish_reason"]
    refused = [json.loads(line)["custom_id"] for line in errors.read_text().splitlines()] if errors.exists() else []
    return answers, refused


def validate(schema, text):
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"is not JSON: {error}"
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    return "; ".join(errors)


if __name__ == "__main__":
    main()
