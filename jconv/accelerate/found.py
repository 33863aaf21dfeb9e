"""Looking through a jaxpr for convolutions: where they stand, how often they run, what becomes of them."""

from __future__ import annotations

import dataclasses
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jax.extend import source_info_util
from jax.extend.core import JaxprEqn

from jconv.accelerate import rules
from jconv.accelerate.estimate import estimate
from jconv.accelerate.rewrite import PROGRAMS, bodies, rewritten
from jconv.accelerate.rules import has_own_derivative
from jconv.accelerate.takeover import is_convolution, take_over
from jconv.spec import ConvSpec

OURS = "jconv_"  # the names of jconv's primitives: this and the role
LIBRARIES = tuple({sysconfig.get_path(of) for of in ("purelib", "platlib", "stdlib")})
JCONV = str(Path(__file__).parent.parent)
RULES = rules.__file__


@dataclasses.dataclass(frozen=True)
class Found:
    """A convolution of a program.

    Args:
      where: file and line, the last one outside installed libraries.
      scope: JAX's stack of names there, such as the path of a layer.
      role: forward, grad_input or grad_kernel; for what jconv leaves to lax, "-".
      spec: the problem behind the role; None for what jconv leaves to lax.
      equation: the shapes of what jconv leaves to lax, "" otherwise.
      count: how often it runs.
      algorithm: what will compute it.
      reason: why that one, or why jconv does not.
      seconds, lax_seconds: estimates for one run; None for what jconv leaves to lax or has no estimate of.
      taken: whether it runs on jconv.
    """

    where: str
    scope: str
    role: str
    spec: ConvSpec | None
    equation: str
    count: int
    algorithm: str
    reason: str
    seconds: float | None
    lax_seconds: float | None
    taken: bool


def find(jaxpr: Any, platform: str) -> list[Found]:
    """Every convolution in a jaxpr and what replaces it, in order; equal ones at one place count together."""
    together: dict[Found, int] = {}
    for found in _walk(rewritten(jaxpr), 1, "", platform):
        key = dataclasses.replace(found, count=0)
        together[key] = together.get(key, 0) + found.count
    return [dataclasses.replace(found, count=count) for found, count in together.items()]


def _walk(
    jaxpr: Any, times: int, inside: str, platform: str, call: JaxprEqn | None = None
) -> Iterator[Found]:
    """Over a rewritten jaxpr; `call` is the call of jconv that is being looked into."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if is_convolution(eqn):
            reason = f"inside {inside}, whose meaning jconv does not know" if inside else take_over(eqn)[1]
            yield Found(*_place(eqn), "-", None, _shapes(eqn), times, "lax", reason, None, None, False)
        elif name.startswith(OURS) and "spec" in eqn.params:
            yield _ours(eqn, call or eqn, times, platform)
        closed = inside or ("" if name in PROGRAMS or has_own_derivative(eqn) else name)
        steps = eqn.params["length"] if name == "scan" else 1
        for body in bodies(eqn):
            # jit keeps jconv's functions as they were traced for the first caller: the place is the call
            yield from _walk(body, times * steps, closed, platform, call or (eqn if _is_ours(body) else None))


def _is_ours(body: Any) -> bool:
    """Whether a body was traced from a function of jconv, and not from one that evaluates the user's."""
    info = getattr(body.jaxpr if hasattr(body, "jaxpr") else body, "debug_info", None)
    source = getattr(info, "func_src_info", None) or ""
    return f" {JCONV}" in source and f" {RULES}" not in source


def _ours(call: JaxprEqn, eqn: JaxprEqn, times: int, platform: str) -> Found:
    role: Any = call.primitive.name.removeprefix(OURS)
    spec = call.params["spec"]
    chosen = estimate(role, spec, platform, call.params["algorithm"])
    return Found(
        *_place(eqn), role, spec, "", times,
        chosen.algorithm, chosen.reason, chosen.seconds, chosen.lax_seconds, True,
    )  # fmt: skip


def _shapes(eqn: JaxprEqn) -> str:
    lhs, rhs, out = (var.aval.str_short() for var in (*eqn.invars, *eqn.outvars))
    return f"{lhs} * {rhs} -> {out}"


def _place(eqn: JaxprEqn) -> tuple[str, str]:
    """File and line in the user's own code if there is any on the stack, and the stack of names."""
    info = eqn.source_info
    frames: list[Any] = info.traceback.frames if info.traceback else []
    for frame in frames:
        if not frame.file_name.startswith((*LIBRARIES, JCONV, "<frozen")):
            return f"{_short(frame.file_name)}:{frame.line_num}", str(info.name_stack)
    return source_info_util.summarize(info), str(info.name_stack)


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:])
