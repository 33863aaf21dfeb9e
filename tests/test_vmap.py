"""vmap: any operand, any axis, any nesting; always one convolution and never a copied operand."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from oracles import convolutions, equations, looped

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES
from jconv.testing import cases

SIZE = 3
EXACT = "im2col"


def stacked(role, spec, a_axis, b_axis):
    """The role's operands with a new axis of whole numbers where one is asked for."""
    rng = np.random.default_rng(7)
    shapes = [cases.shapes(spec)[name] for name in cases.OPERANDS[role]]
    full = [
        shape if axis is None else (*shape[:axis], SIZE, *shape[axis:])
        for shape, axis in zip(shapes, (a_axis, b_axis), strict=True)
    ]
    return [rng.integers(-3, 4, shape).astype(spec.x_dtype) for shape in full]


def grows(fn, *args):
    """The equations of `fn` that write out more numbers than they read: copies of an operand."""
    return [
        e for e in equations(jax.make_jaxpr(fn)(*args))
        if e.primitive.name in ("broadcast_in_dim", "concatenate", "tile", "gather")
        and e.invars and e.outvars[0].aval.size > max(v.aval.size for v in e.invars) > 1
    ]  # fmt: skip


def test_a_copied_operand_would_be_seen():
    x, w = jnp.ones((2, 5, 3)), jnp.ones((2, 3, 4))
    spec = jconv.ConvSpec.of(batch=2, spatial=(5,), kernel=(2,), in_channels=3, out_channels=4)
    one = functools.partial(convolve, "forward", spec=spec, algorithm=EXACT)

    def copying(x, w):
        return jax.vmap(one)(x, jnp.broadcast_to(w, (SIZE, *w.shape)))

    assert grows(copying, jnp.stack([x] * SIZE), w)


AXES = {"first": (0, None), "second": (None, 0), "both": (0, 0)}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("case", cases.tagged("few"), ids=str)
def test_each_is_the_loop_and_one_convolution(case, axes, role):
    spec, (a_axis, b_axis) = case.spec, AXES[axes]
    a, b = stacked(role, spec, a_axis, b_axis)
    mapped = jax.vmap(functools.partial(convolve, role, spec=spec, algorithm=EXACT), (a_axis, b_axis))
    np.testing.assert_array_equal(jax.jit(mapped)(a, b), looped(role, a, b, spec, a_axis, b_axis))
    ((found, folded),) = convolutions(mapped, a, b)
    assert found == role
    assert folded.macs == SIZE * spec.macs
    assert grows(mapped, a, b) == []


@pytest.mark.parametrize("axes", AXES)
def test_the_folded_problem_is_chosen_for(axes):
    """The algorithm sees the whole batch, not one example of it."""
    spec = cases.named("everything").spec
    seen = []

    def forward(x, w, spec):
        seen.append(spec)
        return ALGORITHMS[EXACT].forward(x, w, spec)

    spy = jconv.Algorithm("spy", forward)
    a, b = stacked("forward", spec, *AXES[axes])
    jax.vmap(functools.partial(convolve, "forward", spec=spec, algorithm=spy), AXES[axes])(a, b)
    (folded,) = seen
    batch, groups, outs = {"first": (SIZE, 1, 1), "second": (1, 1, SIZE), "both": (1, SIZE, SIZE)}[axes]
    assert folded.batch == batch * spec.batch
    assert folded.groups == groups * spec.groups
    assert folded.out_channels == outs * spec.out_channels


@pytest.mark.parametrize("role", ROLES)
def test_any_axis(role):
    spec = cases.named("multiplier").spec
    ndims = [len(cases.shapes(spec)[name]) for name in cases.OPERANDS[role]]
    fn = functools.partial(convolve, role, spec=spec, algorithm="xla")
    for a_axis, b_axis in itertools.product((None, 1, ndims[0]), (None, 2, ndims[1])):
        if (a_axis, b_axis) == (None, None):
            continue
        a, b = stacked(role, spec, a_axis, b_axis)
        out_axis = -2 if a_axis else 1
        got = jax.jit(jax.vmap(fn, (a_axis, b_axis), out_axis))(a, b)
        want = looped(role, a, b, spec, a_axis, b_axis)
        np.testing.assert_array_equal(np.moveaxis(got, out_axis, 0), want)


def test_nested_over_kernels_then_inputs_is_every_pair():
    spec = cases.named("everything").spec
    (x, _), (_, w) = stacked("forward", spec, 0, None), stacked("forward", spec, None, 1)
    one = functools.partial(convolve, "forward", spec=spec, algorithm=EXACT)
    pairs = jax.vmap(jax.vmap(one, (None, 1)), (0, None))
    want = np.stack([looped("forward", each, w, spec, None, 1) for each in x])
    np.testing.assert_array_equal(pairs(x, w), want)
    ((_, folded),) = convolutions(pairs, x, w)
    assert (folded.batch, folded.out_channels) == (SIZE * spec.batch, SIZE * spec.out_channels)
    assert grows(pairs, x, w) == []


def test_three_deep():
    spec = cases.named("multiplier").spec
    x, w = stacked("forward", spec, 0, 0)
    one = functools.partial(convolve, "forward", spec=spec, algorithm="xla")
    deep = jax.vmap(jax.vmap(jax.vmap(one), (0, None)), (None, 0))
    more_x, more_w = np.stack([x, -x]), np.stack([w, 2 * w])
    got = deep(more_x, more_w)
    each = looped("forward", x, w, spec, 0, 0)
    np.testing.assert_array_equal(got, np.array([[k * s * each for s in (1, -1)] for k in (1, 2)]))
    assert len(convolutions(deep, more_x, more_w)) == 1


# -- at the door, under every other transformation -------------------------------------------------

KNOBS = dict(stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2, algorithm=EXACT)
SHAPES = {"NCHW": ((2, 4, 6, 5), (6, 2, 3, 2)), "NHWC": ((2, 6, 5, 4), (3, 2, 2, 6))}


def arrays(layout="NCHW"):
    """x, w, b of whole numbers, SIZE of each along a new leading axis."""
    rng = np.random.default_rng(0)
    shapes = *SHAPES[layout], (6,)
    return [jnp.asarray(rng.integers(-2, 3, (SIZE, *shape)), "float32") for shape in shapes]


def conv(x, w, b, layout="NCHW"):
    return jconv.conv2d(x, w, b, layout=layout, **KNOBS)


def loss(x, w, b):
    y = conv(x, w, b)
    return (y * y).sum()


def scanned(x, w, b):
    def step(w, _):
        return w - jnp.sign(jax.grad(loss, 1)(x, w, b)), conv(x, w, b)

    return jax.lax.scan(step, w, length=2)


INSIDE = {
    "plain": conv,
    "grad": jax.grad(loss, (0, 1, 2)),
    "jvp": lambda x, w, b: jax.jvp(conv, (x, w, b), (-x, w[::-1], b)),
    "vjp": lambda x, w, b: jax.vjp(conv, x, w, b)[1](conv(x, w, b)),
    "hvp": lambda x, w, b: jax.jvp(lambda w: jax.grad(loss, 1)(x, w, b), (w,), (w[::-1],)),
    "scan": scanned,
    "remat": jax.grad(jax.checkpoint(loss), (0, 1)),
    "jit": jax.jit(conv),
}
OVER = {
    "inputs": (0, None, None), "kernels": (None, 0, None), "bias": (None, None, 0),
    "inputs_and_kernels": (0, 0, None), "all": (0, 0, 0),
}  # fmt: skip


def pick(axes, arguments):
    """The first example of what is not mapped."""
    return [v if axis == 0 else v[0] for v, axis in zip(arguments, axes, strict=True)]


def unbatched_loop(fn, axes, arguments):
    each = [[v[i] if axis == 0 else v for v, axis in zip(arguments, axes, strict=True)] for i in range(SIZE)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(fn(*one) for one in each))


@pytest.mark.parametrize("over", ["inputs", "all"])
@pytest.mark.parametrize("inside", INSIDE)
def test_vmap_outside(inside, over):
    fn, args = jax.jit(INSIDE[inside]), pick(OVER[over], arrays())
    got = jax.jit(jax.vmap(fn, OVER[over]))(*args)
    chex.assert_trees_all_equal(got, unbatched_loop(fn, OVER[over], args))


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("over", OVER)
def test_every_operand_in_every_layout(over, layout):
    fn, args = functools.partial(conv, layout=layout), pick(OVER[over], arrays(layout))
    mapped = jax.vmap(fn, OVER[over])
    chex.assert_trees_all_equal(mapped(*args), unbatched_loop(fn, OVER[over], args))
    ((_, spec),) = convolutions(mapped, *args)
    ((_, one),) = convolutions(fn, *(v[0] for v in arrays(layout)))
    assert spec.macs == (one.macs if over == "bias" else SIZE * one.macs)


@pytest.mark.parametrize("outside", ["grad", "jvp", "scan", "remat"])
def test_vmap_inside(outside):
    x, w, b = pick(OVER["inputs_and_kernels"], arrays())

    def total(c, x, w, b):
        return (c(x, w, b) ** 2).sum()

    def one_by_one(x, w, b):
        return jnp.stack([conv(x[i], w[i], b) for i in range(SIZE)])

    transform = {
        "grad": lambda c: jax.grad(functools.partial(total, c), (0, 1, 2)),
        "jvp": lambda c: lambda *a: jax.jvp(c, a, tuple(-v for v in a)),
        "scan": lambda c: lambda x, w, b: jax.lax.scan(lambda w, _: (w[::-1], c(x, w, b)), w, length=2),
        "remat": lambda c: jax.grad(jax.checkpoint(functools.partial(total, c)), (0, 1)),
    }[outside]
    mapped = jax.vmap(conv, OVER["inputs_and_kernels"])
    got, want = (jax.jit(transform(c))(x, w, b) for c in (mapped, one_by_one))
    chex.assert_trees_all_equal(got, want)


def test_per_example_kernel_gradients_are_one_convolution_each_way():
    x, w, b = pick(OVER["inputs"], arrays())
    per_example = jax.vmap(jax.grad(loss, 1), OVER["inputs"])
    one = jax.jit(jax.grad(loss, 1))
    chex.assert_trees_all_equal(jax.jit(per_example)(x, w, b), unbatched_loop(one, OVER["inputs"], (x, w, b)))
    found = dict(convolutions(per_example, x, w, b))
    assert list(found) == ["forward", "grad_kernel"]
    assert found["forward"].batch == SIZE * 2
    assert found["grad_kernel"].groups == SIZE * KNOBS["groups"]
    assert grows(per_example, x, w, b) == []


@pytest.mark.parametrize("name", ["conv_transpose1d", "conv_transpose2d"])
def test_transposed(name):
    if not hasattr(jconv, name):
        pytest.skip(f"there is no {name}")
    space = (4, 5)[: int(name[-2])]
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (SIZE, 2, 4, *space)).astype("float32")
    w = rng.integers(-3, 4, (SIZE, 4, 3, *(3 for _ in space))).astype("float32")
    fn = functools.partial(getattr(jconv, name), stride=2, padding=1, output_padding=1, groups=2)
    fn = functools.partial(fn, algorithm=EXACT)
    for axes in ((0, None), (None, 0), (0, 0)):
        args = [v if axis == 0 else v[0] for v, axis in zip((x, w), axes, strict=True)]
        mapped = jax.vmap(fn, axes)
        chex.assert_trees_all_equal(mapped(*args), unbatched_loop(fn, axes, args))
        assert len(convolutions(mapped, *args)) == 1


# -- compiled or not, and how often ----------------------------------------------------------------


class WithAndWithoutJit(chex.TestCase):
    """The same numbers, traced or eager."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*((name, axes) for name, axes in OVER.items()))
    def test_vmap(self, axes):
        args = pick(axes, arrays())
        got = self.variant(jax.vmap(conv, axes))(*args)
        chex.assert_trees_all_equal(got, unbatched_loop(conv, axes, args))

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_conv2d(self):
        x, w, b = (v[0] for v in arrays())
        got = self.variant(conv)(x, w, b)
        lax = jax.lax.conv_general_dilated(
            x, w, (2, 1), ((1, 0), (0, 2)), rhs_dilation=(1, 2), feature_group_count=2
        )
        chex.assert_trees_all_equal(got, lax + b[:, None, None])


def traced_once():
    """An algorithm that may be traced once and no more."""

    def forward(x, w, spec):
        return ALGORITHMS[EXACT].forward(x, w, spec)

    chex.clear_trace_counter()
    return jconv.Algorithm("once", chex.assert_max_traces(forward, n=1))


@pytest.mark.parametrize("compiled", [jax.jit, lambda fn: fn], ids=["jit", "eager"])
@pytest.mark.parametrize("axes", [None, (0, None), (0, 0)], ids=str)
def test_equal_shapes_are_traced_once(axes, compiled):
    x, w = (v if axes and axes[i] == 0 else v[0] for i, v in enumerate(arrays()[:2]))
    fn = functools.partial(jconv.conv2d, **KNOBS | dict(algorithm=traced_once()))
    fn = compiled(jax.vmap(fn, axes) if axes else fn)
    for step in range(3):
        fn(x + step, w)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        fn(x[..., :4], w)


# -- no more memory than lax -----------------------------------------------------------------------

MORE = 32 * 2**20  # bytes that jconv's temporaries may take beyond lax's
MANY = 16


def same_size(conv, x, w):
    """One image (h, w, c), channels last, as many groups as the kernel's channels leave."""
    numbers, groups = ("NHWC", "HWIO", "NHWC"), x.shape[-1] // w.shape[-2]
    y = conv(x[None], w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups)
    return y[0]


def its_kernel_gradient(conv, x, w, g):
    return jax.vjp(lambda w: same_size(conv, x, w), w)[1](g)[0]


def its_hvp(conv, x, w):
    return jax.jvp(jax.grad(lambda w: (same_size(conv, x, w) ** 2).sum()), (w,), (w,))[1]


HUNGRY = {
    "inputs_and_kernels": (same_size, (0, 0), False),
    "kernels": (same_size, (None, 0), False),
    "ensemble_kernel_gradients": (its_kernel_gradient, (0, 0, 0), False),
    "per_example_kernel_gradients": (its_kernel_gradient, (0, None, 0), False),
    "per_example_depthwise": (its_kernel_gradient, (0, None, 0), True),
    "hvp_depthwise": (its_hvp, None, True),
}
SIZES = {"small": (28, 32), "large": (64, 64)}  # side, channels; all patches of the large one are 151 MB


def operands(axes, depthwise, size, count):
    """Shapes alone: nothing is computed."""
    side, channels = SIZES[size]
    image, kernel = (side, side, channels), (3, 3, 1 if depthwise else channels, channels)
    shapes = (image, kernel, image)[:count]
    return [
        jax.ShapeDtypeStruct((MANY, *shape) if axes and axes[i] == 0 else shape, "float32")
        for i, shape in enumerate(shapes)
    ]


def temporaries(fn, *args):
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("row", "size"), itertools.product(HUNGRY, SIZES))
def test_temporaries_are_lax_s_and_little_more(row, size):
    fn, axes, depthwise = HUNGRY[row]
    args = operands(axes, depthwise, size, 3 if fn is its_kernel_gradient else 2)
    both = [functools.partial(fn, library.conv_general_dilated) for library in (jconv, jax.lax)]
    ours, laxs = (temporaries(jax.vmap(one, axes) if axes else one, *args) for one in both)
    assert ours <= laxs + MORE


def test_patches_all_at_once_would_be_seen():
    """The bound can be passed: what a plain im2col of the large row holds."""

    def gradient(x, g):
        patches = jconv.im2col(x, 3, padding=1)
        return jnp.einsum("nlk,nlo->nko", patches, g.reshape(MANY, -1, g.shape[-1]))

    x, _, g = operands((0, None, 0), False, "large", 3)
    fn, axes, _ = HUNGRY["per_example_kernel_gradients"]
    lax = jax.vmap(functools.partial(fn, jax.lax.conv_general_dilated), axes)
    assert temporaries(gradient, x, g) > temporaries(lax, *operands(axes, False, "large", 3)) + MORE
