"""Multiply-add: the regions of outputs that see the same taps, and kernel gradients image by image."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import compiled, equations, lax_role

from jconv.algorithms import DEPTHWISE, multiply_add, multiply_add_gradient
from jconv.algorithms.multiply_add import BROADCAST
from jconv.algorithms.record import evaluate
from jconv.algorithms.regions import runs
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

GEOMETRIES = [
    dict(kernel=(3,), padding=((2, 0),)),
    dict(kernel=(3, 2), padding=((1, 1), (0, 1)), strides=(2, 3)),
    dict(kernel=(2, 3), padding=((4, 5), (1, 6)), rhs_dilation=(1, 2)),  # outputs that see no tap at all
    dict(kernel=(3, 3), padding=((-1, 2), (3, -2)), strides=(1, 2), rhs_dilation=(2, 1)),
    dict(kernel=(5, 1), padding=((7, 3), (0, 0))),  # a kernel taller than the image
]


def spec_of(geometry, c=1):
    spatial = (4, 9)[-len(geometry["kernel"]) :]
    return ConvSpec.of(batch=2, spatial=spatial, in_channels=3 * c, out_channels=6, groups=3, **geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_runs_are_the_taps_inside_the_image(geometry):
    spec = spec_of(geometry)
    for axis, (size, outs) in enumerate(zip(spec.spatial, spec.out_spatial, strict=True)):
        seen = {}
        counted = itertools.count()
        for run_ in runs(spec, axis):
            for i, p in zip(range(run_.count), counted, strict=False):
                at = [
                    run_.start + i * spec.strides[axis] + j * spec.rhs_dilation[axis]
                    for j in range(len(run_.taps))
                ]
                seen[p] = list(zip(run_.taps, at, strict=True))
        image = np.pad(np.arange(size), size + 20, constant_values=-1)  # −1 where there is no image
        wanted = {
            p: [
                (r, value)
                for r in range(spec.kernel[axis])
                if (value := image[size + 20 + p * spec.strides[axis] + r * spec.rhs_dilation[axis]
                                   - spec.padding[axis][0]]) >= 0
            ]
            for p in range(outs)
        }  # fmt: skip
        assert seen == wanted


@pytest.mark.parametrize(("algorithm", "c"), [(DEPTHWISE, 1), (BROADCAST, 2)], ids=["depthwise", "broadcast"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_regions_agree_with_lax_bit_for_bit(geometry, algorithm, c):
    rng = np.random.default_rng(0)
    spec = spec_of(geometry, c)
    assert multiply_add.by_region(spec)
    x, w = (rng.integers(-4, 5, shape).astype("f") for shape in (spec.x_shape, spec.w_shape))
    got = jax.jit(lambda x, w: evaluate(algorithm, "forward", x, w, spec))(x, w)
    np.testing.assert_array_equal(got, lax_role("forward", x, w, spec))


def test_a_convolution_that_is_read_twice_is_computed_once():
    """The compiler would move what reads y through the join of its regions, and compute each again."""
    spec = ConvSpec.of(spatial=(14, 13), kernel=(3, 3), padding=((1, 1), (1, 1)), in_channels=16,
                       out_channels=16, groups=16)  # fmt: skip

    def products(count):
        def fun(x, w):
            for _ in range(count):
                x = evaluate(DEPTHWISE, "forward", x, w, spec)
            return x - x.mean((0, 1, 2))

        lowered = jax.jit(fun).lower(jnp.ones(spec.x_shape), jnp.ones(spec.w_shape))
        return lowered.compile().as_text().count(" multiply(")

    assert products(1) < 2 * 49  # of nine regions
    assert products(3) < 4 * 49


def test_there_is_no_padded_copy():
    spec = ConvSpec.of(
        spatial=(9, 8), kernel=(3, 3), padding=((1, 1), (1, 1)), in_channels=4, out_channels=4, groups=4
    )
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in (spec.x_shape, spec.w_shape))
    names = [
        eqn.primitive.name
        for eqn in equations(jax.make_jaxpr(lambda x, w: evaluate(DEPTHWISE, "forward", x, w, spec))(x, w))
    ]
    assert "mul" in names
    assert "pad" not in names


@pytest.mark.parametrize("images", [1, 2, 3])
def test_large_batches_are_summed_some_images_at_a_time(images, monkeypatch):
    rng = np.random.default_rng(0)
    spec = ConvSpec.of(
        batch=6,
        spatial=(7, 5),
        kernel=(3, 2),
        padding=((1, 1), (0, 1)),
        in_channels=4,
        out_channels=8,
        groups=4,
    )  # fmt: skip
    x, g = (rng.standard_normal(shape, dtype="f") for shape in (spec.x_shape, spec.y_shape))
    one = (x.nbytes + g.nbytes) // spec.batch
    for limit in ("CACHED", "REUSED"):
        monkeypatch.setattr(multiply_add_gradient, limit, images * one)
    program = jax.jit(lambda x, g: evaluate(DEPTHWISE, "grad_kernel", x, g, spec))
    loops = [e for e in equations(jax.make_jaxpr(program)(x, g)) if e.primitive.name in ("while", "scan")]
    assert len(loops) == 1
    wanted = np.asarray(lax_role("grad_kernel", x, g, spec))
    bound = tolerance("float32", spec.positions) * np.abs(wanted).max()
    np.testing.assert_allclose(program(x, g), wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 1, 3), (1, 1, 1), (1, 9, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_gradients_of_axes_without_extent(kernel, stride):
    spec = ConvSpec.of(
        batch=2, spatial=(5, 11, 6), kernel=kernel, strides=(1, stride, stride), in_channels=3,
        out_channels=6, groups=3, padding=tuple((k // 2, k // 2) for k in kernel),
    )  # fmt: skip
    arrays = cases.whole(spec)
    got = compiled(DEPTHWISE, "grad_kernel", *map(jnp.asarray, cases.operands("grad_kernel", arrays)), spec)
    want = cases.reference("grad_kernel", *cases.operands("grad_kernel", arrays), spec)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("o", "side", "repeated"), [(3, 3, True), (2, 5, True), (4, 3, False), (1, 5, False)]
)
@pytest.mark.parametrize("pad", [0, 2])
def test_channels_are_repeated_where_their_outputs_make_no_vector(o, side, repeated, pad):
    spec = ConvSpec.of(
        batch=2, spatial=(9, 7), kernel=(side, side), strides=(2, 1), in_channels=3, out_channels=3 * o,
        groups=3, padding=((pad, pad), (pad, 1)),
    )  # fmt: skip
    assert multiply_add.is_repeated(spec) == repeated
    arrays = cases.whole(spec)
    got = compiled(DEPTHWISE, "forward", *map(jnp.asarray, cases.operands("forward", arrays)), spec)
    np.testing.assert_array_equal(got, cases.reference("forward", *cases.operands("forward", arrays), spec))
