"""Results kept on disk as they come, so that a call that was killed and is made again asks for the missing ones alone."""

from __future__ import annotations

import json
import os
from typing import Any, Sequence

from .errors import JobError

Result = tuple[str, dict[str, Any]]


class Journal:
    """A folder with a file for each call, named for the model and for all that is asked. Lines are results, each written
    whole and made durable before the next sweep's; a line that was torn counts as not written. Several processes may
    write to one file: they write the same."""

    def __init__(self, folder: str | os.PathLike[str], identity: str) -> None:
        self.folder, self.identity = os.fsdecode(folder), identity
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise JobError(f"the journal's folder {self.folder} cannot be made: {error}") from error

    def call(self, requests: Sequence[dict[str, Any]]) -> "Entry":
        """What is kept of a call with these requests."""
        keys = [_digest(json.dumps(request, sort_keys=True), 16) for request in requests]
        name = _digest("\n".join([self.identity, *keys]), 32)
        return Entry(os.path.join(self.folder, f"{name}.jsonl"), keys)


class Entry:
    """Results of one call. ``known`` has those that were there, by the place of their request."""

    def __init__(self, path: str, keys: list[str]) -> None:
        self._path, self._keys = path, keys
        self._file: Any = None
        kept = _read(path)
        self.known: dict[int, Result] = {place: kept[key] for place, key in enumerate(keys) if key in kept}

    def keep(self, results: Sequence[tuple[int, Result]]) -> None:
        """Writes results, and returns once they are on the disk."""
        lines = []
        for place, (kind, members) in results:
            line = json.dumps({"key": self._keys[place], "kind": kind, "members": _plain(members)})
            lines.append(f"{_digest(line, 8)} {line}\n")
        if not lines:
            return
        try:
            if self._file is None:
                # Unbuffered, and appended: a line goes as a whole, and behind a torn one begins a new one.
                self._file = open(self._path, "ab", buffering=0)
                self._file.write(b"\n")
            self._file.write("".join(lines).encode())
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JobError(f"the journal {self._path} cannot be written: {error}; what it has is safe") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _digest(text: str, length: int) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _read(path: str) -> dict[str, Result]:
    """Results by their request's key, of lines that are whole."""
    kept: dict[str, Result] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for row in file:
                check, _, line = row.rstrip("\n").partition(" ")
                if not line or check != _digest(line, 8):
                    continue
                entry = json.loads(line)
                kept[entry["key"]] = (entry["kind"], _whole(entry["members"]))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise JobError(f"the journal {path} cannot be read: {error}") from error
    return kept


def _plain(value: Any) -> Any:
    """JSON's values; arrays as their bytes."""
    import base64

    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if hasattr(value, "tobytes"):
        return {"array": base64.b64encode(value.tobytes()).decode(), "dtype": str(value.dtype), "shape": list(value.shape)}
    return value


def _whole(value: Any) -> Any:
    import base64

    import numpy as np

    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.frombuffer(bytearray(base64.b64decode(value["array"])), dtype=value["dtype"]).reshape(value["shape"])
    return {name: _whole(member) for name, member in value.items()}
