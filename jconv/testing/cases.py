"""One table of small geometries, shared by the tests, the command line's self-check and the benchmarks.

Every case is a `ConvSpec` with a name and tags.  Sizes are small, mostly odd and all different, so that
a mixed-up axis shows.  `reference` computes any role of any spec in float64 with NumPy, tap by tap,
from the one relation that defines a convolution, independent of everything else in this library:

    output p and input h meet at tap r   iff   p·stride + r·rhs_dilation − lo = h·lhs_dilation
"""

from __future__ import annotations

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

    Args:
      name: what a test id or a line of a report says.
      spec: the problem, float32.
      tags: what is special about it; "few" marks the handful that together show every feature.

    >>> case = named("depthwise")
    >>> case.spec.is_depthwise, str(case)
    (True, 'depthwise')
    """

    name: str
    spec: ConvSpec
    tags: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


def _case(name: str, tags: str = "", **spec: object) -> Case:
    return Case(name, ConvSpec.of(**spec), frozenset(tags.split()))  # type: ignore[arg-type]


def _square(pad: int, ndim: int = 2) -> tuple[tuple[int, int], ...]:
    return ((pad, pad),) * ndim


CASES: tuple[Case, ...] = (
    _case("plain", batch=2, spatial=(7, 6), kernel=(3, 3), in_channels=3, out_channels=4),
    _case("same", "padding", batch=2, spatial=(6, 7), kernel=(3, 3), in_channels=3, out_channels=5,
          padding=_square(1)),
    _case("stride", "stride padding", batch=2, spatial=(9, 11), kernel=(3, 3), in_channels=3,
          out_channels=4, strides=(2, 3), padding=_square(1)),
    _case("leftover", "stride", batch=1, spatial=(8, 9), kernel=(3, 2), in_channels=2, out_channels=3,
          strides=(3, 4)),
    _case("tiles", "stride padding", batch=2, spatial=(7, 9), kernel=(2, 3), in_channels=3, out_channels=4,
          strides=(2, 3), padding=((1, 0), (0, 2))),
    _case("gaps", "stride", batch=2, spatial=(11, 10), kernel=(2, 1), in_channels=2, out_channels=3,
          strides=(4, 3)),
    _case("asymmetric", "padding", batch=2, spatial=(5, 6), kernel=(3, 4), in_channels=2, out_channels=3,
          padding=((1, 2), (0, 3))),
    _case("wide_padding", "padding", batch=1, spatial=(3, 4), kernel=(2, 2), in_channels=2,
          out_channels=3, padding=((3, 4), (5, 3))),
    _case("overpadded", "padding", batch=2, spatial=(8, 7), kernel=(2, 2), in_channels=2, out_channels=3,
          padding=((3, 0), (0, 2))),
    _case("crop", "padding", batch=2, spatial=(9, 8), kernel=(3, 2), in_channels=2, out_channels=3,
          padding=((-2, 1), (0, -3))),
    _case("dilation", "dilation", batch=2, spatial=(9, 11), kernel=(3, 3), in_channels=3, out_channels=4,
          rhs_dilation=(2, 3)),
    _case("stride_dilation", "stride dilation padding", batch=1, spatial=(11, 13), kernel=(3, 2),
          in_channels=3, out_channels=2, strides=(2, 3), rhs_dilation=(3, 2), padding=((2, 1), (0, 2))),
    _case("groups", "groups padding", batch=2, spatial=(6, 5), kernel=(3, 3), in_channels=6,
          out_channels=4, groups=2, padding=_square(1)),
    _case("everything", "few stride dilation groups padding", batch=2, spatial=(10, 9), kernel=(3, 2),
          in_channels=6, out_channels=9, groups=3, strides=(2, 1), rhs_dilation=(2, 3),
          padding=((1, 2), (3, 0))),
    _case("depthwise", "groups depthwise padding", batch=2, spatial=(7, 6), kernel=(3, 3), in_channels=5,
          out_channels=5, groups=5, padding=_square(1)),
    _case("multiplier", "few groups depthwise stride padding", batch=2, spatial=(7, 8), kernel=(3, 3),
          in_channels=3, out_channels=6, groups=3, strides=(2, 2), padding=_square(1)),
    _case("pointwise", "pointwise", batch=3, spatial=(5, 4), kernel=(1, 1), in_channels=6, out_channels=5),
    _case("pointwise_strided", "pointwise stride padding groups", batch=2, spatial=(7, 6), kernel=(1, 1),
          in_channels=4, out_channels=6, groups=2, strides=(2, 3), padding=((0, 1), (1, 0))),
    _case("whole_input", "", batch=2, spatial=(5, 4), kernel=(5, 4), in_channels=3, out_channels=4),
    _case("non_square", "padding", batch=2, spatial=(4, 13), kernel=(2, 5), in_channels=3, out_channels=4,
          padding=((1, 0), (2, 3))),
    _case("one_channel", "", batch=1, spatial=(5, 5), kernel=(3, 3)),
    _case("batch_one", "padding", batch=1, spatial=(7, 5), kernel=(3, 3), in_channels=3, out_channels=5,
          padding=_square(1)),
    _case("batch_three", "padding", batch=3, spatial=(5, 7), kernel=(3, 3), in_channels=2,
          out_channels=4, padding=_square(1)),
    _case("winograd_size", "padding", batch=2, spatial=(9, 10), kernel=(3, 3), in_channels=8,
          out_channels=6, padding=_square(1)),
    _case("large_kernel", "padding", batch=1, spatial=(11, 12), kernel=(5, 7), in_channels=2,
          out_channels=2, padding=((2, 2), (3, 3))),
    _case("taps_in_blocks", "padding", batch=2, spatial=(14, 9), kernel=(11, 6), in_channels=2,
          out_channels=3, padding=((4, 3), (0, 2))),
    _case("1d_long", "1d dilation padding", batch=2, spatial=(99,), kernel=(67,), in_channels=3,
          out_channels=2, rhs_dilation=(2,), padding=((70, 3),)),
    _case("1d", "1d padding stride", batch=2, spatial=(12,), kernel=(5,), in_channels=3, out_channels=4,
          strides=(2,), padding=((2, 1),)),
    _case("1d_causal", "1d depthwise groups dilation padding", batch=2, spatial=(11,), kernel=(3,),
          in_channels=4, out_channels=4, groups=4, rhs_dilation=(2,), padding=((4, 0),)),
    _case("3d", "3d padding", batch=2, spatial=(5, 4, 6), kernel=(2, 3, 2), in_channels=2, out_channels=3,
          padding=((1, 0), (1, 1), (0, 0))),
    _case("3d_everything", "few 3d stride dilation groups padding", batch=1, spatial=(6, 5, 7),
          kernel=(3, 2, 2), in_channels=4, out_channels=6, groups=2, strides=(2, 1, 2),
          rhs_dilation=(1, 2, 3), padding=((1, 1), (0, 1), (2, 0))),
    _case("transposed", "lhs_dilation padding", batch=2, spatial=(5, 4), kernel=(4, 3), in_channels=3,
          out_channels=4, lhs_dilation=(2, 3), padding=((2, 2), (1, 2))),
    _case("transposed_tiles", "lhs_dilation padding", batch=2, spatial=(4, 3), kernel=(2, 3), in_channels=3,
          out_channels=4, lhs_dilation=(2, 3), padding=((1, 1), (1, 3))),
    _case("transposed_groups", "few lhs_dilation stride dilation groups padding", batch=2, spatial=(5, 6),
          kernel=(3, 2), in_channels=4, out_channels=6, groups=2, strides=(3, 2), lhs_dilation=(2, 3),
          rhs_dilation=(2, 1), padding=((3, 1), (-1, 2))),
    _case("transposed_depthwise", "lhs_dilation depthwise groups padding", batch=2, spatial=(4, 5),
          kernel=(3, 4), in_channels=3, out_channels=3, groups=3, lhs_dilation=(2, 2),
          padding=((1, 2), (2, 2))),
    _case("transposed_1d", "1d lhs_dilation padding", batch=2, spatial=(6,), kernel=(5,), in_channels=3,
          out_channels=2, lhs_dilation=(3,), padding=((4, 4),)),
)  # fmt: skip


def named(name: str) -> Case:
    """The case of that name."""
    (found,) = (case for case in CASES if case.name == name)
    return found


def tagged(*tags: str, without: str = "") -> tuple[Case, ...]:
    """The cases that have all of `tags` and none of the blank-separated tags of `without`.

    >>> [str(case) for case in tagged("few")]
    ['everything', 'multiplier', '3d_everything', 'transposed_groups']
    """
    return tuple(c for c in CASES if set(tags) <= c.tags and not c.tags & set(without.split()))


# -- arrays ----------------------------------------------------------------------------------------


def with_dtype(spec: ConvSpec, dtype: str) -> ConvSpec:
    """The same problem on arrays of another dtype."""
    return spec.replace(x_dtype=dtype, w_dtype=dtype, y_dtype=dtype)


def shapes(spec: ConvSpec) -> dict[str, Ints]:
    """The shapes of x, w and y."""
    return {"x": spec.x_shape, "w": spec.w_shape, "y": spec.y_shape}


def normal(spec: ConvSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Normally distributed x, w and y (a gradient of the output, to go backwards from)."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(spec.x_dtype)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes(spec).items()}


def whole(spec: ConvSpec, seed: int = 0, most: int = 3) -> dict[str, np.ndarray]:
    """x, w and y of whole numbers from −most to most, as the spec's dtype: their sums are exact."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(spec.x_dtype)
    return {name: rng.integers(-most, most + 1, shape).astype(dtype) for name, shape in shapes(spec).items()}


def operands(role: Role, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The two of x, w and y that `role` takes."""
    a, b = OPERANDS[role]
    return arrays[a], arrays[b]


def reduction(role: Role, spec: ConvSpec) -> int:
    """How many products are summed into one value of `role`'s result, at most."""
    return {
        "forward": spec.taps * spec.c,
        "grad_input": spec.taps * spec.o,
        "grad_kernel": spec.positions,
    }[role]


def error(got: object, want: np.ndarray) -> float:
    """max|got − want| / max|want|: what `jconv.testing.tolerance` bounds.  NaN where `got` has one."""
    want = np.asarray(want)
    off = np.abs(np.asarray(got).astype(want.dtype) - want)
    return float(off.max(initial=0) / (np.abs(want).max(initial=0) or 1))


# -- the reference ---------------------------------------------------------------------------------


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
        else:
            w[r] += np.einsum("pgc,pgo->cgo", _positions(x[h]), _positions(y[p]))
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


def _positions(a: np.ndarray) -> np.ndarray:
    """Batch and space as one axis."""
    return a.reshape(-1, *a.shape[-2:])


def _wide(a: np.ndarray) -> np.ndarray:
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
