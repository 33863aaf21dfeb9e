"""The page: template, style, scripts and data put into one file that needs nothing else."""

import importlib.resources
import json
from typing import Any

import numpy as np

import jconv
from jconv.lesson.compare import Advance, layers
from jconv.lesson.example import B, W, X, lesson
from jconv.lesson.kernels import NAMED
from jconv.lesson.sources import sources
from jconv.lesson.transforms import winograd
from jconv.textbook.example import INPUT

# In the order they build on each other; they share one scope.
SCRIPTS = ("arithmetic", "grid", "state", "unroll", "calculator", "flip", "three", "algorithms", "winograd",
           "groups", "memory", "sources", "main")  # fmt: skip


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
      x: the input `(h, w)` of one channel it starts from.
      w: the kernel `(kh, kw)`.  One of the two alone brings the textbook's other, the 5×5 input or Sobel X;
        without either it is an example of two channels in and out.
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
    knobs = dict(stride=stride, padding=padding, dilation=dilation)
    data = lesson(*start(x, w), knobs) | {
        "layers": layers(advance),
        "winograd": winograd(),
        "sources": sources(),
        "version": jconv.__version__,
    }
    return assemble(data)


def start(x: np.ndarray | None, w: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The input (c, h, w), the kernels (o, c, kh, kw) and the bias (o,) the page starts from."""
    if x is None and w is None:
        return X, W, B
    image, kernel = INPUT if x is None else x, NAMED["sobel-x"] if w is None else w
    return np.asarray(image)[None], np.asarray(kernel)[None, None], np.zeros(1)


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
