"""Convolutions on a mesh of eight simulated devices; `test_sharding.py` runs this in a process of its own."""

import collections
import dataclasses
import functools
import math
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jconv
import jconv.sharding
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, refuses
from jconv.bench import scaling_check
from jconv.calculus.primitives import OPERANDS, RESULT, convolve
from jconv.mesh import halo
from jconv.runtime import verified
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance

SAME = ((1, 1), (1, 1))
WIRE = r"= (\w+)\[([\d,]*)\]\S* (collective-permute|all-gather|all-reduce|reduce-scatter|all-to-all)\((.*)"


def auto_mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def collectives(compiled):
    """How many of each collective a compiled program has."""
    return dict(collections.Counter(kind for *_, kind, _ in re.findall(WIRE, compiled.as_text())))


def wire_bytes(compiled):
    """Bytes that all the program's collective-permutes send, read from its HLO."""
    total = 0
    for dtype, shape, kind, rest in re.findall(WIRE, compiled.as_text()):
        if kind == "collective-permute":
            pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", rest).group(1)
            size = math.prod(int(n) for n in shape.split(",") if n)
            total += size * {"f32": 4}[dtype] * pairs.count("{")
    return total


def shapes(spec):
    return {"x": spec.x_shape, "w": spec.w_shape, "y": spec.y_shape}


def random(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32")


def assert_near(actual, desired, reduction, amplification=1.0):
    actual, desired = np.asarray(actual, "float64"), np.asarray(desired, "float64")
    error = np.abs(actual - desired).max() / np.abs(desired).max()
    assert actual.shape == desired.shape
    assert error <= tolerance("float32", reduction, amplification), error


@functools.cache
def reference(role, spec):
    """lax on one device."""
    n = spec.ndim
    last = (0, n + 1, *range(1, n + 1))
    numbers = lax.ConvDimensionNumbers(last, (n + 1, n, *range(n)), last)

    def forward(x, w):
        return lax.conv_general_dilated(
            x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, numbers, spec.groups,
            precision="highest",
        )  # fmt: skip

    x, w, g = (random(shapes(spec)[name]) for name in "xwy")
    y, pull = jax.vjp(forward, x, w)
    return dict(zip(ROLES, (y, *pull(g)), strict=True))[role]


def reductions(spec):
    return {
        "forward": spec.taps * spec.c,
        "grad_input": spec.taps * spec.o,
        "grad_kernel": spec.positions,
    }


# -- automatic: what the compiled program sends ----------------------------------------------------

KINDS = {
    "dense": ConvSpec.of(batch=8, spatial=(8, 6), kernel=(3, 3), in_channels=4, out_channels=8, padding=SAME),
    "grouped": ConvSpec.of(
        batch=8, spatial=(8, 6), kernel=(3, 3), in_channels=8, out_channels=16, padding=SAME, groups=4
    ),
    "depthwise": ConvSpec.of(
        batch=8, spatial=(8, 6), kernel=(3, 3), in_channels=8, out_channels=8, padding=SAME, groups=8
    ),
}


def compiled(role, spec, cut, mesh, algorithm="auto"):
    """`role` with each array sharded as `cut` says, compiled, and its arguments."""
    arrays = [
        jax.device_put(random(shapes(spec)[name]), NamedSharding(mesh, cut.get(name, P())))
        for name in OPERANDS[role]
    ]
    out = NamedSharding(mesh, cut.get(RESULT[role], P()))
    run = jax.jit(lambda a, b: convolve(role, a, b, spec, algorithm), out_shardings=out)
    return run.lower(*arrays).compile(), arrays


def first_kind_it_takes(algorithm, role):
    """Groups first: they are what the partitioner cannot see through."""
    for kind in ("grouped", "depthwise", "dense"):
        if refuses(algorithm, role, KINDS[kind]) is None:
            return KINDS[kind]
    return pytest.skip("it takes none of the three kinds")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_cut_batch_is_never_gathered(name, role):
    algorithm = ALGORITHMS[name]
    spec = first_kind_it_takes(algorithm, role)
    program, _ = compiled(role, spec, {"x": P("data"), "y": P("data")}, auto_mesh(data=8), algorithm)
    assert collectives(program) == ({"all-reduce": 1} if role == "grad_kernel" else {})


LAST = P(None, None, None, "b")
HALOS = {"collective-permute": 2}
SUM = {"all-reduce": 1}
CUTS = {  # kind, how x w y are cut over a mesh a=2 b=4, what each role may send
    "output channels": ("dense", {"w": LAST, "y": LAST}, {}, SUM, {}),
    "input channels": ("dense", {"x": LAST, "w": P(None, None, "b")}, SUM, {}, {}),
    "groups": ("grouped", {"x": LAST, "w": LAST, "y": LAST}, {}, {}, {}),
    "height": ("dense", {"x": P(None, "b"), "y": P(None, "b")}, HALOS, HALOS, HALOS | SUM),
    "width": ("depthwise", {"x": P(None, None, "a"), "y": P(None, None, "a")}, HALOS, HALOS, HALOS | SUM),
    "both": ("dense", {"x": P(None, "b", "a"), "y": P(None, "b", "a")}, *[{"collective-permute": 4}] * 2,
             {"collective-permute": 4} | SUM),
    "batch, height": ("grouped", {"x": P("a", "b"), "y": P("a", "b")}, HALOS, HALOS, HALOS | SUM),
    "batch, groups": ("depthwise", {"x": P("a", None, None, "b"), "w": LAST, "y": P("a", None, None, "b")},
                      {}, {}, SUM),
    "batch, output channels": ("dense", {"x": P("a"), "w": LAST, "y": P("a", None, None, "b")}, {}, SUM, SUM),
    "kernels cut where the batch is": ("dense", {"x": P("b"), "w": LAST, "y": P("b")},
                                       {"all-gather": 1}, {"all-gather": 1}, {"reduce-scatter": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_each_cut_sends_what_theory_asks_for_and_nothing_else(name):
    kind, cut, *sent = CUTS[name]
    spec, mesh = KINDS[kind], auto_mesh(a=2, b=4)
    spec = spec.replace(batch=8)
    for role, expected in zip(ROLES, sent, strict=True):
        program, arrays = compiled(role, spec, cut, mesh)
        assert collectives(program) == expected, role
        assert_near(program(*arrays), reference(role, spec), reductions(spec)[role], 8.0)


def test_each_device_chooses_for_its_own_shard():
    """64 images choose on their own sizes, 8 on theirs: the program of one device is that of 8 images."""
    spec = KINDS["dense"].replace(batch=64)
    seen = []

    def forward(x, w, local):
        seen.append(local.batch)
        return ALGORITHMS["im2col"].forward(x, w, local)

    algorithm = jconv.Algorithm("seeing", forward)
    compiled("forward", spec, {"x": P("data"), "y": P("data")}, auto_mesh(data=8), algorithm)
    assert seen[-1] == 8


def test_what_does_not_divide_is_gathered_and_right():
    spec = KINDS["dense"].replace(spatial=(8, 7))
    cut = {"x": P(None, "b"), "y": P()}  # 6 rows of output on 4 devices
    spec = spec.replace(padding=((0, 0), (1, 1)))
    program, arrays = compiled("forward", spec, cut, auto_mesh(a=2, b=4))
    assert_near(program(*arrays), reference("forward", spec), spec.taps * spec.c, 8.0)


@pytest.mark.parametrize(
    "cut", [{"x": P(None, None, None, "model")}, {"w": P(None, None, None, "model")}, {}]
)
@pytest.mark.parametrize("role", ROLES)
def test_fewer_groups_than_shards_stay_whole(role, cut):
    """A part of a mesh axis would cut the groups, and the rest of it what is inside of them."""
    spec = dataclasses.replace(KINDS["grouped"], groups=2)
    cut = {name: at for name, at in cut.items() if name != RESULT[role]}
    program, arrays = compiled(role, spec, cut, auto_mesh(data=2, model=4))
    assert_near(program(*arrays), reference(role, spec), reductions(spec)[role])


def test_a_batch_cut_by_a_part_of_a_mesh_axis():
    """Two groups of a batch over four devices: one half of the axis cuts the groups, the other the images."""
    mesh, x, w = auto_mesh(data=2, model=4), random((8, 4, 5, 6)), random((6, 4, 3, 3))
    cut = jax.device_put(x, NamedSharding(mesh, P("model")))
    how = dict(window_strides=(1, 1), padding="SAME", batch_group_count=2)
    for of in (lambda conv: conv, lambda conv: jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), (0, 1))):
        own, laxs = (of(functools.partial(m.conv_general_dilated, **how)) for m in (jconv, lax))
        jax.tree.map(lambda a, b: assert_near(a, b, 36, 8.0), jax.jit(own)(cut, w), laxs(x, w))


def test_an_algorithm_may_hold_arrays():
    halves = np.full((1, 6, 1), 0.5, "f")
    mine = Algorithm("mine", lambda x, w, spec: 2 * ALGORITHMS["im2col"].forward(x * halves, w, spec))
    spec = KINDS["dense"]
    program, arrays = compiled("forward", spec, {"x": P("data")}, auto_mesh(data=8), mine)
    assert_near(program(*arrays), reference("forward", spec), reductions(spec)["forward"])


@pytest.mark.parametrize("name", ["auto", "phase"])
def test_phases_over_a_batch(name):
    spec = ConvSpec.of(batch=8, spatial=(9, 7), kernel=(4, 4), strides=(2, 2), in_channels=16, padding=SAME)
    cut = {"y": P("data"), "x": P("data")}
    program, arrays = compiled("grad_input", spec, cut, auto_mesh(data=8), name)
    assert collectives(program) == {}
    assert_near(program(*arrays), reference("grad_input", spec), reductions(spec)["grad_input"])


def test_without_shardy_the_partitioner_looks_inside():
    spec, before = KINDS["dense"], getattr(jax.config, "jax_use_shardy_partitioner", True)
    try:
        jax.config.update("jax_use_shardy_partitioner", False)
        program, arrays = compiled("forward", spec, {"x": P("data")}, auto_mesh(data=8))
    except (AttributeError, NotImplementedError):
        pytest.skip("this JAX has no other partitioner")
    finally:
        jax.config.update("jax_use_shardy_partitioner", before)
    assert_near(program(*arrays), reference("forward", spec), reductions(spec)["forward"])


# -- explicit: sharding in types -------------------------------------------------------------------


@pytest.fixture
def typed():
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


TYPED = {  # x, w → y
    "batch": (P("a"), P(), P("a", None, None, None)),
    "batch, output channels": (P("a"), LAST, P("a", None, None, "b")),
    "batch, height": (P("a", "b"), P(), P("a", "b", None, None)),
}


def dense_loss(conv):
    return lambda x, w: (conv(x, w) ** 2).sum()


def by_conv2d(x, w):
    return jconv.conv2d(x, w, layout="NHWC", padding=1)


def by_lax_door(x, w, **knobs):
    return jconv.conv_general_dilated(x, w, (1, 1), SAME, dimension_numbers=("NHWC", "HWIO", "NHWC"), **knobs)


@pytest.mark.parametrize("conv", [by_conv2d, by_lax_door])
@pytest.mark.parametrize("cut", TYPED)
def test_the_type_of_the_result_is_known_and_gradients_have_their_operands_type(cut, conv, typed):
    spec = KINDS["dense"]
    *cuts, out = TYPED[cut]
    x, w = (jax.device_put(random(shapes(spec)[name]), c) for name, c in zip("xw", cuts, strict=True))
    y = jax.eval_shape(conv, x, w)
    assert y.sharding.spec == out
    grads = jax.jit(jax.grad(dense_loss(conv), (0, 1)))(x, w)
    assert [jax.typeof(g).sharding.spec for g in grads] == [jax.typeof(v).sharding.spec for v in (x, w)]
    expected = _dense_gradients(spec)
    for actual, desired in zip(grads, expected, strict=True):
        assert_near(actual, desired, spec.positions, 8.0)


def _dense_gradients(spec):
    numbers = ("NHWC", "HWIO", "NHWC")

    def conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), SAME, dimension_numbers=numbers)

    with jax.set_mesh(jax.sharding.Mesh(np.array(jax.devices()[:1]), ("one",))):
        return jax.grad(dense_loss(conv), (0, 1))(random(spec.x_shape), random(spec.w_shape))


@pytest.mark.parametrize(
    ("x_cut", "w_cut", "padding", "match"),
    [
        (LAST, P(None, None, "b"), 1, "`x` is sharded over 'b' along its input channels, .*out_sharding"),
        (P(None, "b"), P(), 0, "`x` is sharded over 'b' along its spatial dimension 0, but its 6 outputs do"),
        (P("b"), LAST, 1, "sharded over 'b' along two of its axes"),
    ],
)
def test_what_cannot_be_sharded_refuses_with_the_axis_named(x_cut, w_cut, padding, match, typed):
    spec = KINDS["dense"]
    x, w = jax.device_put(random(spec.x_shape), x_cut), jax.device_put(random(spec.w_shape), w_cut)
    with pytest.raises(ValueError, match=match):
        jconv.conv2d(x, w, layout="NHWC", padding=padding)


@pytest.mark.parametrize(("out", "sent"), [(P(), SUM), (LAST, {"reduce-scatter": 1})])
def test_out_sharding_says_where_a_sum_goes(out, sent, typed):
    spec, w_cut = KINDS["dense"], P(None, None, "b")
    x, w = jax.device_put(random(spec.x_shape), LAST), jax.device_put(random(spec.w_shape), w_cut)
    conv = functools.partial(by_lax_door, out_sharding=out)
    y = jax.jit(conv)(x, w)
    assert jax.typeof(y).sharding.spec == P(*out, *[None] * (4 - len(out)))
    assert_near(y, reference("forward", spec), spec.taps * spec.c, 8.0)
    assert collectives(jax.jit(conv).lower(x, w).compile()) == sent
    grads = jax.jit(jax.grad(dense_loss(conv), (0, 1)))(x, w)
    for actual, desired in zip(grads, _dense_gradients(spec), strict=True):
        assert_near(actual, desired, spec.positions, 8.0)


def test_vmap_over_a_typed_batch(typed):
    spec = KINDS["dense"]
    x, w = jax.device_put(random(spec.x_shape), P("a")), random(spec.w_shape)
    each = jax.vmap(lambda w, x: jax.grad(dense_loss(by_conv2d), 1)(x[None], w), (None, 0))
    per_example = jax.jit(each)(w, x)
    assert jax.typeof(per_example).sharding.spec[0] == "a"
    assert_near(per_example.sum(0), _dense_gradients(spec)[1], spec.positions, 8.0)


# -- shard_map: images cut in space ----------------------------------------------------------------

SPACES = {  # sizes of the mesh axes that the image is cut over, the whole convolution
    "3x3": ((4, 2), ConvSpec.of(batch=2, spatial=(16, 12), kernel=(3, 3), padding=SAME, in_channels=3)),
    "strided": ((4, 2), ConvSpec.of(spatial=(16, 12), kernel=(3, 4), strides=(2, 2), padding=SAME)),
    "several hops": ((8,), ConvSpec.of(spatial=(16,), kernel=(5,), rhs_dilation=(3,), padding=((6, 6),))),
    "wider than everything": ((4,), ConvSpec.of(spatial=(8,), kernel=(11,), padding=((20, 18),))),
    "one side only": ((8,), ConvSpec.of(spatial=(24,), kernel=(4,), padding=((3, 0),), in_channels=2)),
    "shrinking": ((4,), ConvSpec.of(spatial=(20,), kernel=(5,), padding=((0, 0),))),
    "growing": ((4,), ConvSpec.of(spatial=(8,), kernel=(3,), padding=((5, 5),))),
    "patches": ((4, 2), ConvSpec.of(spatial=(16, 8), kernel=(4, 4), strides=(4, 4))),
    "groups": ((2, 4), ConvSpec.of(spatial=(6, 8), kernel=(3, 3), padding=SAME, in_channels=4, out_channels=8,
                                   groups=4)),
    "3-D": ((2, 2, 2), ConvSpec.of(spatial=(4, 6, 8), kernel=(3, 2, 3), padding=((1, 1), (1, 0), (1, 1)))),
}  # fmt: skip


def in_space(role, spec, sizes, algorithm="xla", **knobs):
    """`jconv.sharding.conv` (or conv_transpose) of the whole arrays, cut over a mesh of `sizes`."""
    names = tuple(f"s{d}" for d in range(len(sizes)))
    mesh, cut = auto_mesh(**dict(zip(names, sizes, strict=True))), P(None, *names)
    layout = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[spec.ndim]
    knobs |= dict(stride=spec.strides, padding=spec.padding, dilation=spec.rhs_dilation, groups=spec.groups,
                  algorithm=algorithm)  # fmt: skip
    door = jconv.sharding.conv if role == "forward" else jconv.sharding.conv_transpose
    shard = functools.partial(door, spatial_axes=names, layout=layout, **knobs)
    return jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=(cut, P()), out_specs=cut))


@pytest.mark.parametrize("name", SPACES)
def test_cut_in_space_equals_whole_and_sends_exactly_the_halo(name):
    sizes, spec = SPACES[name]
    f = in_space("forward", spec, sizes)
    x, w, g = (random(shapes(spec)[array]) for array in "xwy")
    both = jax.jit(lambda x, w, g: (f(x, w), *jax.vjp(f, x, w)[1](g)))
    for role, actual in zip(ROLES, both(x, w, g), strict=True):
        assert_near(actual, reference(role, spec), reductions(spec)[role], 8.0)
    expected = halo.halo_bytes(spec, sizes)
    assert wire_bytes(f.lower(x, w).compile()) == expected
    grad_input = jax.jit(lambda w, g: jax.linear_transpose(lambda x: f(x, w), x)(g)[0])
    assert wire_bytes(grad_input.lower(w, g).compile()) == expected


@pytest.mark.parametrize("axes", [("a", "b"), ("b", "a")])
def test_mesh_axes_cut_in_any_order(axes):
    """One dimension cut over two of them, by hand and by the partitioner, which count devices differently."""
    spec = ConvSpec.of(batch=2, spatial=(24,), kernel=(9,), padding=((4, 4),), in_channels=3)
    mesh, cut = auto_mesh(a=2, b=4), P(None, axes)
    shard = functools.partial(jconv.sharding.conv, spatial_axes=(axes,), layout="NWC", padding=4)
    f = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=(cut, P()), out_specs=cut))
    x, w = random(spec.x_shape), random(spec.w_shape)
    assert_near(f(x, w), reference("forward", spec), reductions(spec)["forward"])
    for role, name in (("forward", "x"), ("grad_input", "y"), ("grad_kernel", "x")):
        program, arrays = compiled(role, spec, {name: cut}, mesh)
        assert_near(program(*arrays), reference(role, spec), reductions(spec)[role])


def test_transposed_in_space():
    spec = ConvSpec.of(batch=2, spatial=(16, 12), kernel=(4, 3), strides=(2, 3), padding=((1, 1), (0, 0)),
                       in_channels=3, out_channels=5)  # fmt: skip
    f = in_space("grad_input", spec, (4, 2))
    g, w = random(spec.y_shape), random(spec.w_shape)
    assert_near(f(g, w), reference("grad_input", spec), reductions(spec)["grad_input"], 8.0)
    moved = spec.as_grad_input()
    assert wire_bytes(f.lower(g, w).compile()) == halo.halo_bytes(moved, (4, 2))
    x = random(spec.x_shape)
    back_g, back_w = jax.jit(lambda g, w, x: jax.vjp(f, g, w)[1](x))(g, w, x)
    assert_near(back_g, reference("forward", spec), reductions(spec)["forward"], 8.0)
    assert_near(back_w, reference("grad_kernel", spec), reductions(spec)["grad_kernel"], 8.0)


def test_spatial_axes_are_checked():
    spec = ConvSpec.of(spatial=(16,), kernel=(4,))
    with pytest.raises(ValueError, match=r"dimension 0 cannot be cut into 8 over 's0': its 13 outputs"):
        in_space("forward", spec, (8,))(random(spec.x_shape), random(spec.w_shape))
    x, w = jnp.ones((1, 1, 16)), jnp.ones((1, 1, 4))
    with pytest.raises(ValueError, match=r"`spatial_axes`=\('rows',\).*inside jax.shard_map"):
        jconv.sharding.conv(x, w, spatial_axes=("rows",))
    with pytest.raises(TypeError, match=r"`spatial_axes` must have one entry per spatial.* got 'rows'"):
        jconv.sharding.conv(x, w, spatial_axes="rows")
    for twice in [("rows", "rows"), ("rows", ("columns", "rows")), (("rows", "rows"), None)]:
        with pytest.raises(ValueError, match=r"names a mesh axis twice; each cuts one dimension"):
            jconv.sharding.conv(x[..., None], w[..., None], spatial_axes=twice)
    with pytest.raises(
        ValueError, match=r"`spatial_axes`=\(None, None\) .* and `w` \(1, 1, 4\) has 1 of those"
    ):
        jconv.sharding.conv(x, w, spatial_axes=(None, None))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_inside_shard_map_with_varying_axes_checked(name):
    """Forward and both gradients of a cut batch: the kernel's is summed over the devices by itself."""
    spec, algorithm = KINDS["dense"], ALGORITHMS[name]
    if reasons := [why for role in ROLES if (why := refuses(algorithm, role, spec.replace(batch=1)))]:
        pytest.skip(reasons[0])
    mesh, cut = auto_mesh(data=8), P("data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(cut, P(), cut), out_specs=(cut, cut, P()))
    def step(x, w, g):
        y, pull = jax.vjp(lambda x, w: jconv.conv2d(x, w, layout="NHWC", padding=1, algorithm=name), x, w)
        return y, *pull(g)

    x, w, g = (random(shapes(spec)[array]) for array in "xwy")
    for role, actual in zip(ROLES, jax.jit(step)(x, w, g), strict=True):
        assert_near(actual, reference(role, spec), reductions(spec)[role], 8.0 if algorithm.exact else 64.0)


def test_memory_of_a_device_shrinks_with_the_bands():
    """Temporaries of a two-layer gradient: an eighth, plus the halos and the copies they travel in."""
    x, w = jax.ShapeDtypeStruct((1, 512, 32, 8), "float32"), jax.ShapeDtypeStruct((3, 3, 8, 8), "float32")

    def loss(conv, w, x):
        knobs = dict(padding=1, layout="NHWC", algorithm="xla")
        return (conv(jax.nn.relu(conv(x, w, **knobs)), w, **knobs) ** 2).sum()

    mesh, cut = auto_mesh(bands=8), P(None, "bands")
    in_bands = functools.partial(jconv.sharding.conv, spatial_axes=("bands", None))
    banded = jax.shard_map(
        lambda w, x: lax.psum(loss(in_bands, w, x), "bands"), mesh=mesh, in_specs=(P(), cut), out_specs=P()
    )
    whole, each = (
        jax.jit(jax.grad(f, (0, 1))).lower(w, x).compile().memory_analysis().temp_size_in_bytes
        for f in (functools.partial(loss, jconv.conv2d), banded)
    )
    assert whole / 8 * 0.9 < each < whole / 8 * (1 + 6 / 64)  # rows of halo and its copies, of 64


def test_compiled_steps_send_what_scaling_on_paper_says():
    assert scaling_check.main((4,)) == 0


# -- oneDNN: every device's program calls it for its own shard --------------------------------------


@pytest.fixture
def onednn():
    if reason := verified.refusal() or verified.refusal_of("float32", "float32"):
        pytest.skip(reason)


def calls_onednn(compiled):
    return compiled.as_text().count('custom_call_target="__onednn$')


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "cut", [{"x": P("a"), "y": P("a")}, {"x": P("a", "b"), "y": P("a", "b")}], ids=["batch", "height"]
)
def test_onednn_is_called_for_each_shard_that_the_partitioner_cuts(cut, kind, role, onednn):
    spec = KINDS[kind]
    program, arrays = compiled(role, spec, cut, auto_mesh(a=2, b=4), "onednn")
    assert calls_onednn(program) >= 1
    assert_near(program(*arrays), reference(role, spec), reductions(spec)[role], 8.0)


@pytest.mark.parametrize("cut", TYPED)
def test_onednn_is_called_under_typed_shardings(cut, typed, onednn):
    spec = KINDS["dense"]
    *cuts, out = TYPED[cut]
    x, w = (jax.device_put(random(shapes(spec)[name]), c) for name, c in zip("xw", cuts, strict=True))
    conv = lambda x, w: jconv.conv2d(x, w, layout="NHWC", padding=1, algorithm="onednn")  # noqa: E731
    both = jax.jit(jax.value_and_grad(dense_loss(conv), (0, 1)))
    assert calls_onednn(both.lower(x, w).compile()) >= 3
    y = jax.jit(conv)(x, w)
    assert jax.typeof(y).sharding.spec == out
    assert_near(y, reference("forward", spec), spec.taps * spec.c, 8.0)
    for actual, desired in zip(both(x, w)[1], _dense_gradients(spec), strict=True):
        assert_near(actual, desired, spec.positions, 8.0)


@pytest.mark.parametrize("name", [name for name in SPACES if name != "groups"])  # of 1 to 2 channels: refused
def test_onednn_computes_what_is_cut_in_space(name, onednn):
    sizes, spec = SPACES[name]
    f = in_space("forward", spec, sizes, algorithm="onednn")
    x, w, g = (random(shapes(spec)[array]) for array in "xwy")
    both = jax.jit(lambda x, w, g: (f(x, w), *jax.vjp(f, x, w)[1](g)))
    assert calls_onednn(both.lower(x, w, g).compile()) >= 3
    for _ in range(20):
        for role, actual in zip(ROLES, both(x, w, g), strict=True):
            assert_near(actual, reference(role, spec), reductions(spec)[role], 8.0)


def test_exported_for_a_mesh_it_is_portable():
    mesh, spec = auto_mesh(data=8), KINDS["dense"].replace(batch=64, spatial=(28, 28), in_channels=64)
    cut = jax.device_put(random(spec.x_shape), NamedSharding(mesh, P("data")))
    w = jax.device_put(random(spec.w_shape), NamedSharding(mesh, P()))
    conv = jax.jit(lambda x, w: jconv.conv2d(x, w, layout="NHWC", padding=1))
    exported = jax.export.export(conv)(cut, w)
    assert "__onednn" not in exported.mlir_module()
    assert_near(jax.jit(exported.call)(cut, w), reference("forward", spec), spec.taps * spec.c, 8.0)


# -- lax's own convolutions, accelerated -----------------------------------------------------------


def by_lax(spec):
    return lambda x, w: lax.conv_general_dilated(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, ("NHWC", "HWIO", "NHWC"),
        feature_group_count=spec.groups,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dense", "grouped", "depthwise"])
def test_an_accelerated_cut_batch_is_never_gathered(name):
    """As jconv's own; and the results are those of a whole batch."""
    spec, mesh = KINDS[name], auto_mesh(data=8)
    conv, fast = by_lax(spec), jconv.accelerate(by_lax(spec), "im2col")
    x, w = random(spec.x_shape), random(spec.w_shape)
    cut = (
        jax.device_put(x, NamedSharding(mesh, P("data"))),
        jax.device_put(w, NamedSharding(mesh, P())),
    )
    assert collectives(jax.jit(fast).lower(*cut).compile()) == {}
    assert_near(jax.jit(fast)(*cut), conv(x, w), spec.taps * spec.c, 8.0)
    grads = jax.jit(jax.grad(dense_loss(fast), (0, 1)))
    assert set(collectives(grads.lower(*cut).compile())) == {"all-reduce"}
    for actual, desired in zip(grads(*cut), jax.grad(dense_loss(conv), (0, 1))(x, w), strict=True):
        assert_near(actual, desired, spec.positions, 8.0)


@pytest.mark.parametrize("jit", [jax.jit, lambda fun: fun], ids=["jit", "eager"])
@pytest.mark.parametrize("wrap", [jconv.accelerate, lambda fun: jconv.accelerate(fun, "im2col")])
def test_accelerated_gradients_under_typed_shardings(wrap, jit, typed):
    """What lax can type, a cut batch, jconv computes; the types are lax's."""
    spec, conv = KINDS["dense"], by_lax(KINDS["dense"])
    *cuts, out = TYPED["batch"]
    x, w = (jax.device_put(random(shapes(spec)[name]), c) for name, c in zip("xw", cuts, strict=True))
    assert jax.typeof(jit(wrap(conv))(x, w)).sharding.spec == out
    grads = jit(jax.grad(dense_loss(wrap(conv)), (0, 1)))(x, w)
    assert [jax.typeof(g).sharding.spec for g in grads] == [jax.typeof(v).sharding.spec for v in (x, w)]
    for actual, desired in zip(grads, _dense_gradients(spec), strict=True):
        assert_near(actual, desired, spec.positions, 8.0)
    text = jax.jit(jax.grad(dense_loss(jconv.accelerate(conv, "im2col")), (0, 1))).lower(x, w).as_text()
    assert "stablehlo.convolution" not in text


def test_accelerated_inside_shard_map_with_varying_axes_checked():
    spec, mesh, cut = KINDS["dense"], auto_mesh(data=8), P("data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(cut, P(), cut), out_specs=(cut, cut, P()))
    def step(x, w, g):
        y, pull = jax.vjp(by_lax(spec), x, w)
        return y, *pull(g)

    arrays = [random(shapes(spec)[array]) for array in "xwy"]
    fast = jax.jit(jconv.accelerate(step, "im2col"))
    assert "stablehlo.convolution" not in fast.lower(*arrays).as_text()
    for role, actual in zip(ROLES, fast(*arrays), strict=True):
        assert_near(actual, reference(role, spec), reductions(spec)[role], 8.0)
