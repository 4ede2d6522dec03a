"""Arguments as callers write them. Each kind is read in one place, and what is of another kind is refused by its name."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

from . import tensors
from .errors import UsageError


def shown(value: Any) -> str:
    """A value in few words."""
    try:
        text = repr(value)
    except ValueError:
        # Whole numbers of thousands of digits have none.
        text = "\n"
    if "\n" in text or getattr(value, "ndim", None):
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:60] + "…"


def wrong(name: str, value: Any, expected: str) -> UsageError:
    """What an argument is, and what was expected."""
    return UsageError(f"{name} is {shown(value)}; expected {expected}")


def scalar(value: Any) -> Any:
    """A number of numpy as Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """A number, numpy's too."""
    plain = scalar(value)
    try:
        if not isinstance(plain, bool) and isinstance(plain, (int, float)) and low <= plain <= high:
            return float(plain)
    except OverflowError:
        pass
    raise wrong(name, value, f"a number from {low:g} to {high:g}")


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number, numpy's too."""
    try:
        plain = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        plain = None
    if plain is None or plain < low or (high is not None and plain > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise wrong(name, value, f"a whole number {bound}")
    return plain


def check_flag(name: str, value: Any) -> bool:
    """Yes or no; texts are neither."""
    plain = scalar(value)
    if not isinstance(plain, int) or plain not in (0, 1):
        raise wrong(name, value, "True or False")
    return bool(plain)


def check_text(name: str, value: Any) -> str:
    """A text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} has half a character at {error.start}, which is no text: {shown(value)}") from None
    return value


def check_texts(name: str, value: Any) -> list[str]:
    """A text, or several; ``None`` is none."""
    texts = [value] if isinstance(value, str) else [] if value is None else items(name, value, "a text or a list of texts")
    if "" in texts:
        raise UsageError(f"{name} must hold texts that are not empty")
    return [check_text(f"{name}: an element", text) for text in texts]


def check_path(name: str, value: Any, expected: str = "a path") -> str:
    """A path, or a name in its place."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise wrong(name, value, expected)
    path = check_text(name, os.fsdecode(value))
    if "\0" in path:
        raise wrong(name, value, expected)
    return path


def check_mapping(name: str, value: Any) -> dict[Any, Any]:
    """A dict."""
    if not isinstance(value, Mapping):
        raise wrong(name, value, "a dict")
    return dict(value)


def check_token(name: str, value: Any) -> str | None:
    """A token of the Hub; ``True`` is the one that is stored, as is none."""
    if value is None or value is True:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{name} is of type {type(value).__name__}; expected a text, or True for the token that is stored")
    return value


def is_table(value: Any) -> bool:
    """Whether it has named columns."""
    return hasattr(value, "columns") or hasattr(value, "column_names")


def items(name: str, value: Any, expected: str = "a list of texts") -> list[Any]:
    """What a list, an array, a column or an iterator holds. Of a table it would be its columns' names, of a dict its keys, and of
    a text its letters: none of them is meant."""
    if is_table(value):
        raise UsageError(f"{name}: a {type(value).__name__} is a table: give one of its columns")
    if isinstance(value, (str, bytes, bytearray, Mapping)) or not hasattr(value, "__iter__"):
        raise wrong(name, value, expected)
    given = tensors.to_numpy(value) if tensors.is_torch(value) else tensors.plain(value)
    if not hasattr(given, "tolist"):
        return list(given)
    given = given.tolist()
    # An array of no dimensions holds one.
    return given if isinstance(given, list) else [given]
