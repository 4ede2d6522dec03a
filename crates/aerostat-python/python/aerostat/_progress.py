"""Signs of life, on stderr: tqdm where it is installed, else a line on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """A bar over so many items. ``enabled=False`` shows nothing."""

    def __init__(self, total: int, what: str, unit: str = "it", enabled: bool = True) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._bar: Any = None
        self._done = 0
        self._drawn = 0.0
        self._width = 0
        if not enabled:
            self._terminal = False
            return
        self._terminal = bool(getattr(sys.stderr, "isatty", lambda: False)())
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return
        self._bar = tqdm(total=total, desc=what, unit=unit, dynamic_ncols=True, leave=False)

    def advance(self, by: int = 1) -> None:
        self._done += by
        if self._bar is not None:
            self._bar.update(by)
        else:
            self._draw("")

    def at(self, done: int, total: int) -> None:
        """Where it stands, absolutely."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._done)
        self._done = done
        if self._bar is None:
            self._draw("")

    def sweep(self, status: dict[str, Any]) -> None:
        """Where the sweep at hand stands."""
        now = status.get("progress")
        if not now:
            return
        part = f"{now['phase']} {now['tile']}/{now['tiles']} tiles, {now['rows']} rows"
        if self._bar is not None:
            self._bar.set_postfix_str(part, refresh=True)
        else:
            self._draw(part)

    def _draw(self, more: str) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._drawn < 0.25:
            return
        self._drawn = now
        line = f"{self._what}: {self._done}/{self._total} {self._unit}  {more}"[:100]
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._terminal and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
