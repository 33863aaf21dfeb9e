"""The mark that says who computes lax's convolutions: a word that every equation keeps.

`jax.experimental.xla_metadata` attaches text to what is traced in a context: part of an equation and of jit's
cache key.  Under the key `KEY` stands an algorithm as `accelerate` takes it, or `LAX`.
"""

from contextlib import AbstractContextManager
from typing import Any

from jax.experimental.xla_metadata import set_xla_metadata

KEY = "jconv"
LAX = "lax"  # the word for: as if jconv were not there

_unmarked: str | None = None  # what the lack of a mark means: None for lax's own, a word while installed


def mark(word: str | None) -> AbstractContextManager[None]:
    """A context in which what is traced is marked with the word, or with none."""
    return set_xla_metadata(**{KEY: word})


def word_of(context: Any) -> str:
    """The word of an equation, out of its context."""
    return (context.xla_metadata or {}).get(KEY, unmarked() or LAX)


def lax_itself() -> AbstractContextManager[None]:
    """A context for algorithms: when they say lax they mean lax."""
    return mark(LAX if unmarked() else None)


def unmarked() -> str | None:
    """The word for equations without a mark while jconv is installed, else None."""
    return _unmarked


def set_unmarked(word: str | None) -> None:
    """Say what the lack of a mark means.  Compiled programs do not notice: clear JAX's caches."""
    global _unmarked
    _unmarked = word
