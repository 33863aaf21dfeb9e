"""The convolutions of a traced program: where they stand, how often they run, who computes them."""

import dataclasses
import itertools
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from jconv.algorithms.record import Algorithm
from jconv.calculus.primitives import PRIMITIVES
from jconv.programs.lowering import CONVOLUTION, in_place_of_lax
from jconv.runtime.mark import LAX, mark, unmarked, word_of
from jconv.spec import ConvSpec, Role
from jconv.spec.checks import in_one_line

LIBRARIES = tuple({sysconfig.get_path(of) for of in ("purelib", "platlib", "stdlib")})
JCONV = str(Path(__file__).parents[1])
ROLE_OF = {primitive: role for role, primitive in PRIMITIVES.items()}


class Convolution(NamedTuple):
    """One as jconv sees it."""

    role: Role
    spec: ConvSpec
    algorithm: str | Algorithm


@dataclasses.dataclass(frozen=True)
class Place:
    """A convolution in a program: what is to be computed or why jconv does not, how often, and where."""

    problem: Convolution | None
    reason: str
    count: int
    where: str
    scope: str
    shapes: str


def program(fn: Any, args: Any, kwargs: Any) -> Any:
    """The jaxpr of `accelerate(fn)(*args, **kwargs)`; what is not an array is static."""
    if isinstance(fn, types.MethodType):  # so that the state of its object is seen
        fn, args = fn.__func__, (fn.__self__, *args)
    call, state = _without_objects((fn, args, kwargs))
    leaves, tree = jax.tree.flatten(state)
    arrays = [leaf for leaf in leaves if _is_array(leaf)]

    def flat(*arrays: jax.Array) -> Any:
        rest = iter(arrays)
        found = [next(rest) if _is_array(leaf) else leaf for leaf in leaves]
        fn, args, kwargs = call(jax.tree.unflatten(tree, found))
        return [leaf for leaf in jax.tree.leaves(fn(*args, **kwargs)) if _is_array(leaf)]

    with mark(unmarked() or "auto"):
        return jax.make_jaxpr(flat)(*arrays)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, type)


def _without_objects(tree: Any) -> tuple[Callable[[Any], Any], Any]:
    """A tree in which Flax nnx objects are their states, and what makes objects of them: what a program
    changes in those it changes in nobody else's."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return lambda state: state, tree
    objects = (nnx.Pytree, nnx.Variable)
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, objects))
    nodes = {str(i): leaf for i, leaf in enumerate(leaves) if isinstance(leaf, objects)}
    graph, state = nnx.split(nodes)

    def made(state: Any) -> Any:
        nodes, others = nnx.merge(graph, state[0]), state[1]
        return jax.tree.unflatten(structure, [nodes.get(str(i), leaf) for i, leaf in enumerate(others)])

    return made, (state, [None if str(i) in nodes else leaf for i, leaf in enumerate(leaves)])


def find(jaxpr: Any) -> Iterator[Place]:
    """Every convolution of a jaxpr, in order; equal ones at one place count together."""
    together: dict[Place, int] = {}
    for place in _walk(jaxpr, 1, None):
        key = dataclasses.replace(place, count=0)
        together[key] = together.get(key, 0) + place.count
    for key, count in together.items():
        yield dataclasses.replace(key, count=count)


def _walk(jaxpr: Any, times: int, call: JaxprEqn | None) -> Iterator[Place]:
    """`call` is the call of jconv that is being looked into."""
    for eqn in jaxpr.eqns:
        if eqn.primitive in ROLE_OF:
            ours = Convolution(ROLE_OF[eqn.primitive], eqn.params["spec"], eqn.params["algorithm"])
            yield Place(ours, "", times, *_where(call or eqn), "")
        elif eqn.primitive is CONVOLUTION:
            lhs, rhs, out = (var.aval.str_short() for var in (*eqn.invars, *eqn.outvars))
            yield Place(*_seen(eqn), times, *_where(call or eqn), f"{lhs} * {rhs} -> {out}")
        steps = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        held = (v if isinstance(v, (tuple, list)) else [v] for v in eqn.params.values())
        for body in itertools.chain.from_iterable(held):
            if isinstance(body, (Jaxpr, ClosedJaxpr)):
                # jit keeps jconv's functions as they were traced for the first caller: the place is the call
                yield from _walk(body, times * steps, call or (eqn if _is_jconvs(body) else None))


def _seen(eqn: JaxprEqn) -> tuple[Convolution | None, str]:
    """What the lowering makes of lax's convolution, by the very function that it lowers."""
    word = word_of(eqn.ctx)
    if word == LAX:
        return None, "asked for by an algorithm of jconv"
    jconv = in_place_of_lax(word, eqn.params, eqn.outvars[0].aval)
    avals: list[Any] = [var.aval for var in eqn.invars]
    like = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type, sharding=aval.sharding,
                                 manual_axis_type=aval.manual_axis_type) for aval in avals]  # fmt: skip
    try:
        with eqn.ctx.manager, jax.default_matmul_precision(None):
            jaxpr = jax.make_jaxpr(jconv)(*like)
    except Exception as error:  # whatever it is, lax can still do it
        return None, f"jconv: {in_one_line(error)}"
    return next(place.problem for place in _walk(jaxpr, 1, eqn)), ""


def _is_jconvs(body: Any) -> bool:
    """Whether a body was traced from a function of jconv."""
    info = getattr(body.jaxpr if hasattr(body, "jaxpr") else body, "debug_info", None)
    return f" {JCONV}" in (getattr(info, "func_src_info", None) or "")


def _where(eqn: JaxprEqn) -> tuple[str, str]:
    """File and line in the user's own code if there is any on the stack, and the stack of names."""
    info = eqn.source_info
    frames: list[Any] = info.traceback.frames if info.traceback else []
    for frame in frames:
        if not frame.file_name.startswith((*LIBRARIES, JCONV, "<frozen")):
            return f"{'/'.join(Path(frame.file_name).parts[-2:])}:{frame.line_num}", str(info.name_stack)
    return source_info_util.summarize(info), str(info.name_stack)
