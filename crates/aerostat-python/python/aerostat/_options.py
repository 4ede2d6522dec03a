"""How a model is run: options of the engine, as callers write them."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from typing import Any, Callable, Iterable

from ._checks import check_path, check_text, check_whole, wrong
from .errors import AerostatError, BudgetError

log = logging.getLogger("aerostat")

#: What the engine says of a budget that is too small.
_TOO_SMALL = re.compile(r"a memory budget of .* is too small: this model needs at least (\d+) MiB here \((.*)\); raise --memory.*")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(value: int | float | str, name: str = "size") -> int:
    """Bytes of ``"4GiB"``, ``"500 MB"`` or a number of bytes."""
    value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
    expected = "bytes, more than 0 and less than 8 EiB, such as '4GiB' or '500MB'"
    if isinstance(value, bool):
        raise wrong(name, value, expected)
    if isinstance(value, (int, float)):
        if not 0 < value < 1 << 63:
            raise wrong(name, value, expected)
        return int(value)
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtKMGT]?)(i?)[bB]?\s*", value) if isinstance(value, str) else None
    if found is None:
        raise wrong(name, value, expected)
    base = 1000 if found[2] and not found[3] and value.strip()[-1] in "bB" else 1024
    size = float(found[1]) * base ** _UNITS[found[2].lower()]
    if not 1 <= size < 1 << 63:
        raise wrong(name, value, expected)
    return int(size)

#: How options are read, but for sizes and the draft.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "threads": lambda name, value: check_whole(name, value, 1, 1 << 16),
    "rows_max": lambda name, value: check_whole(name, value, 1, 1 << 40),
    "io": check_text, "kv": check_text, "spill": check_path,
}  # fmt: skip


@dataclass
class EngineOptions:
    """Options of the engine. What is ``None`` the engine chooses."""

    memory: int | str | None = None
    headroom: int | str = 64 << 20
    vram: int | str | None = None
    threads: int | None = None
    io: str | None = None
    kv: str | None = None
    spill: str | os.PathLike[str] | None = None
    rows_max: int | None = None
    #: What guesses of the next tokens come from: ``"texts"`` (the default), ``"none"``, a small model with the same tokens, or
    #: ``"auto"``, the best of those on this machine.
    draft: str | os.PathLike[str] | None = None

    NAMES = ("memory", "headroom", "vram", "threads", "io", "kv", "spill", "rows_max", "draft")

    @classmethod
    def take(cls, keywords: dict[str, Any]) -> "EngineOptions":
        """Takes its own out of keywords."""
        return cls(**{name: keywords.pop(name) for name in cls.NAMES if name in keywords})

    def memory_bytes(self) -> int | None:
        """What the engine may take: the budget without what is kept for Python's own."""
        headroom = 0 if not self.headroom else parse_size(self.headroom, "headroom")
        return None if self.memory is None else max(parse_size(self.memory, "memory") - headroom, 1)

    def as_json(self, expert_use: str | None = None, draft: str | None = None) -> str:
        """As the native half takes them; ``draft`` is where the small model lies, if one was named."""
        if self.vram is not None:
            log.warning("vram has no effect: this build has no GPU")
        given: dict[str, Any] = {"expert_use": expert_use, "draft": draft}
        given["memory_bytes"] = self.memory_bytes()
        if draft == "auto":
            given["own_cache"] = own_cache()
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            given[name] = None if value is None else check(name, value)
        return json.dumps({name: value for name, value in given.items() if value is not None})

    def explained(self, error: AerostatError) -> AerostatError:
        """An error of the engine, in the words of these options: a budget that is too small is named as it was given, and the
        least one counts the headroom."""
        found = _TOO_SMALL.fullmatch(str(error)) if isinstance(error, BudgetError) else None
        if found is None:
            return error
        headroom = parse_size(self.headroom, "headroom") if self.headroom and self.memory is not None else 0
        beside = -(-headroom >> 20)
        what = "the memory that is free" if self.memory is None else f"memory={self.memory!r}"
        held = f", {beside} MiB of headroom for Python's own" if beside else ""
        return BudgetError(
            f"{what} is too small: this model needs at least {int(found[1]) + beside} MiB here ({found[2]}{held}); raise memory to "
            "that, or ask for shorter prompts and answers"
        )


def affordable(options: EngineOptions, size: int, hint: str) -> None:
    """Refuses results that cannot be held, before anything is opened."""
    limit = parse_size(options.memory, "memory") if options.memory is not None else _available()
    if limit is not None and size > limit:
        raise BudgetError(f"the results asked for take {size} bytes of {limit}: {hint}")


def _available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def own_cache() -> str:
    """Aerostat's own cache folder, the command's too."""
    named = os.environ.get("AEROSTAT_CACHE")
    if named:
        return named
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "aerostat")


def expert_file(path: str) -> str:
    """The file that learns which experts a model uses."""
    import hashlib

    name = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:16]
    return os.path.join(own_cache(), "experts", f"{name}.json")


def unknown(what: str, name: str, known: Iterable[str]) -> TypeError:
    """An argument that nobody knows, with the nearest that somebody does."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return TypeError(f"{what} got an unexpected keyword argument {name!r}{hint}")
