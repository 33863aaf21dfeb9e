"""One table of small geometries, shared by the tests, the command line's self-check and the benchmarks.

Every case is a `ConvSpec` with a name and tags.  Sizes are small, mostly odd and all different, so that
a mixed-up axis shows.  `reference` computes any role of any spec in float64 with NumPy, tap by tap,
from the one relation that defines a convolution, independent of everything else in this library:

    output p and input h meet at tap r   iff   p·stride + r·rhs_dilation − lo = h·lhs_dilation
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jconv.spec import ConvSpec, Ints, Role
from jconv.spec.roles import OPERANDS

Index = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A geometry by name.

    >>> case = named("depthwise")
    >>> case.spec.is_depthwise, str(case)
    (True, 'depthwise')
    """

    name: str  # what a test id or a line of a report says
    spec: ConvSpec  # the problem, float32
    tags: frozenset[str] = frozenset()  # what is special; "few" marks some that together show every feature

    def __str__(self) -> str:
        return self.name


def _case(name: str, tags: str, batch: int, spatial: Ints, kernel: Ints, c: int, o: int, **rest: Any) -> Case:
    sizes = dict(batch=batch, spatial=spatial, kernel=kernel, in_channels=c, out_channels=o)
    return Case(name, ConvSpec.of(**sizes, **rest), frozenset(tags.split()))  # type: ignore[arg-type]


_1 = ((1, 1), (1, 1))  # a pixel on each side

CASES: tuple[Case, ...] = (
    _case("plain", "", 2, (7, 6), (3, 3), 3, 4),
    _case("same", "padding", 2, (6, 7), (3, 3), 3, 5, padding=_1),
    _case("stride", "stride padding", 2, (9, 11), (3, 3), 3, 4, strides=(2, 3), padding=_1),
    _case("leftover", "stride", 1, (8, 9), (3, 2), 2, 3, strides=(3, 4)),
    _case("tiles", "stride padding", 2, (7, 9), (2, 3), 3, 4, strides=(2, 3), padding=((1, 0), (0, 2))),
    _case("gaps", "stride", 2, (11, 10), (2, 1), 2, 3, strides=(4, 3)),
    _case("asymmetric", "padding", 2, (5, 6), (3, 4), 2, 3, padding=((1, 2), (0, 3))),
    _case("wide_padding", "padding", 1, (3, 4), (2, 2), 2, 3, padding=((3, 4), (5, 3))),
    _case("overpadded", "padding", 2, (8, 7), (2, 2), 2, 3, padding=((3, 0), (0, 2))),
    _case("crop", "padding", 2, (9, 8), (3, 2), 2, 3, padding=((-2, 1), (0, -3))),
    _case("dilation", "dilation", 2, (9, 11), (3, 3), 3, 4, rhs_dilation=(2, 3)),
    _case("stride_dilation", "stride dilation padding", 1, (11, 13), (3, 2), 3, 2, strides=(2, 3),
          rhs_dilation=(3, 2), padding=((2, 1), (0, 2))),
    _case("groups", "groups padding", 2, (6, 5), (3, 3), 6, 4, padding=_1, groups=2),
    _case("everything", "few stride dilation groups padding", 2, (10, 9), (3, 2), 6, 9, strides=(2, 1),
          rhs_dilation=(2, 3), padding=((1, 2), (3, 0)), groups=3),
    _case("depthwise", "groups depthwise padding", 2, (7, 6), (3, 3), 5, 5, padding=_1, groups=5),
    _case("multiplier", "few groups depthwise stride padding", 2, (7, 8), (3, 3), 3, 6, strides=(2, 2),
          padding=_1, groups=3),
    _case("pointwise", "pointwise", 3, (5, 4), (1, 1), 6, 5),
    _case("pointwise_strided", "pointwise stride padding groups", 2, (7, 6), (1, 1), 4, 6, strides=(2, 3),
          padding=((0, 1), (1, 0)), groups=2),
    _case("whole_input", "", 2, (5, 4), (5, 4), 3, 4),
    _case("non_square", "padding", 2, (4, 13), (2, 5), 3, 4, padding=((1, 0), (2, 3))),
    _case("one_channel", "", 1, (5, 5), (3, 3), 1, 1),
    _case("batch_one", "padding", 1, (7, 5), (3, 3), 3, 5, padding=_1),
    _case("batch_three", "padding", 3, (5, 7), (3, 3), 2, 4, padding=_1),
    _case("winograd_size", "padding", 2, (9, 10), (3, 3), 8, 6, padding=_1),
    _case("large_kernel", "padding", 1, (11, 12), (5, 7), 2, 2, padding=((2, 2), (3, 3))),
    _case("taps_in_blocks", "padding", 2, (24, 9), (11, 6), 2, 3, padding=((4, 3), (0, 2))),
    _case("1d_long", "1d dilation padding", 2, (99,), (67,), 3, 2, rhs_dilation=(2,), padding=((70, 3),)),
    _case("1d", "1d padding stride", 2, (12,), (5,), 3, 4, strides=(2,), padding=((2, 1),)),
    _case("1d_causal", "1d depthwise groups dilation padding", 2, (11,), (3,), 4, 4, rhs_dilation=(2,),
          padding=((4, 0),), groups=4),
    _case("3d", "3d padding", 2, (5, 4, 6), (2, 3, 2), 2, 3, padding=((1, 0), (1, 1), (0, 0))),
    _case("3d_everything", "few 3d stride dilation groups padding", 1, (6, 5, 7), (3, 2, 2), 4, 6,
          strides=(2, 1, 2), rhs_dilation=(1, 2, 3), padding=((1, 1), (0, 1), (2, 0)), groups=2),
    _case("transposed", "lhs_dilation padding", 2, (5, 4), (4, 3), 3, 4, lhs_dilation=(2, 3),
          padding=((2, 2), (1, 2))),
    _case("transposed_tiles", "lhs_dilation padding", 2, (4, 3), (2, 3), 3, 4, lhs_dilation=(2, 3),
          padding=((1, 1), (1, 3))),
    _case("transposed_groups", "few lhs_dilation stride dilation groups padding", 2, (5, 6), (3, 2), 4, 6,
          strides=(3, 2), lhs_dilation=(2, 3), rhs_dilation=(2, 1), padding=((3, 1), (-1, 2)), groups=2),
    _case("transposed_depthwise", "lhs_dilation depthwise groups padding", 2, (4, 5), (3, 4), 3, 3,
          lhs_dilation=(2, 2), padding=((1, 2), (2, 2)), groups=3),
    _case("transposed_1d", "1d lhs_dilation padding", 2, (6,), (5,), 3, 2, lhs_dilation=(3,),
          padding=((4, 4),)),
)  # fmt: skip


def named(name: str) -> Case:
    """The case of that name."""
    found = {case.name: case for case in CASES}
    if name not in found:
        raise ValueError(f"`name`={name!r} is no case; choose from {', '.join(found)}")
    return found[name]


def tagged(*tags: str, without: str = "") -> tuple[Case, ...]:
    """The cases that have all of `tags` and none of the blank-separated tags of `without`.

    >>> [str(case) for case in tagged("few")]
    ['everything', 'multiplier', '3d_everything', 'transposed_groups']
    """
    return tuple(c for c in CASES if set(tags) <= c.tags and not c.tags & set(without.split()))


def shapes(spec: ConvSpec) -> dict[str, Ints]:
    """The shapes of x, w and y."""
    return {"x": spec.x_shape, "w": spec.w_shape, "y": spec.y_shape}


def normal(spec: ConvSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Normally distributed x, w and y (a gradient of the output, to go backwards from)."""
    draw, dtype = np.random.default_rng(seed).standard_normal, np.dtype(spec.x_dtype)
    if dtype.kind == "c":
        return {name: (draw(s) + 1j * draw(s)).astype(dtype) for name, s in shapes(spec).items()}
    return {name: draw(shape).astype(dtype) for name, shape in shapes(spec).items()}


def whole(spec: ConvSpec, seed: int = 0, most: int = 3) -> dict[str, np.ndarray]:
    """x, w and y of whole numbers from −most to most, as the spec's dtype: their sums are exact."""
    draw, dtype = np.random.default_rng(seed).integers, np.dtype(spec.x_dtype)
    return {name: draw(-most, most + 1, shape).astype(dtype) for name, shape in shapes(spec).items()}


def operands(role: Role, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The two of x, w and y that `role` takes."""
    a, b = OPERANDS[role]
    return arrays[a], arrays[b]


def reduction(role: Role, spec: ConvSpec) -> int:
    """How many products are summed into one value of `role`'s result, at most."""
    taps = spec.taps
    return {"forward": taps * spec.c, "grad_input": taps * spec.o, "grad_kernel": spec.positions}[role]


def error(got: object, want: object) -> float:
    """max|got − want| / max|want|: what `jconv.testing.tolerance` bounds.  Infinite for a wrong shape, a NaN
    or an Inf.

    >>> error(np.array([1.0, 2.0]), np.array([1.0, 4.0])), error(np.ones(2), np.ones(3))
    (0.5, inf)
    """
    got, want = _wide(got), _wide(want)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max(initial=0) / (np.abs(want).max(initial=0) or 1))


def reference(role: Role, a: np.ndarray, b: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """`role` of `spec` in the widest dtype of its kind: (x, w) → y, (y, w) → x or (x, y) → w.

    >>> spec = ConvSpec.of(spatial=(4,), kernel=(2,))
    >>> reference("forward", np.arange(4.0).reshape(1, 4, 1), np.ones((2, 1, 1)), spec).ravel()
    array([1., 3., 5.])
    """
    given = dict(zip(OPERANDS[role], (_wide(a), _wide(b)), strict=True))
    x, w, y = (given.get(name, np.zeros(_split(name, spec), _wide(a).dtype)) for name in "xwy")
    x, w, y = (v.reshape(_split(name, spec)) for name, v in zip("xwy", (x, w, y), strict=True))
    for r, positions, inputs in meetings(spec):
        p: Any = (slice(None), *positions)
        h: Any = (slice(None), *inputs)
        if role == "forward":
            y[p] += np.einsum("n...gc,cgo->n...go", x[h], w[r])
        elif role == "grad_input":
            x[h] += np.einsum("n...go,cgo->n...gc", y[p], w[r])
        else:  # batch and space as one axis
            xs, ys = (a.reshape(-1, *a.shape[-2:]) for a in (x[h], y[p]))
            w[r] += np.einsum("pgc,pgo->cgo", xs, ys)
    result = {"forward": y, "grad_input": x, "grad_kernel": w}[role]
    return result.reshape(spec.result(role)[0])


def meetings(spec: ConvSpec) -> Iterator[tuple[Ints, Index, Index]]:
    """Per tap r: which outputs p see which inputs h through it, as open index grids."""
    for r in np.ndindex(*spec.kernel):
        pairs = [_meet(axis, tap, spec) for axis, tap in enumerate(r)]
        yield r, np.ix_(*(p for p, _ in pairs)), np.ix_(*(h for _, h in pairs))


def _meet(axis: int, r: int, spec: ConvSpec) -> tuple[np.ndarray, np.ndarray]:
    p = np.arange(spec.out_spatial[axis])
    t = p * spec.strides[axis] + r * spec.rhs_dilation[axis] - spec.padding[axis][0]
    h, off = np.divmod(t, spec.lhs_dilation[axis])
    seen = (off == 0) & (h >= 0) & (h < spec.spatial[axis])
    return p[seen], h[seen]


def _wide(a: object) -> np.ndarray:
    """Of its kind, the dtype with room for everything: float64, complex128 or int64."""
    kind = np.asarray(a).dtype.kind
    return np.array(a, {"c": "complex128", "i": "int64", "u": "int64", "b": "int64"}.get(kind, "float64"))


def _split(name: str, spec: ConvSpec) -> Ints:
    """The shape with the group axis on its own."""
    return {
        "x": (spec.batch, *spec.spatial, spec.groups, spec.c),
        "w": (*spec.kernel, spec.c, spec.groups, spec.o),
        "y": (spec.batch, *spec.out_spatial, spec.groups, spec.o),
    }[name]
