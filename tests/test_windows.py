"""Slices, pads and sums of the padded input, which the direct algorithms share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import equations

from jconv.algorithms import regions, windows
from jconv.spec import ConvSpec
from jconv.testing import cases


@pytest.mark.parametrize("seed", range(12))
def test_a_pad_of_axes_in_order_is_a_pad(seed):
    """Zeros around, cuts and zeros between, of some of the axes."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, 5, rng.integers(2, 6)))
    first = int(rng.integers(0, len(shape)))
    each = [tuple(int(v) for v in (*rng.integers(0, 3, 2), rng.integers(0, 2))) for _ in shape[first:]]
    config = [one if rng.random() < 0.5 else windows.NONE for one in each]
    config = [(-1, hi, 0) if size > 1 and lo == 2 else (lo, hi, between)
              for size, (lo, hi, between) in zip(shape[first:], config, strict=True)]  # fmt: skip
    x = jnp.asarray(rng.standard_normal(shape, "float32"))
    wanted = lax.pad(x, 0.0, [*[windows.NONE] * first, *config])
    got = windows.resized(x, config, first, in_order=True)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("first", [1, 2])
def test_a_tap_is_one_slice(first):
    """Of one slice along each axis XLA writes out those that neighbouring taps share."""
    spec = ConvSpec.of(spatial=(9, 8), kernel=(3, 2), strides=(2, 3), rhs_dilation=(1, 2), in_channels=3)
    shape = (2, 9, 8, 3) if first == 1 else (2, 3, 9, 8)
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    (p, q), at = spec.out_spatial, (2, 1)
    wanted = x[(slice(None),) * first + (slice(2, 2 + 2 * p, 2), slice(2, 2 + 3 * q, 3))]
    np.testing.assert_array_equal(windows.tap(x, at, spec, first), wanted)
    taken = jax.make_jaxpr(lambda x: windows.tap(x, at, spec, first))(x)
    assert [equation.primitive.name for equation in equations(taken)] == ["slice"]


def test_what_a_region_sees_is_one_slice_a_tap():
    spec = cases.named("stride").spec.replace(padding=((1, 1), (1, 0)))
    region = tuple(max(regions.runs(spec, axis), key=lambda run: len(run.taps)) for axis in range(spec.ndim))
    x = np.zeros(spec.x_shape, "float32")
    taken = jax.make_jaxpr(lambda x: [view for view, _ in regions.views(x, region, spec)])(x)
    assert [equation.primitive.name for equation in equations(taken)] == ["slice"] * spec.taps


STRIDED = [case for case in cases.CASES if case.spec.is_strided and case.spec.groups == 1]


@pytest.mark.parametrize("most", [windows.MAX_SLICES, 0])
@pytest.mark.parametrize("case", STRIDED, ids=str)
def test_planes_are_added_up_as_pixels_are(case, most, monkeypatch):
    monkeypatch.setattr(windows, "MAX_SLICES", most)
    spec, n, rng = case.spec, case.spec.ndim, np.random.default_rng(0)
    shape = (spec.batch, *spec.out_spatial, *spec.kernel, spec.in_channels)
    columns = jnp.asarray(rng.integers(-8, 9, shape).astype("float32"))
    first = (0, 2 * n + 1, *range(n + 1, 2 * n + 1), *range(1, n + 1))

    @jax.jit
    def both(columns):
        planes = windows.overlap_add_planes(columns.transpose(first), spec)
        return windows.overlap_add(columns, spec), jnp.moveaxis(planes, 1, -1)

    pixels, planes = both(columns)
    assert pixels.shape == spec.x_shape
    np.testing.assert_array_equal(planes, pixels)
