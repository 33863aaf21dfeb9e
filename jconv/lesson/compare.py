"""What jconv answers for the layers a reader can set: the choice, and every algorithm's numbers.

The page does no guessing: each combination of the fields was put to jconv when the page was made.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, Fft, Gemm, Loop, forms_of
from jconv.algorithms.work import steps, workspace
from jconv.choice.pick import Choice, choose
from jconv.spec import ConvSpec

PLATFORM = "cpu"
Advance = Callable[[str], None]
Row = list[float]
FIELDS = {
    "batch": ["1", "8"],
    "size": ["7", "14", "28", "56", "112", "224"],
    "c": ["3", "16", "64", "256"],
    "o": ["16", "64", "256"],
    "kernel": ["1", "3", "5", "7", "15"],
    "stride": ["1", "2"],
    "groups": ["1", "4", "depthwise"],
}
PRESETS = {
    "ResNet stem": ("1", "224", "3", "64", "7", "2", "1"),
    "3×3, 64 → 64": ("8", "56", "64", "64", "3", "1", "1"),
    "1×1, 64 → 256": ("8", "56", "64", "256", "1", "1", "1"),
    "depthwise 3×3": ("8", "56", "256", "256", "3", "1", "depthwise"),
    "grouped 3×3": ("8", "28", "256", "256", "3", "1", "4"),
    "depthwise 15×15": ("1", "56", "64", "64", "15", "1", "depthwise"),
    "last block 7×7": ("1", "7", "256", "256", "3", "1", "1"),
}


def layers(advance: Advance = lambda what: None) -> dict[str, Any]:
    """The fields, the presets and an answer for every combination that makes a layer.

    Args:
      advance: called after each of the `questions`, the first time of which takes milliseconds.
    """
    texts: dict[str, int] = {}
    answers = {}
    for key in questions():
        answers[key] = short(answer(key), texts)
        advance("")
    return {
        "fields": FIELDS,
        "presets": [{"name": n, "fields": dict(zip(FIELDS, v, strict=True))} for n, v in PRESETS.items()],
        "names": list(ALGORITHMS),
        "about": [about(algorithm) for algorithm in ALGORITHMS.values()],
        "answers": answers,
        "texts": list(texts),
        "note": f"Asked of jconv for float32 on {PLATFORM}, padding half a kernel. Times are its cost "
        "model's, good for the order of the algorithms; jconv.tune measures them.",
    }


def questions() -> list[str]:
    """Every combination of the fields that makes a layer, its values joined by commas."""
    return [",".join(values) for values in itertools.product(*FIELDS.values()) if spec_of(*values)]


def spec_of(batch: str, size: str, c: str, o: str, kernel: str, stride: str, groups: str) -> ConvSpec | None:
    """The layer of these fields, or None where the groups do not divide its channels."""
    channels, outs, k = int(c), int(o), int(kernel)
    count = channels if groups == "depthwise" else int(groups)
    if channels % count or outs % count or (groups == "depthwise" and channels != outs):
        return None
    return ConvSpec.of(
        batch=int(batch), spatial=(int(size),) * 2, kernel=(k, k), in_channels=channels, out_channels=outs,
        strides=(int(stride),) * 2, padding=((k // 2, k // 2),) * 2, groups=count,
    )  # fmt: skip


@functools.cache
def answer(key: str) -> tuple[str, str, list[Row | str]]:
    """The algorithm chosen, why, and of each either its numbers or the sentence in which it refuses."""
    spec = spec_of(*key.split(","))
    assert spec is not None
    choice = choose(spec, "forward", PLATFORM)
    return choice.algorithm.name, choice.reason, [row(algorithm, choice) for algorithm in ALGORITHMS.values()]


def short(full: tuple[str, str, list[Row | str]], texts: dict[str, int]) -> dict[str, Any]:
    """An answer with its sentences as their numbers in `texts`: most are said many times."""
    chosen, reason, rows = full
    numbers = [numbered(one, texts) if isinstance(one, str) else one for one in rows]
    return {"chosen": list(ALGORITHMS).index(chosen), "reason": numbered(reason, texts), "rows": numbers}


def row(algorithm: Algorithm, choice: Choice) -> Row | str:
    """[µs, workspace in bytes, multiplications if not the direct sum's], or the refusal."""
    if algorithm.name not in choice.seconds:
        return choice.rejected[algorithm.name]
    time = three_digits(1e6 * choice.seconds[algorithm.name])
    space = workspace(algorithm, "forward", choice.spec)
    count = multiplications(algorithm, choice.spec)
    return [time, space, *([] if count == choice.spec.macs else [count])]


def multiplications(algorithm: Algorithm, spec: ConvSpec) -> int:
    """Real products of an input value (or its transform) with a kernel value (or its transform).

    Those of the matrix products, where there are any; of spectra and of the transforms themselves,
    N log₂ N for N real points, where those are Fourier's; else the direct sum's.
    """
    parts = steps(algorithm, "forward", spec)
    gemms = [step for step in parts if isinstance(step, Gemm)]
    transforms = sum(s.count * s.length * math.log2(s.length) for s in parts if isinstance(s, Fft))
    if transforms:
        return round(transforms + sum(step.flops for step in parts if isinstance(step, Loop)) / 2)
    return sum(g.count * g.m * g.n * g.k for g in gemms) if gemms else spec.macs


def about(algorithm: Algorithm) -> str:
    """The first sentence of the file the algorithm is written in."""
    forward = forms_of(algorithm)[0].forward
    written = getattr(forward, "func", forward)  # a partial says nothing of itself
    doc = inspect.getmodule(written).__doc__ or ""
    return doc.split("\n\n")[0].replace("\n", " ").rstrip(".")


def numbered(sentence: str, texts: dict[str, int]) -> int:
    """The number of a sentence, a new one if it is new."""
    return texts.setdefault(sentence, len(texts))


def three_digits(value: float) -> float:
    """Rounded to three significant digits, so that the page stays small."""
    return round(value, 2 - math.floor(math.log10(value))) if value > 0 else 0.0
