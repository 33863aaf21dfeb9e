"""Sizes that only a run will tell: every algorithm computes them or refuses them."""

import contextlib

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import refuses
from jconv.choice.pick import POLICIES, resolve
from jconv.programs.choose import choose
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance

# shapes of x and w, options, and the names of the sizes of x that are not known
CASES = {
    "all of x": ((2, 4, 9, 8), (6, 4, 3, 3), dict(padding=1), "b, 4, h, w"),
    "a patch": ((2, 4, 8, 12), (6, 4, 4, 4), dict(stride=4), "2, 4, h, w"),
    "a point": ((2, 4, 5, 6), (6, 4, 1, 1), dict(), "b, 4, h, 6"),
    "depthwise, wide": ((2, 4, 17, 16), (4, 1, 15, 15), dict(groups=4, padding=7), "2, 4, h, 16"),
}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def program(name, options):
    conv = lambda x, w: jconv.conv2d(x, w, algorithm=name, **options)  # noqa: E731
    return lambda x, w: (conv(x, w), *jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), (0, 1))(x, w))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["auto", "fastest", *ALGORITHMS])  # "portable" is "auto" here
def test_it_computes_or_refuses(name, case):
    x_shape, w_shape, options, sizes = CASES[case]
    x, w = normal(0, *x_shape), normal(1, *w_shape)
    like = jax.export.symbolic_args_specs((x, w), (sizes, None))
    said = contextlib.nullcontext() if name in POLICIES else contextlib.suppress(RefusedError)
    with said, refusals_of(name):
        compare(jax.export.export(jax.jit(program(name, options)))(*like), x, w, program("xla", options))


class RefusedError(Exception):
    """What a named algorithm may do."""


@contextlib.contextmanager
def refusals_of(name):
    try:
        yield
    except ValueError as error:
        if f"{name!r} refuses" not in str(error):
            raise
        raise RefusedError from error


def compare(exported, x, w, by_xla):
    for got, wanted in zip(exported.call(x, w), by_xla(x, w), strict=True):
        most = tolerance("float32", 4 * 225 * w.shape[0], amplification=20.0)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=most * np.abs(wanted).max())


def test_a_size_of_y_is_spelt_as_laxs():
    """JAX does not take max(0, h - 2) for max(h - 2, 0), and refused a cotangent of lax's shape."""
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("1, h, w, 1"), "float32")
    w = jax.ShapeDtypeStruct((3, 3, 1, 1), "float32")
    own, laxs = (
        jax.eval_shape(lambda x, w, m=m: m(x, w, (1, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")),
                       x, w).shape
        for m in (jconv.conv_general_dilated, lax.conv_general_dilated)
    )  # fmt: skip
    assert own == laxs


def wide():
    h, w = jax.export.symbolic_shape("h, w")
    known = ConvSpec.of(spatial=(16, 16), kernel=(31, 31), in_channels=256, out_channels=256, groups=256,
                        padding=((15, 15),) * 2)  # fmt: skip
    return known, known.replace(spatial=(h, w))


def test_what_would_be_chosen_and_refuses_is_left_to_xla(monkeypatch):
    """The choice takes 16 for a size that it does not know, and the FFT for such a kernel."""
    monkeypatch.setenv("JCONV_PORTABLE", "1")
    known, unknown = wide()
    assert choose(known, algorithm="fastest", platform="cpu").algorithm.name.startswith("fft")
    choice = choose(unknown, algorithm="fastest", platform="cpu")
    assert choice.algorithm.name == resolve("fastest", "forward", unknown, "cpu")[0].name == "xla"
    assert "only a run will tell" in choice.reason


def test_an_export_of_it():
    """Tracing the FFT found no method of such a size: an AttributeError."""
    _, spec = wide()
    x, w = jnp.asarray(normal(0, 1, 7, 5, 256)), jnp.asarray(normal(1, 31, 31, 1, 256))
    conv = lambda x, w: jconv.conv2d(  # noqa: E731
        x, w, groups=256, padding=15, layout="NHWC", algorithm="fastest"
    )
    like = jax.ShapeDtypeStruct(spec.x_shape, "float32"), jax.ShapeDtypeStruct(spec.w_shape, "float32")
    got = jax.export.export(jax.jit(conv))(*like).call(x, w)
    wanted = lax.conv_general_dilated(
        x, w, (1, 1), [(15, 15)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=256
    )
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance("float32", 961) * np.abs(wanted).max())


def test_only_sizes_that_are_asked_for_are_missed():
    """An FFT along known sizes of an unknown batch computes."""
    (n,) = jax.export.symbolic_shape("n")
    known, _ = wide()
    assert refuses(ALGORITHMS["fft"], "forward", known.replace(batch=n)) is None


def test_the_refusal_is_at_the_border():
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("1, 4, h, 8"), "float32")
    fft = lambda x, w: jconv.conv2d(x, w, algorithm="fft")  # noqa: E731
    with pytest.raises(ValueError, match=r"`algorithm`='fft' refuses .* only a run will tell"):
        jax.eval_shape(fft, x, jnp.ones((4, 4, 3, 3)))
