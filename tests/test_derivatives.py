"""The backward pass, written by hand, in every mode JAX has."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracles import convolutions

import jconv
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES
from jconv.spec.tolerance import tolerance, unit_roundoff
from jconv.testing import cases

EXACT = "im2col"


def test_by_default_the_gradients_are_the_two_other_primitives():
    spec = cases.named("everything").spec
    a = cases.whole(spec)
    back = lambda x, w, g: jax.vjp(lambda x, w: convolve("forward", x, w, spec, "auto"), x, w)[1](g)  # noqa: E731
    bound = convolutions(back, a["x"], a["w"], a["y"])
    assert sorted(role for role, _ in bound) == sorted(ROLES)
    assert {found for _, found in bound} == {spec}


# -- every order, both modes -----------------------------------------------------------------------


def check(fn, args, order, reduction, modes=("fwd", "rev")):
    """Central differences with step u^⅓: they err by u^⅔ and the third derivative; √u is room enough."""
    bound = tolerance("float64", reduction) ** (1 / 2)
    check_grads(fn, args, order, modes, atol=bound, rtol=bound, eps=unit_roundoff("float64") ** (1 / 3))


@pytest.mark.parametrize(
    ("name", "role", "order"),
    [
        ("everything", "forward", 2),
        ("everything", "grad_input", 2),
        ("everything", "grad_kernel", 2),
        ("transposed_groups", "forward", 2),
        ("3d_everything", "forward", 2),
        ("one_channel", "forward", 3),
    ],
)
def test_check_grads(x64, name, role, order):
    spec = cases.named(name).spec.with_dtype("float64")
    a, b = map(jnp.asarray, cases.operands(role, cases.normal(spec)))
    reduction = max(cases.reduction(r, spec) for r in ROLES)
    check(lambda a, b: convolve(role, a, b, spec, "auto"), (a, b), order, reduction)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_check_grads_at_the_door(x64, layout):
    x, w, b, _ = arrays(layout, "float64")
    conv = functools.partial(jconv.conv2d, layout=layout, **KNOBS)
    check(conv, (x, w, b), 1, 60)


# -- every transformation --------------------------------------------------------------------------

KNOBS = dict(stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2)


def arrays(layout="NCHW", dtype="float32"):
    """x, w, b and the output's gradient, of whole numbers."""
    rng = np.random.default_rng(0)
    x, w, y = (2, 4, 6, 5), (6, 2, 3, 2), (2, 6, 3, 5)
    if layout == "NHWC":
        x, w, y = (tuple(s[i] for i in (0, 2, 3, 1)) for s in (x, w[1:2] + w[:1] + w[2:], y))
        w = (3, 2, 2, 6)
    return [jnp.asarray(rng.integers(-2, 3, shape), dtype) for shape in (x, w, (6,), y)]


def lax_conv(x, w, b, layout="NCHW"):
    """The same convolution by lax."""
    numbers = ("NCHW", "OIHW", "NCHW") if layout == "NCHW" else ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, w, (2, 1), ((1, 0), (0, 2)), rhs_dilation=(1, 2), dimension_numbers=numbers, feature_group_count=2
    )
    return y + (b[:, None, None] if layout == "NCHW" else b)


def conv(x, w, b, layout="NCHW"):
    return jconv.conv2d(x, w, b, layout=layout, algorithm=EXACT, **KNOBS)


def loss(conv):
    """Cubic in everything: derivatives of second order are neither zero nor constant."""

    def of(x, w, b):
        y = conv(x, w, b)
        return (y * y * (1 + y[..., ::-1])).sum()

    return of


def scanned(conv):
    """The kernel shrinks by a gradient step, three times over."""

    def of(x, w, b):
        def step(w, _):
            return w - jnp.sign(jax.grad(loss(conv), 1)(x, w, b)), conv(x, w, b).sum()

        return jax.lax.scan(step, w, length=3)

    return of


def as_hvp(grad_mode):
    """Hessian times a vector, forward over reverse or reverse over reverse."""

    def of(conv):
        def hvp(x, w, b):
            grad = jax.grad(loss(conv), 1)
            if grad_mode == "forward":
                return jax.jvp(lambda w: grad(x, w, b), (w,), (w[::-1],))[1]
            return jax.grad(lambda w: jnp.vdot(grad(x, w, b), w[::-1]).sum())(w)

        return hvp

    return of


def tangents(x, w, b):
    return x[..., ::-1], w[..., ::-1], b[::-1]


TRANSFORMATIONS = {
    "eager": lambda c: c,
    "jit": lambda c: c,
    "grad": lambda c: jax.grad(loss(c), (0, 1, 2)),
    "remat": lambda c: jax.grad(loss(jax.checkpoint(c)), (0, 1, 2)),
    "scan": scanned,
    "jvp": lambda c: lambda *a: jax.jvp(c, a, tangents(*a)),
    "linearize": lambda c: lambda *a: jax.linearize(c, *a)[1](*tangents(*a)),
    "vjp_of_jvp": lambda c: lambda x, w, b: jax.grad(
        lambda x: jax.jvp(loss(c), (x, w, b), tangents(x, w, b))[1]
    )(x),
    "jacfwd": lambda c: jax.jacfwd(c, (1, 2)),
    "jacrev": lambda c: lambda x, w, b: jax.jacrev(lambda x, w: c(x, w, b)[0, 3], (0, 1))(x, w),
    "hessian": lambda c: jax.hessian(loss(c), 1),
    "hvp_forward_over_reverse": as_hvp("forward"),
    "hvp_reverse_over_reverse": as_hvp("reverse"),
    "linear_transpose": lambda c: lambda x, w, b: jax.linear_transpose(
        lambda x: c(x, w, 0 * b), x
    )(c(x, w, b)),
    "while_loop": lambda c: lambda *a: jax.lax.fori_loop(0, 2, lambda i, y: y + c(*a), c(*a)),
    "cond": lambda c: lambda *a: jax.lax.cond(a[2].sum() > -99, c, lambda *a: 0 * c(*a), *a),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformation(name):
    a = arrays()[:3]
    compiled = (lambda f: f) if name == "eager" else jax.jit
    assert_equal_trees(*(compiled(TRANSFORMATIONS[name](c))(*a) for c in (conv, lax_conv)))


@pytest.mark.parametrize("name", ["grad", "hvp_forward_over_reverse"])
def test_transformation_channels_last(name):
    a = arrays("NHWC")[:3]
    last = [functools.partial(c, layout="NHWC") for c in (conv, lax_conv)]
    assert_equal_trees(*(jax.jit(TRANSFORMATIONS[name](c))(*a) for c in last))


def assert_equal_trees(ours, theirs):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert any(np.any(np.asarray(b)) for b in theirs)


def test_lower_and_compile_ahead_of_time():
    a = arrays()[:3]
    compiled = jax.jit(conv).lower(*a).compile()
    np.testing.assert_array_equal(compiled(*a), lax_conv(*a))
    np.testing.assert_array_equal(compiled(*(v + 1 for v in a)), lax_conv(*(v + 1 for v in a)))


def test_x64_keeps_64_bits(x64):
    x, w, b, g = (v / 3 for v in arrays("NCHW", "float64"))
    y, back = jax.vjp(conv, x, w, b)
    want_y, want_back = jax.vjp(lax_conv, x, w, b)
    for got, want in zip((y, *back(g)), (want_y, *want_back(g)), strict=True):
        assert got.dtype == "float64"
        assert cases.error(got, np.asarray(want)) <= tolerance("float64", 100)


def test_autodiff_through_bfloat16_keeps_its_dtype():
    a = [v.astype("bfloat16") for v in arrays()[:3]]
    for got, given in zip(jax.grad(lambda *a: conv(*a).sum(), (0, 1, 2))(*a), a, strict=True):
        assert (got.dtype, got.shape) == (given.dtype, given.shape)


# -- on a mesh -------------------------------------------------------------------------------------

SHARD_MAP = """
import jax, numpy as np, jconv
from jax.sharding import PartitionSpec as P

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
x, w = (rng.integers(-3, 4, s).astype("float32") for s in ((4, 4, 7, 6), (6, 2, 3, 3)))

def loss(x, w):
    return (jconv.conv2d(x, w, stride=2, padding=1, groups=2, algorithm="im2col") ** 2).sum()

def total(x, w):
    local = lambda x, w: jax.lax.psum(loss(x, w), "data")
    return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P()), out_specs=P(), check_vma=True)(x, w)

def inside(x, w):  # the gradient taken on each device: of w, unvarying, it is summed over the mesh
    specs = (P("data"), P())
    grads = jax.grad(loss, (0, 1))
    return jax.shard_map(grads, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=True)(x, w)

want = jax.grad(loss, (0, 1))(x, w)
for got in (jax.jit(jax.grad(total, (0, 1)))(x, w), jax.jit(inside)(x, w)):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
print("equal")
"""


def test_gradients_inside_shard_map():
    """In a process of its own: the number of simulated devices is fixed when jax starts."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    paths = {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", SHARD_MAP], env=flags | paths, capture_output=True, text=True, check=False
    )
    assert run.stdout == "equal\n", run.stderr
