"""Prompts."""

from . import TextPrompt, TokensPrompt

__all__ = ["TextPrompt", "TokensPrompt"]
