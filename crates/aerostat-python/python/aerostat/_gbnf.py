"""Grammars in GBNF, as llama.cpp and vLLM's scripts write them, in the form of Lark."""

from __future__ import annotations

import re

from .errors import UsageError

_RULE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)\s*::=")
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>\#[^\n]*) | (?P<text>"(?:[^"\\\n]|\\.)*") | (?P<set>\[(?:[^\]\\]|\\.)*\])
    | (?P<name>[A-Za-z_][A-Za-z0-9_-]*) | (?P<times>\{\s*\d*\s*,?\s*\d*\s*\}) | (?P<sign>[|()*+?.])""",
    re.VERBOSE,
)


def is_gbnf(grammar: str) -> bool:
    """Whether it has rules as GBNF writes them."""
    return any(_RULE.match(line.strip()) for line in grammar.splitlines())


def to_lark(grammar: str) -> str:
    """The same grammar for Lark; its first rule is called ``root``."""
    rules = _rules(grammar)
    if "root" not in rules:
        raise UsageError("grammar: GBNF begins with the rule root ::= …")
    # Lark tells rules from terminals by their case, and knows no dashes.
    names = {name: f"{name.strip('_').lower().replace('-', '_') or 'rule'}_{number}" for number, name in enumerate(rules)}
    lines = [f"start: {names['root']}"]
    lines += [f"{names[name]}: {_body(name, body, names)}" for name, body in rules.items()]
    return "\n".join(lines) + "\n"


def _rules(grammar: str) -> dict[str, str]:
    """Bodies by names: a rule ends where the next begins."""
    rules: dict[str, str] = {}
    current = None
    for line in grammar.splitlines():
        begun = _RULE.match(line.strip())
        if begun is not None:
            current = begun[1]
            if current in rules:
                raise UsageError(f"grammar: there are two rules {current}")
            rules[current] = line.strip()[begun.end() :]
        elif current is not None:
            rules[current] += "\n" + line
        elif line.strip() and not line.strip().startswith("#"):
            raise UsageError(f"grammar: {line.strip()!r} stands before the first rule")
    return rules


def _body(name: str, body: str, names: dict[str, str]) -> str:
    """The alternatives of a rule; those that are empty as empty texts."""
    parts: list[str] = []
    at = 0
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise UsageError(f"grammar: rule {name} cannot be read from {body[at : at + 20]!r} on")
        at = found.end()
        kind, text = found.lastgroup, found[0]
        if kind in ("space", "comment"):
            continue
        if kind == "name" and text not in names:
            raise UsageError(f"grammar: rule {name} names {text}, which is no rule")
        if kind == "times" or text in ("*", "+", "?"):
            if not parts or parts[-1] in ("|", "("):
                raise UsageError(f"grammar: in rule {name} {text} follows nothing")
            parts[-1] += re.sub(r"\s", "", text)
            continue
        if text in ("|", ")") and (not parts or parts[-1] in ("|", "(")):
            parts.append('""')
        parts.append(names[text] if kind == "name" else _part(kind or "", text))
    if not parts or parts[-1] == "|":
        parts.append('""')
    return " ".join(parts)


def _part(kind: str, text: str) -> str:
    if kind == "set":
        return "/" + text.replace("/", r"\/") + "/"
    if text == ".":
        return r"/[\s\S]/"
    return text
