"""The files behind each panel, to be read in the page: the textbook's, and in a checkout the tour's."""

import importlib.resources
import pathlib
import re
from typing import Any

import jconv

TOUR = pathlib.Path(jconv.__file__).parent.parent / "examples" / "tour"
BEHIND: dict[str, tuple[str, ...]] = {  # the id of a panel: the textbook's modules, the tour's numbers
    "unroll": ("loops", "im2col", "views", "01", "02"),
    "calculator": ("geometry", "einsum", "03"),
    "flip": ("loops",),
    "three": ("backward", "04"),
    "algorithms": ("05", "06", "10"),
    "winograd": ("08", "09"),
    "groups": ("07",),
    "layout": ("05", "06"),
}


def sources() -> dict[str, Any]:
    """`behind`, the names of the files of each panel, and `files`, their text or None where it is not here.

    >>> sources()["behind"]["three"]
    ['textbook/backward.py', 'examples/tour/04_backward_is_two_convolutions.py']
    >>> "def conv2d_backward" in sources()["files"]["textbook/backward.py"]
    True
    """
    behind = {panel: [path(one) for one in files] for panel, files in BEHIND.items()}
    names = sorted({name for files in behind.values() for name in files})
    return {"behind": behind, "files": {name: read(name) for name in names}}


NAMES = {  # of the tour's files; a test holds them against the folder
    "01": "01_loop_to_gemm",
    "02": "02_strides_make_windows",
    "03": "03_einsum_or_matmul",
    "04": "04_backward_is_two_convolutions",
    "05": "05_nchw_or_nhwc",
    "06": "06_one_by_one_is_a_matmul",
    "07": "07_groups_and_depthwise",
    "08": "08_winograd_by_hand",
    "09": "09_fft_crossover",
    "10": "10_choosing",
}


def path(short: str) -> str:
    """The name of a file as it is shown."""
    return f"examples/tour/{NAMES[short]}.py" if re.fullmatch(r"\d\d", short) else f"textbook/{short}.py"


def read(name: str) -> str | None:
    """The text of a file that came with the package or lies beside it."""
    if name.startswith("textbook/"):
        return (importlib.resources.files("jconv") / name).read_text(encoding="utf-8")
    beside = TOUR / pathlib.PurePosixPath(name).name
    return beside.read_text(encoding="utf-8") if beside.is_file() else None
