"""Configurations that scripts make themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PoolerConfig:
    """How vectors come of a model's states; ``None`` leaves it to the model's files."""

    pooling_type: str | None = None
    seq_pooling_type: str | None = None
    tok_pooling_type: str | None = None
    normalize: bool | None = None
    use_activation: bool | None = None
    dimensions: int | None = None
    task: str | None = None


__all__ = ["PoolerConfig"]
