"""The backward pass, written by hand, in every mode JAX has."""

import functools
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracles import convolutions, lax_forward

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import evaluate, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES
from jconv.spec.tolerance import tolerance, unit_roundoff
from jconv.testing import cases
from jconv.textbook.backward import conv2d_backward

EXACT = "im2col"

# -- all ways agree --------------------------------------------------------------------------------


@functools.cache
def gradients(case):
    """(∂x, ∂w) of whole numbers by every way of attaching the backward, from one compilation."""
    spec, arrays = case.spec, cases.whole(case.spec)
    attached = {
        "primitives": lambda x, w: convolve("forward", x, w, spec, EXACT),
        "autodiff": lambda x, w: evaluate(ALGORITHMS[EXACT], "forward", x, w, spec),
    }

    @jax.jit
    def all_of_them(x, w, g):
        return {name: jax.vjp(conv, x, w)[1](g) for name, conv in attached.items()}

    return all_of_them(arrays["x"], arrays["w"], arrays["y"])


def textbook_gradients(x, w, g, spec):
    """NumPy's backward by hand, between channels-last arrays."""
    first = lambda a: np.moveaxis(a, -1, 1)  # noqa: E731
    grads = conv2d_backward(
        first(g), first(x), w.transpose(3, 2, 0, 1), stride=spec.strides, padding=spec.padding,
        dilation=spec.rhs_dilation, groups=spec.groups,
    )  # fmt: skip
    return np.moveaxis(grads.x, 1, -1), grads.w.transpose(2, 3, 1, 0)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_every_way_gives_the_same_gradients(case):
    a = cases.whole(case.spec)
    dx = cases.reference("grad_input", a["y"], a["w"], case.spec)
    dw = cases.reference("grad_kernel", a["x"], a["y"], case.spec)
    for name, (x, w) in gradients(case).items():
        np.testing.assert_array_equal(x, dx, err_msg=name)
        np.testing.assert_array_equal(w, dw, err_msg=name)


def in_textbook(case):
    """The textbook is 2-D, with strides and padding that only adds."""
    pads = min(min(pair) for pair in case.spec.padding) >= 0
    return case.spec.ndim == 2 and pads and set(case.spec.lhs_dilation) == {1}


@pytest.mark.parametrize("case", filter(in_textbook, cases.CASES), ids=str)
def test_the_textbook_gives_them_too(case):
    a = cases.whole(case.spec)
    by_hand = textbook_gradients(a["x"], a["w"], a["y"], case.spec)
    for ours, theirs in zip(gradients(case)["primitives"], by_hand, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_lax_gives_them_too(x64, case):
    spec = case.spec.with_dtype("float64")  # until jaxlib 0.12: float32 reads beside x in "crop"
    a = cases.whole(spec)
    back = jax.jit(lambda x, w, g: jax.vjp(functools.partial(lax_forward, spec=spec), x, w)[1](g))
    for ours, theirs in zip(gradients(case)["primitives"], back(a["x"], a["w"], a["y"]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_adjoint_identity(case):
    """⟨g, conv(x, w)⟩ = ⟨grad_input(g, w), x⟩ = ⟨grad_kernel(x, g), w⟩."""
    a = cases.whole(case.spec, seed=0)
    y = cases.reference("forward", a["x"], a["w"], case.spec)
    dx, dw = (np.asarray(v, "float64") for v in gradients(case)["primitives"])
    assert np.vdot(a["y"], y) == np.vdot(dx, a["x"]) == np.vdot(dw, a["w"])
    assert np.vdot(a["y"], y) != 0


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


def test_custom_batching_around_it():
    x, w, b, _ = arrays()
    calls = []

    @jax.custom_batching.custom_vmap
    def wrapped(x, w):
        return conv(x, w, b)

    @wrapped.def_vmap
    def rule(size, batched, x, w):
        calls.append(batched)
        return jax.vmap(lambda x: conv(x, w, b))(x), True

    many = jnp.stack([x, x + 1, -x])
    np.testing.assert_array_equal(
        jax.vmap(wrapped, (0, None))(many, w), np.stack([lax_conv(v, w, b) for v in many])
    )
    assert calls == [[True, False]]


@pytest.mark.parametrize("algorithm", ["auto", EXACT])
def test_export_with_symbolic_batch(algorithm):
    _, w, b, _ = arrays()
    (n,) = jax.export.symbolic_shape("n")

    def with_gradients(conv):
        return lambda x, w, b: (conv(x, w, b), jax.grad(loss(conv), (0, 1))(x, w, b))

    step = with_gradients(functools.partial(jconv.conv2d, algorithm=algorithm, **KNOBS))
    like = [jax.ShapeDtypeStruct(s, "float32") for s in ((n, 4, 6, 5), w.shape, b.shape)]
    exported = jax.export.export(jax.jit(step))(*like)
    for size in (1, 5):
        x = jnp.asarray(np.random.default_rng(size).integers(-3, 4, (size, 4, 6, 5)), "float32")
        assert_equal_trees(exported.call(x, w, b), with_gradients(lax_conv)(x, w, b))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))], ids=str)
@pytest.mark.parametrize("groups", [1, 4])
def test_export_with_symbolic_height_and_width(padding, groups):
    """No constraints: lax needs none either."""
    like = jax.export.symbolic_args_specs((np.ones((2, 4, 8, 8), "float32"),), "b, 4, h, w")
    w = jnp.asarray(np.random.default_rng(0).integers(-3, 4, (8, 4 // groups, 3, 2)), "float32")

    def with_gradient(conv, x):
        y = functools.partial(conv, rhs=w, window_strides=(2, 1), padding=padding, feature_group_count=groups)
        return y(x), jax.grad(lambda x: jnp.sum(y(x) ** 2))(x)

    ours = functools.partial(with_gradient, jconv.conv_general_dilated)
    exported = jax.export.export(jax.jit(ours))(*like)
    for size in ((1, 4, 5, 6), (2, 4, 9, 7)):
        x = jnp.asarray(np.random.default_rng(1).integers(-3, 4, size), "float32")
        assert_equal_trees(exported.call(x), with_gradient(jax.lax.conv_general_dilated, x))


@pytest.mark.parametrize("name", ["multiplier", "winograd_size", "transposed"])
def test_every_algorithm_lowers_with_a_symbolic_batch(name):
    """An export may choose any of them, and none may ask how large an unknown size is."""
    known = cases.named(name).spec
    spec = known.replace(batch=jax.export.symbolic_shape("n")[0])
    for role, algorithm in itertools.product(ROLES, ALGORITHMS.values()):
        if refuses(algorithm, role, known) or refuses(algorithm, role, spec):
            continue
        like = [jax.ShapeDtypeStruct(cases.shapes(spec)[k], "float32") for k in cases.OPERANDS[role]]
        exported = jax.export.export(jax.jit(functools.partial(evaluate, algorithm, role, spec=spec)))(*like)
        assert exported.out_avals[0].shape == spec.result(role)[0]


def test_lower_and_compile_ahead_of_time():
    a = arrays()[:3]
    compiled = jax.jit(conv).lower(*a).compile()
    np.testing.assert_array_equal(compiled(*a), lax_conv(*a))
    np.testing.assert_array_equal(compiled(*(v + 1 for v in a)), lax_conv(*(v + 1 for v in a)))


def test_donated_buffers_are_used_up():
    x, w, b, _ = arrays()
    want = w - jax.grad(loss(lax_conv), 1)(x, w, b)
    step = jax.jit(lambda w: w - jax.grad(loss(conv), 1)(x, w, b), donate_argnums=0)
    given = w + 0
    np.testing.assert_array_equal(step(given), want)
    assert given.is_deleted()


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
