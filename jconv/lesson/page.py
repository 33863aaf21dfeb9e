"""The page: template, style, scripts and data put into one file that needs nothing else."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import numpy as np

import jconv
from jconv.lesson.compare import Advance, layers
from jconv.lesson.example import EXAMPLE, lesson
from jconv.lesson.kernels import NAMED
from jconv.lesson.transforms import winograd

# In the order they build on each other; they share one scope.
SCRIPTS = ("arithmetic", "grid", "state", "unroll", "calculator", "three", "algorithms", "winograd", "groups",
           "memory", "main")  # fmt: skip


def build(
    x: np.ndarray | None = None,
    w: np.ndarray | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    advance: Advance = lambda what: None,
) -> str:
    """The interactive lesson as one self-contained HTML document.

    Args:
      x: the input `(h, w)` it starts from; None for the 5×5 example.
      w: the kernel `(kh, kw)`; None for Sobel X.
      stride, padding, dilation: ints, for both dimensions.
      advance: called after each of `jconv.lesson.compare.questions`, for a progress bar.

    Returns:
      The document.  It loads nothing, so it can be opened from a file.

    Raises:
      ValueError: the kernel does not fit the padded input.

    >>> page = build(stride=2)
    >>> page.startswith("<!doctype html>"), "http://" in page.replace("http://www.w3.org/", "")
    (True, False)
    """
    x = np.asarray(EXAMPLE if x is None else x, np.float32)
    w = np.asarray(NAMED["sobel-x"] if w is None else w, np.float32)
    knobs = dict(stride=stride, padding=padding, dilation=dilation)
    data = lesson(x, w, knobs) | {
        "layers": layers(advance),
        "winograd": winograd(),
        "version": jconv.__version__,
    }
    return assemble(data)


def assemble(data: dict[str, Any]) -> str:
    """The template with its three holes filled."""
    scripts = "\n".join(resource(f"{name}.js") for name in SCRIPTS)
    holes = {"/*{{css}}*/": resource("page.css"), "{{data}}": embedded(data), "/*{{script}}*/": scripts}
    page = resource("template.html")
    for hole, content in holes.items():
        page = page.replace(hole, content)
    return page


def embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def resource(name: str) -> str:
    """A file of `web/` as text."""
    return (importlib.resources.files("jconv.lesson") / "web" / name).read_text(encoding="utf-8")
