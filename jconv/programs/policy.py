"""Which algorithm a mark asks for: its word, and what the word means."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, serves
from jconv.api.arguments import named_algorithm
from jconv.choice.candidates import POLICIES
from jconv.spec import ConvSpec

_OWN: dict[str, Algorithm] = {}  # a mark is text: here is what its word stands for
_NUMBERS = itertools.count()


def word_for(algorithm: Any) -> str:
    """The word for a policy, the name of an algorithm, or an `Algorithm` of the user's own.

    Raises:
      TypeError, ValueError: it is none of these.
    """
    found = named_algorithm(algorithm)
    if isinstance(found, str):
        return found
    return found.name if ALGORITHMS.get(found.name) == found else _word_for_own(found)


def _word_for_own(algorithm: Algorithm) -> str:
    known = (word for word, other in list(_OWN.items()) if other == algorithm)
    word = next(known, None) or f"{algorithm.name}#{next(_NUMBERS)}"
    _OWN[word] = algorithm
    return word


@functools.cache
def meant(word: str) -> str | Callable[[ConvSpec], str | Algorithm]:
    """What a word stands for: a policy, or an algorithm for what it can compute and "auto" for the rest."""
    if word in POLICIES:
        return word
    algorithm = _OWN[word] if word in _OWN else ALGORITHMS[word]
    return lambda spec: algorithm if serves(algorithm, spec) else "auto"
