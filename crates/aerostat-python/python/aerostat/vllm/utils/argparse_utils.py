"""Command lines of scripts."""

from __future__ import annotations

import argparse
from typing import Any, Sequence


class FlexibleArgumentParser(argparse.ArgumentParser):
    """A parser for which ``--max_tokens`` is ``--max-tokens``."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        import sys

        given: Sequence[str] = sys.argv[1:] if args is None else args
        return super().parse_known_args([_dashed(one) for one in given], namespace)


def _dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


__all__ = ["FlexibleArgumentParser"]
