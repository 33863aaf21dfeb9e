"""Sizes that only a run will tell: every algorithm computes them or refuses them."""

import contextlib
import functools
import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import evaluate, refuses
from jconv.choice.pick import POLICIES, resolve
from jconv.programs.choose import choose
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import OPERANDS
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

# shapes of x and w, options, and the names of the sizes of x that are not known
CASES = {
    "all of x": ((2, 4, 9, 8), (6, 4, 3, 3), dict(padding=1), "b, 4, h, w"),
    "a patch": ((2, 4, 8, 12), (6, 4, 4, 4), dict(stride=4), "2, 4, h, w"),
    "a point": ((2, 4, 5, 6), (6, 4, 1, 1), dict(), "b, 4, h, 6"),
    "depthwise, wide": ((2, 4, 17, 16), (4, 1, 15, 15), dict(groups=4, padding=7), "2, 4, h, 16"),
}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def whole(seed, *shape):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype("float32")


def with_gradients(conv):
    def run(x, w):
        y, back = jax.vjp(conv, x, w)
        return y, *back(y)

    return jax.jit(run)


def program(name, options):
    return with_gradients(functools.partial(jconv.conv2d, algorithm=name, **options))


@functools.cache
def by_xla(case):
    x_shape, w_shape, options, _ = CASES[case]
    x, w = normal(0, *x_shape), normal(1, *w_shape)
    return x, w, program("xla", options)(x, w)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["auto", "fastest", *ALGORITHMS])  # "portable" is "auto" here
def test_it_computes_or_refuses(name, case):
    *_, options, sizes = CASES[case]
    x, w, wanted = by_xla(case)
    like = jax.export.symbolic_args_specs((x, w), (sizes, None))
    said = contextlib.nullcontext() if name in POLICIES else contextlib.suppress(RefusedError)
    with said, refusals_of(name):
        compare(jax.export.export(program(name, options))(*like).call(x, w), wanted, w)


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


def compare(found, expected, w):
    for got, wanted in zip(found, expected, strict=True):
        most = tolerance("float32", 4 * 225 * w.shape[0], amplification=20.0)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=most * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["multiplier", "winograd_size", "transposed"])
def test_every_algorithm_lowers_with_a_symbolic_batch(name):
    """An export may choose any of them, and none may ask how large an unknown size is."""
    known = cases.named(name).spec
    spec = known.replace(batch=jax.export.symbolic_shape("n")[0])
    for role, algorithm in itertools.product(ROLES, ALGORITHMS.values()):
        if refuses(algorithm, role, known) or refuses(algorithm, role, spec):
            continue
        like = [jax.ShapeDtypeStruct(cases.shapes(spec)[k], "float32") for k in OPERANDS[role]]
        exported = jax.export.export(jax.jit(functools.partial(evaluate, algorithm, role, spec=spec)))(*like)
        assert exported.out_avals[0].shape == spec.result(role)[0]


KNOBS = dict(stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2)
ANY = {  # a convolution, shapes of x that are tried, that of w, the sizes of x, what is known of them
    **{f"batch, {name}": (functools.partial(jconv.conv2d, algorithm=name, **KNOBS),
                          [(1, 4, 6, 5), (5, 4, 6, 5)], (6, 2, 3, 2), "n, 4, 6, 5", ())
       for name in ("auto", "im2col")},
    **{f"lax's, {padding}, {groups} groups": (
        functools.partial(jconv.conv_general_dilated, window_strides=(2, 1), padding=padding,
                          feature_group_count=groups),
        [(1, 4, 5, 6), (2, 4, 9, 7)], (8, 4 // groups, 3, 2), "b, 4, h, w", ())  # as lax, which needs no more
       for padding in ("SAME", "VALID", ((1, 2), (0, 1))) for groups in (1, 4)},
    **{f"same, stride {stride}, {groups} groups": (
        functools.partial(jconv.conv2d, stride=stride, padding="same", groups=groups),
        [(1, 4, 7, 8)], (4, 4 // groups, 3, 3), "1, 4, h, w", ("h >= 3", "w >= 3"))
       for stride in (2, 3) for groups in (1, 4)},
    "same, dilated": (functools.partial(jconv.conv2d, stride=3, dilation=(2, 3), padding="same"),
                      [(1, 3, 11, 6)], (5, 3, 3, 2), "1, 3, h, 6", ("h >= 5",)),
    "lax's own, by name": (jconv.accelerate(lambda x, w: lax.conv(x, w, (1, 1), "SAME"), algorithm="im2col"),
                           [(1, 4, 6, 5)], (6, 4, 3, 2), "1, 4, h, w", ("h >= 3", "w >= 2")),
    "grad_input": (lambda x, w: jconv.grad_input(x.shape, w, jconv.conv1d(x, w, stride=2), stride=2),
                   [(1, 4, 7)], (3, 4, 2), "1, 4, h", ("h >= 2",)),
    **{f"{mode}, {conv.__name__}": (functools.partial(conv, padding=(2, 1), padding_mode=mode),
                                    [(1, 2, 7, 6)], (2, 2, 3, 3), "1, 2, h, 6", ("h >= 4",))
       for mode in ("reflect", "replicate", "circular") for conv in (jconv.conv2d, jconv.conv_transpose2d)},
}  # fmt: skip


@pytest.mark.parametrize("name", ANY)
def test_one_program_for_all_sizes(name):
    """With its gradients: which taps a phase of one sees may depend on a padding that only a run tells."""
    conv, shapes, kernel, sizes, known = ANY[name]
    run = with_gradients(conv)
    xs, w = [whole(0, *shape) for shape in shapes], whole(1, *kernel)
    like = jax.export.symbolic_args_specs((xs[0], w), (sizes, None), constraints=known)
    exported = jax.export.export(run)(*like)
    for x in xs:
        jax.tree.map(np.testing.assert_array_equal, exported.call(x, w), run(x, w))


def test_the_gradient_of_laxs_own_while_installed():
    """lax hands on the padding it makes of "SAME", of a size that only a run will tell; no warning."""
    x, w = whole(0, 1, 4, 6, 7), whole(1, 4, 4, 3, 3)
    gradient = jax.grad(lambda x: (lax.conv(x, w, (1, 1), "SAME") ** 2).sum())
    (like,) = jax.export.symbolic_args_specs((x,), "1, 4, h, w", constraints=("h >= 3", "w >= 3"))
    expected = gradient(x)
    with jconv.installed():
        exported = jax.export.export(jax.jit(gradient))(like)
    np.testing.assert_array_equal(exported.call(x), expected)


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
