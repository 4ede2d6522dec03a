"""Prompts as callers write them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from . import tensors
from ._checks import check_text, items
from ._core import Core
from .errors import AerostatError, TextError, UsageError
from .tokenizer import Tokenizer


@dataclass
class Prompt:
    """A prompt: its text where there is one, its tokens, and what is wrong with it."""

    text: str | None
    token_ids: list[int]
    error: Exception | None = None


class Rows(list[Any]):
    """Values of a column. Each is a prompt, also where all are whole numbers, which in another list are one of token ids."""


#: Members of a prompt that is a dict.
_MEMBERS = ("prompt", "prompt_token_ids", "cache_salt", "type")


def whole_token(value: Any) -> int:
    """A token id; whole numbers alone."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{value!r} is no token id")
    return operator.index(value)


#: Makes token ids of a text.
Encode = Callable[[str], "list[int]"]


def check_template(template: Any) -> str | None:
    """A text with a place for another, or none."""
    if template is not None and "{text}" not in check_text("template", template):
        raise UsageError("template must have {text} where the prompt goes")
    checked: str | None = template
    return checked


def read_prompts(prompts: Any, core: Core, encode: Encode | None = None, template: str | None = None) -> list[Prompt]:
    """A prompt, or several. Texts are put into the template, if there is one, and become tokens by ``encode``, else as the
    tokenizer has it."""
    template = check_template(template)
    single = isinstance(prompts, (str, Mapping, bytes, bytearray)) or _is_ids(prompts)
    several = [prompts] if single else items("prompts", prompts, "a prompt or several")
    return [_read(prompt, number, core, encode, template) for number, prompt in enumerate(several)]


def _is_ids(value: Any) -> bool:
    """A list of token ids, which is one prompt."""
    if tensors.is_array(value):
        array = tensors.to_numpy(value)
        return bool(array.ndim == 1 and array.dtype.kind in "iu")
    if isinstance(value, Rows) or not isinstance(value, (list, tuple)):
        return False
    # Numbers of numpy and of torch are numbers, too; arrays of one element are not meant.
    return bool(value) and all(hasattr(t, "__index__") and not isinstance(t, bool) and not getattr(t, "ndim", 0) for t in value)


def _read(prompt: Any, number: int, core: Core, encode: Encode | None, template: str | None) -> Prompt:
    text: str | None = None
    try:
        if isinstance(prompt, Mapping):
            text = prompt.get("prompt")
            more = next((name for name, value in prompt.items() if name not in _MEMBERS and value is not None), None)
            if more is not None:
                raise UsageError(f"a prompt's {more!r} is not supported: texts and token ids are")
            if prompt.get("prompt_token_ids") is not None:
                prompt = prompt["prompt_token_ids"]
                if isinstance(prompt, str):
                    raise UsageError("prompt_token_ids must be token ids, not a text")
            elif isinstance(text, str):
                prompt = text
            else:
                raise UsageError("a prompt that is a dict needs 'prompt' or 'prompt_token_ids'")
        if isinstance(prompt, str):
            text = check_text("a text", prompt if template is None else template.replace("{text}", prompt))
            ids = core.model.encode(text, True) if encode is None else encode(text)
        elif prompt is None or (isinstance(prompt, float) and prompt != prompt):
            raise UsageError("it is missing")
        else:
            if isinstance(prompt, (bytes, bytearray)):
                raise UsageError("expected a text or token ids, not bytes: decode them first")
            if tensors.is_array(prompt):
                prompt = tensors.to_numpy(prompt).tolist()
            if not hasattr(prompt, "__iter__"):
                raise UsageError(f"expected a text or token ids, not {type(prompt).__name__}")
            ids = [whole_token(token) for token in prompt]
            if template is not None:
                raise UsageError("a template takes texts, and these are token ids")
        vocab = core.facts["vocab"]
        wrong = next((token for token in ids if not 0 <= token < vocab), None)
        if wrong is not None:
            raise UsageError(f"token id {wrong} is outside the vocabulary of {vocab} tokens")
        if not ids:
            raise UsageError("it is empty: at least one token is needed")
        return Prompt(text, ids)
    except (AerostatError, TypeError, ValueError) as error:
        kind = type(error) if isinstance(error, AerostatError) else UsageError
        return Prompt(text, [], kind(f"prompt {number}: {error}"))


def read_conversations(
    messages: Any, tokenizer: Tokenizer, core: Core, template: str | None, generation: bool, final: bool,
    variables: dict[str, Any], content_format: str = "auto",
) -> list[Prompt]:  # fmt: skip
    """A conversation (a list of messages), or several, as a template writes them."""
    if content_format not in ("auto", "string", "openai"):
        raise UsageError(f"chat_template_content_format is {content_format!r}; expected 'auto', 'string' or 'openai'")
    if not isinstance(messages, (list, tuple)):
        raise UsageError(f"expected a list of messages, or several, not {type(messages).__name__}")
    if not messages:
        return []
    talks = messages if isinstance(messages[0], (list, tuple)) else [messages]
    return [
        read_conversation(talk, number, tokenizer, core, template, generation, final, variables, content_format)
        for number, talk in enumerate(talks)
    ]


def read_conversation(
    talk: Any, number: int, tokenizer: Tokenizer, core: Core, template: str | None = None, generation: bool = True,
    final: bool = False, variables: dict[str, Any] | None = None, content_format: str = "auto",
) -> Prompt:  # fmt: skip
    """One of several conversations, as a template writes it."""
    try:
        messages = list(talk) if content_format == "openai" else [_in_words(message) for message in talk]
        text = tokenizer.render(messages, template, generation, final, variables or {})
        return Prompt(text, core.model.encode(text, False))
    except (TextError, UsageError) as error:
        return Prompt(None, [], error)
    except (TypeError, ValueError) as error:
        return Prompt(None, [], UsageError(f"conversation {number}: {error}"))


def _in_words(message: Any) -> Any:
    """A message whose content is one text: parts of text follow each other on lines, as the command has it."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, (list, tuple)):
        return message
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise UsageError(f"a content part of kind {kind!r} is not text: this takes texts alone")
        texts.append(text)
    return {**message, "content": "\n".join(texts)}
