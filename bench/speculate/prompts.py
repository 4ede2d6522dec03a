#!/usr/bin/env python3
"""Prompts for `aerostat bench speculate`, of four kinds: whole-file edits, explanations, summaries, chat.

    python3 bench/speculate/prompts.py [EACH] > prompts.jsonl

What is edited and explained are functions of this repository's scripts, what is summarised are sections of its pages, so that
the file is the same for everybody who has the same commit. EACH: prompts of a kind; 40 unless given.
"""
import ast
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

QUESTIONS = """Why is the sky blue?
What is the difference between a list and a tuple in Python?
Give me three ideas for a birthday party for a seven-year-old.
How do I boil an egg so that the yolk stays soft?
What should I check before I buy a used bicycle?
Write a short poem about rain in the city.
How does a refrigerator keep food cold?
What are good exercises for a stiff back?
Explain to me how compound interest works.
What is the capital of Australia, and why is it not Sydney?
How can I learn to touch-type?
Write a polite e-mail to my landlord about a broken heater.
What is a hash table, in simple words?
Which spices go well with carrots?
How do noise-cancelling headphones work?
What is the difference between weather and climate?
Give me a packing list for a weekend in the mountains.
How do I remove a coffee stain from a shirt?
What does a compiler do?
Tell me a short story about a lighthouse keeper.
How do vaccines work?
What is the best way to store tomatoes?
Why do we have leap years?
How do I undo the last commit in git?
What makes a good password?
Explain recursion with an everyday example.
How can I sleep better?
What are the main causes of inflation?
How do I sharpen a kitchen knife?
What is the difference between HTTP and HTTPS?
Suggest a name for a small bakery and say why.
How does a bicycle stay upright?
What is photosynthesis?
Write a haiku about autumn.
How do I politely decline an invitation?
What is the difference between RAM and a disk?
How do birds find their way when they migrate?
What questions should I ask in a job interview?
How do I write a unit test?
Why does bread rise?""".splitlines()


def functions() -> list[tuple[str, str]]:
    """Names and texts of functions of 8 to 40 lines."""
    found = []
    for path in sorted(ROOT.glob("oracle/*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and 8 <= node.end_lineno - node.lineno <= 40:
                found.append((node.name, ast.get_source_segment(text, node)))
    return found


def sections() -> list[str]:
    """Sections of pages with 80 to 400 words, without tables and code."""
    found = []
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted(ROOT.glob("docs/*.md"))]:
        for section in re.split(r"\n#+ ", path.read_text()):
            plain = re.sub(r"```.*?```|^\|.*$", "", section, flags=re.S | re.M).strip()
            if 80 <= len(plain.split()) <= 400:
                found.append(plain)
    return found


def spread(items: list, count: int) -> list:
    """So many items, evenly from all."""
    return [items[i * len(items) // count] for i in range(min(count, len(items)))]


def main() -> None:
    each = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    known = functions()
    prompts = []
    for name, text in spread(known[::2], each):
        ask = f"Rename the function `{name}` to `{name}_checked` and keep everything else as it is. Print the whole code."
        prompts.append(("edit", f"{ask}\n\n```python\n{text}\n```"))
    for name, text in spread(known[1::2], each):
        prompts.append(("explain", f"Explain what this function does.\n\n```python\n{text}\n```"))
    for text in spread(sections(), each):
        prompts.append(("summarise", f"Summarise the following text in a few sentences.\n\n{text}"))
    for question in spread(QUESTIONS, each):
        prompts.append(("chat", question))
    for task, prompt in prompts:
        print(json.dumps({"task": task, "prompt": prompt}))


if __name__ == "__main__":
    main()
