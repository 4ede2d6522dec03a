"""How texts become vectors."""

from ..params import PoolingParams

__all__ = ["PoolingParams"]
