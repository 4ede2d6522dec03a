"""There is one process, and memory is given back when a model is closed or no longer held."""

from __future__ import annotations

import gc


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Lets go of what nobody holds any more."""
    gc.collect()


__all__ = ["cleanup_dist_env_and_memory"]
