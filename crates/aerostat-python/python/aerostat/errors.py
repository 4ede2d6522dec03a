"""What can go wrong. Each exception is an ``AerostatError`` and one of Python's own."""

from __future__ import annotations

import re
from typing import Any


class AerostatError(Exception):
    """Anything that aerostat raises, but for :class:`Interrupted`."""


class UsageError(AerostatError, ValueError):
    """Arguments that cannot be served as given."""


class ModelError(AerostatError, OSError):
    """The model cannot be found, downloaded, read or understood."""


class TextError(AerostatError, ValueError):
    """A tokenizer or chat template is missing, broken, or refuses its input."""


class BudgetError(AerostatError, MemoryError):
    """The memory budget is too small."""

    @property
    def smallest(self) -> int | None:
        """The smallest budget that works, in bytes (rounded up as the message has it)."""
        found = re.search(r"at least ([0-9.]+) ?([KMGT]?i?B)", str(self))
        if found is None:
            return None
        from ._options import parse_size

        return parse_size(found[1] + found[2])


class ReadError(AerostatError, OSError):
    """Reading weights failed."""


class DeviceError(AerostatError, RuntimeError):
    """The device failed or lacks a capability."""


class NotFiniteError(AerostatError, ArithmeticError):
    """Logits are not numbers."""


class JobError(AerostatError, OSError):
    """A batch job's input, journal or output failed."""


class DefectError(AerostatError, RuntimeError):
    """A mistake in aerostat, to be reported."""


class ForkedError(AerostatError, RuntimeError):
    """The model was opened before the process forked."""


class Cancelled(AerostatError, RuntimeError):
    """The request was cancelled, or the model closed, before there was a result."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. ``outputs`` holds what was there: finished results, answers as far as they came, ``None`` for the others."""

    def __init__(self, message: str = "interrupted", outputs: list[Any] | None = None) -> None:
        super().__init__(message)
        self.outputs: list[Any] = outputs if outputs is not None else []


def of_class(name: str, message: str) -> AerostatError:
    """The exception that the native half names."""
    kind = globals().get(name)
    if not (isinstance(kind, type) and issubclass(kind, AerostatError)):
        kind = AerostatError
    return kind(message)
