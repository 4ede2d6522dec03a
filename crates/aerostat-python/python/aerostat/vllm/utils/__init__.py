"""What vLLM's examples use beside the model."""

from .argparse_utils import FlexibleArgumentParser

__all__ = ["FlexibleArgumentParser"]
