"""Short forms of long results."""

from __future__ import annotations

from typing import Any


def print_embeddings(embeds: Any, prefix: str = "Embeddings") -> None:
    """The first few elements, and how many there are."""
    values = embeds.tolist() if hasattr(embeds, "tolist") else list(embeds)
    shown = ", ".join(str(value) for value in values[:4]) + (", …" if len(values) > 4 else "")
    print(f"{prefix}: [{shown}] (size={len(values)})")


__all__ = ["print_embeddings"]
