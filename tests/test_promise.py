"""What a direct sum promises, an exact algorithm keeps, and "auto" takes no other.

An output depends on its window and on nothing else: a NaN, an Inf or a huge value reaches only the outputs
whose windows hold it and never another member of a vmap; what sums zeros is zero; sums of terms ≥ 0 are
≥ 0; whole numbers come out to the bit; the error is small beside Σ|x·w| of the output's own window.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from jax import lax
from oracles import compiled, runs_here

import jconv
from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.record import evaluate, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import OPERANDS
from jconv.spec.tolerance import unit_roundoff
from jconv.testing import cases

# -- uses, through every door ----------------------------------------------------------------------


def by_conv(x, w, padding):
    return jconv.conv(x, w, padding=padding)


def by_lax_s_door(x, w, padding):
    return jconv.lax.conv_general_dilated(x, w, (1,) * (x.ndim - 2), padding)


def by_lax(x, w, padding):
    return lax.conv_general_dilated(x, w, (1,) * (x.ndim - 2), padding)


def in_accelerated(x, w, padding):
    with jconv.accelerated():
        return by_lax(x, w, padding)


DOORS = {
    "conv": by_conv,
    "lax's door": by_lax_s_door,
    "accelerate": jconv.accelerate(by_lax),
    "accelerated": in_accelerated,
}
doors = pytest.mark.parametrize("conv", DOORS.values(), ids=DOORS)


def star_and_psf():
    """A star of 5000 counts in a sky of 1e-6, and a Gaussian of 25×25 that sums to 1."""
    sky = np.full((1, 1, 72, 70), 1e-6, np.float32)
    sky[0, 0, 40, 30] = 5000
    line = np.exp(-(np.linspace(-4, 4, 25) ** 2))
    psf = np.outer(line, line) / line.sum() ** 2
    return sky, psf[None, None].astype(np.float32)


@doors
def test_a_star_leaves_the_faint_sky_positive(conv):
    sky, psf = star_and_psf()
    counts = np.asarray(jax.jit(functools.partial(conv, padding=((12, 12),) * 2))(sky, psf), np.float64)
    spec = ConvSpec.of(spatial=sky.shape[2:], kernel=(25, 25), padding=((12, 12),) * 2)
    right = cases.reference("forward", sky.reshape(spec.x_shape), psf.reshape(spec.w_shape), spec)
    assert (counts > 0).all()
    np.testing.assert_allclose(counts.ravel(), right.ravel(), rtol=625 * unit_roundoff("float32"))
    # the Poisson likelihood's gradient, too: Σ over the window of 1 − data / counts
    slope = jax.jit(jax.grad(lambda sky: jnp.log(conv(sky, psf, ((12, 12),) * 2)).sum()))(sky)
    assert (np.asarray(slope) > 0).all()


@doors
def test_a_mask_grows_by_the_kernel_and_no_further(conv):
    mask = np.zeros((1, 1, 99, 90), np.float32)
    mask[0, 0, [20, 64, 80], [30, 64, 12]] = 1
    ones = np.ones((1, 1, 11, 11), np.float32)
    counts = np.asarray(jax.jit(functools.partial(conv, padding=((5, 5),) * 2))(mask, ones))
    right = np.zeros_like(mask)
    for row, column in ((20, 30), (64, 64), (80, 12)):
        right[0, 0, row - 5 : row + 6, column - 5 : column + 6] += 1
    assert right.sum() == 363
    np.testing.assert_array_equal(counts, right)


@doors
def test_small_values_are_right_beside_large_ones(conv):
    """float64 over 36 decades, full convolution: each output to its own roundoff."""
    rng = np.random.default_rng(0)
    x, w = (10.0 ** rng.uniform(-18, 18, size) for size in (700, 301))
    right = np.convolve(x.astype(np.longdouble), w[::-1].astype(np.longdouble))
    with jax.enable_x64(True):
        got = jax.jit(functools.partial(conv, padding=((300, 300),)))(x[None, None], w[None, None])
    assert got.dtype == "float64"
    np.testing.assert_allclose(
        np.asarray(got)[0, 0], right.astype(float), rtol=301 * unit_roundoff("float64")
    )


@doors
@pytest.mark.parametrize("groups", [1, 4])
def test_a_gap_at_the_end_of_a_sequence_is_lost_alone(conv, groups):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4 if groups == 1 else 1, 4096)).astype("f")
    w = rng.standard_normal((4, x.shape[1], 255)).astype("f")
    x[..., -4:] = np.nan
    y, slopes = jax.jit(lambda x, w: jax.vjp(lambda x: conv(x, w, ((254, 0),)), x))(x, w)
    assert np.isfinite(np.asarray(y)[..., :-4]).all()
    assert np.isnan(np.asarray(y)[..., -4:]).all()
    (gradient,) = slopes(np.where(np.isnan(y), np.nan, 1).astype("f"))
    assert np.isfinite(np.asarray(gradient)[..., : -4 - 254]).all()
    assert np.isnan(np.asarray(gradient)[..., -4 - 254 :]).all()


@doors
@pytest.mark.parametrize("channels", [3, 8])
def test_models_side_by_side_do_not_see_each_other(conv, channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, channels, 8, 9)).astype("f")
    w = rng.standard_normal((3, channels, channels, 3, 3)).astype("f") / channels

    def loss(w, x):
        return jnp.mean(jnp.tanh(conv(x, w, ((1, 1),) * 2)))

    of_all = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))
    right = of_all(w, x)
    for spoilt in (0, 1):
        bad = [w.copy(), x.copy()]
        bad[spoilt][1].flat[5] = np.nan
        got = of_all(*bad)
        assert np.isnan(got[0][1])
        for clean, result in zip(jax.tree.leaves(right), jax.tree.leaves(got), strict=True):
            np.testing.assert_array_equal(np.delete(result, 1, 0), np.delete(clean, 1, 0))


@doors
def test_an_autoregressive_mask_leaves_no_gradient_behind(conv):
    """3×3, the taps before the centre in raster order: what comes later has a gradient of exactly 0."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 128, 12, 13)).astype("f")
    kernels = rng.standard_normal((2, 128, 128, 3, 3)).astype("f") / 34
    kernels *= np.arange(9).reshape(3, 3) < 4

    def pixel(x):
        return functools.reduce(lambda x, w: conv(x, w, ((1, 1),) * 2), kernels, x)[0, :, 6, 7].sum()

    gradient = np.abs(np.asarray(jax.jit(jax.grad(pixel))(x))[0]).sum(0).ravel()
    assert (gradient[6 * 13 + 7 :] == 0).all()
    assert gradient[6 * 13 + 6 - 1] > 0


# -- every exact algorithm, over the table ---------------------------------------------------------

# compiled without optimisation: a third of the time, and nothing to do with what is tested
jit_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

EXACT = {name: record for name, record in ALGORITHMS.items() if record.exact and runs_here(record)}
MIXING = [name for name, algorithm in ALGORITHMS.items() if not algorithm.exact]
# a few more than in the table, for what takes only these
MORE = {
    "valid": ConvSpec.of(batch=2, spatial=(7, 9), kernel=(7, 7), in_channels=2, out_channels=3),
    "long": ConvSpec.of(batch=2, spatial=(90,), kernel=(67,), in_channels=2, padding=((66, 0),)),
    "large": ConvSpec.of(spatial=(12, 13), kernel=(9, 11), out_channels=2, padding=((4, 4), (5, 5))),
    "colours": ConvSpec.of(batch=2, spatial=(9, 8), kernel=(5, 5), in_channels=3, out_channels=8),
}


@functools.cache
def some_of_the_table(name, role):
    """Up to three cases that the algorithm takes in that role, which together have most of the features."""
    more = (cases.Case(name, spec, frozenset([name])) for name, spec in MORE.items())
    taken = [case for case in (*cases.CASES, *more) if not refuses(ALGORITHMS[name], role, case.spec)]
    found = []
    while taken and len(found) < 3:
        seen = frozenset().union(*(case.tags for case in found))
        found.append(max(taken, key=lambda case: len(case.tags - seen)))
        taken.remove(found[-1])
    return tuple(found)


PAIRS = [(name, role) for name in EXACT for role in ROLES if some_of_the_table(name, role)]
every_exact_one = pytest.mark.parametrize(("name", "role"), PAIRS)


def test_every_exact_algorithm_is_held_to_the_promise():
    assert {name for name, _ in PAIRS} == set(EXACT)


def scattered(role, spec, seed=1):
    """Operands ≥ 0 over 16 decades, a third of them 0."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in cases.shapes(spec).items():
        values = 10.0 ** rng.uniform(-8, 8, shape) * (rng.uniform(size=shape) > 1 / 3)
        arrays[name] = values.astype(spec.x_dtype)
    return cases.operands(role, arrays)


def assert_right_in_every_window(got, role, operands, spec):
    """Terms ≥ 0, so Σ|x·w| of a window is its value; where that is 0, so is what came."""
    right = cases.reference(role, *operands, spec)
    unit, summed = unit_roundoff(spec.y_dtype), unit_roundoff(spec.accumulator)
    bound = (cases.reduction(role, spec) + 8) * summed + unit
    assert (got.shape, got.dtype) == spec.result(role)
    got = np.asarray(got).astype(float)
    assert (got >= 0).all()
    assert (got[right == 0] == 0).all()
    np.testing.assert_array_less(np.abs(got - right), bound * right + (right == 0))


@every_exact_one
def test_exact_algorithms_keep_the_promise(name, role):
    """Each sentence on the same compiled programs."""
    for case in some_of_the_table(name, role):
        program = jax.jit(functools.partial(evaluate, ALGORITHMS[name], role, spec=case.spec))
        operands = scattered(role, case.spec)
        assert_right_in_every_window(program(*operands), role, operands, case.spec)
        operands = cases.operands(role, cases.whole(case.spec))
        np.testing.assert_array_equal(program(*operands), cases.reference(role, *operands, case.spec))
        for value in (np.nan, np.inf, 1e30):
            assert_local(program, role, value, case.spec)


def images(role):
    """Which operands are images (or gradients of them), not kernels."""
    return [at for at, operand in enumerate(OPERANDS[role]) if operand != "w"]


def assert_local(program, role, value, spec):
    """A value in an image changes the results that see it and no other.

    In a kernel's gradient it meets the zeros around the other image, too, as in lax, and 0·NaN is NaN: any
    tap of the channels that see it may be lost.
    """
    operands = cases.operands(role, cases.normal(spec))
    clean = np.asarray(program(*operands))
    for at in images(role):
        entry = tuple(size // 2 for size in operands[at].shape)
        bad, marks = [v.copy() for v in operands], [np.ones_like(v) for v in operands]
        marks[at][...] = 0
        bad[at][entry], marks[at][entry] = value, 1
        seen = cases.reference(role, *marks, spec) > 0
        got = np.asarray(program(*bad))
        lost = seen if role != "grad_kernel" else seen | seen.any(tuple(range(spec.ndim)))
        np.testing.assert_array_equal(got[~lost], clean[~lost])
        assert (got[seen] != clean[seen]).all()


@every_exact_one
@pytest.mark.parametrize("mapped", [(0, 0), (0, None)], ids=["both", "first"])
def test_members_of_a_vmap_do_not_see_each_other(name, role, mapped):
    assert_members_apart(name, role, mapped, some_of_the_table(name, role)[0].spec)


def assert_members_apart(algorithm, role, mapped, spec):
    members = [cases.operands(role, cases.normal(spec, seed)) for seed in range(3)]
    columns = zip(zip(*members, strict=True), mapped, strict=True)
    stacks = [np.stack(values) if axis == 0 else values[0] for values, axis in columns]
    one = functools.partial(convolve, role, spec=spec, algorithm=algorithm)
    program = jit_quickly(jax.vmap(one, mapped))
    clean = np.asarray(program(*stacks))
    for index in (index for index, axis in enumerate(mapped) if axis == 0):
        bad = [v.copy() for v in stacks]
        bad[index][1] = np.nan
        got = np.asarray(program(*bad))
        np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(clean, 1, 0))
        assert np.isnan(got[1]).any()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["multiplier", "everything", "same", "1d_causal", "transposed_groups"])
@pytest.mark.parametrize("word", ["auto", "portable"])
def test_the_choice_keeps_members_apart(name, role, word):
    assert_members_apart(word, role, (0, 0), cases.named(name).spec)


@every_exact_one
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes_keep_the_promise(name, role, dtype):
    with jax.enable_x64(dtype == "float64"):
        for case in some_of_the_table(name, role)[:1]:
            spec = case.spec.with_dtype(dtype)
            if refuses(ALGORITHMS[name], role, spec):
                continue
            rng, program = (
                np.random.default_rng(2),
                jit_quickly(functools.partial(evaluate, ALGORITHMS[name], role, spec=spec)),
            )
            normal = cases.operands(role, cases.normal(case.spec))
            few = [(np.abs(v) * 2.0 ** rng.integers(-3, 3, v.shape)).astype(dtype) for v in normal]
            clean = program(*few)
            assert_right_in_every_window(clean, role, few, spec)
            bad = [v.copy() for v in few]
            at = images(role)[0]
            bad[at][0] = np.nan  # all of the first image
            got, clean = (np.asarray(v).astype("float64") for v in (program(*bad), clean))
            if role != "grad_kernel":
                np.testing.assert_array_equal(got[1:], clean[1:])


# -- over random specs -----------------------------------------------------------------------------


def random_spec(rng):
    """One to three dimensions, any size, stride, dilation, padding, cropping and groups; or one of the shapes
    that some algorithms take alone: a kernel of one tap, windows that tile, a long kernel."""
    kind = rng.choice(["any", "any", "upsampled", "pointwise", "tiles", "long"])
    n = int(rng.integers(1, 3 if kind == "long" else 4))

    def each(low, high):
        return tuple(int(v) for v in rng.integers(low, high + 1, n))

    kernel = (int(rng.integers(65, 70)), 2)[:n] if kind == "long" else each(1, 4)
    space = dict(kernel=kernel, spatial=(int(rng.integers(70, 90)), 3)[:n] if kind == "long" else each(4, 9))
    if kind == "pointwise":
        space |= dict(kernel=(1,) * n, strides=each(1, 2))
    if kind == "tiles":
        space |= dict(strides=kernel)
    if kind in ("any", "upsampled"):
        padding = tuple(zip(each(-1, 3), each(-1, 3), strict=True))
        space |= dict(strides=each(1, 3), rhs_dilation=each(1, 2), padding=padding)
    if kind == "upsampled":
        space |= dict(lhs_dilation=each(1, 3))
    groups, c, o, batch = (
        int(v) for v in (rng.choice([1, 1, 2, 3]), *rng.integers(1, 5, 2), rng.integers(1, 4))
    )
    return ConvSpec.of(**space, batch=batch, groups=groups, in_channels=groups * c, out_channels=groups * o)


def random_specs(seed):
    """Without end, those that have something to compute."""
    rng = np.random.default_rng(seed)
    while True:
        spec = random_spec(rng)
        if not spec.is_empty:
            yield spec


MAPPED = ((None, None), (0, None), (None, 0), (0, 0))
MEMBERS = 3
EACH = 20 if settings.default == settings.get_profile("deep") else 2
SOME = tuple(itertools.islice(random_specs(0), 24))


@pytest.fixture
def as_if_large(monkeypatch):
    """Choices as for problems so large that a difference of microseconds does not count."""
    for name, value in dict(SLACK=0, MARGIN=1).items():
        monkeypatch.setattr(jconv.choice.cost, name, value)
    jconv.choice.pick._choose.cache_clear()
    yield
    jconv.choice.pick._choose.cache_clear()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at", range(len(SOME)))
def test_auto_keeps_the_promise_on_random_specs(at, role, as_if_large):
    word = ("auto", "portable")[at // 4 % 2]
    assert_promise_kept(word, role, MAPPED[(at + ROLES.index(role)) % 4], SOME[at])


def test_what_auto_takes_of_random_specs_is_most_of_what_there_is(as_if_large):
    words = ("auto", "portable")
    taken = {
        jconv.choice.pick.choose(spec, role, "cpu", word).algorithm.name
        for spec in SOME for role in ROLES for word in words
    }  # fmt: skip
    assert len(taken) >= 8


@functools.cache
def taken_at_random(form, role):
    """Random specs that the form takes in that role, of few taps where it can be: many compile slowly."""
    taken = [spec for spec in itertools.islice(random_specs(1), 300) if not refuses(form, role, spec)]
    return ([spec for spec in taken if spec.taps < 32] or taken)[:EACH]


TAKING = [(form, role) for form in FORMS if form.exact for role in ROLES if taken_at_random(form, role)]


@pytest.mark.parametrize(
    ("form", "role"), TAKING, ids=[f"{form.name} {form.variant}-{role}" for form, role in TAKING]
)
def test_every_exact_form_keeps_the_promise_on_random_specs(form, role):
    """One spec without mapping, and one in one of the ways to map."""
    ways = itertools.cycle(((None, None), MAPPED[1 + len(form.name) % 3]))
    for spec, mapped in zip(taken_at_random(form, role), ways, strict=False):
        assert_promise_kept(form, role, mapped, spec)


def test_every_exact_form_takes_some_random_specs():
    assert {id(form) for form, _ in TAKING} == {id(form) for form in FORMS if form.exact and runs_here(form)}


def assert_promise_kept(algorithm, role, mapped, spec):
    """Each sentence, for every member of the vmap, on one compiled program."""
    members = MEMBERS if any(axis == 0 for axis in mapped) else 1
    one = functools.partial(convolve, role, spec=spec, algorithm=algorithm)
    mapping = jax.vmap(one, mapped) if members > 1 else lambda a, b: one(a, b)[None]
    compiled = jit_quickly(mapping)

    def program(seen):
        """Of the operands that each member sees."""
        columns = zip(zip(*seen, strict=True), mapped, strict=True)
        return np.asarray(
            compiled(*(np.stack(values) if axis == 0 else values[0] for values, axis in columns))
        )

    def of_members(make):
        """What `make` gives for each member; the first one's where all share an operand."""
        own = [make(i) for i in range(members)]
        return [
            [v if axis == 0 else v0 for v, v0, axis in zip(each, own[0], mapped, strict=True)] for each in own
        ]

    few = of_members(lambda i: scattered(role, spec, i))
    for got, operands in zip(program(few), few, strict=True):
        assert_right_in_every_window(got, role, operands, spec)
    few = of_members(lambda i: cases.operands(role, cases.whole(spec, i)))
    for got, operands in zip(program(few), few, strict=True):
        np.testing.assert_array_equal(got, cases.reference(role, *operands, spec))
    few = of_members(lambda i: cases.operands(role, cases.normal(spec, i)))
    clean = program(few)
    for at, value in itertools.product((0, 1), (np.nan, np.inf, 1e30)):
        spoilt = members - 1 if mapped[at] == 0 else 0
        assert_value_stays(program, role, at, value, spoilt, few, clean, mapped, spec)


def assert_value_stays(program, role, at, value, spoilt, few, clean, mapped, spec):
    """A value in one member's operand changes what sees it in that member (or in all that share it), and
    nothing else but, where zeros of the padding meet it, results of the same channels: all taps of a kernel's
    gradient, and all pixels where the value is a kernel's."""
    entry = tuple(size // 2 for size in few[0][at].shape)
    bad = [[v.copy() for v in operands] for operands in few]
    seen = lost = reached(role, at, entry, spec)
    if role == "grad_kernel" or OPERANDS[role][at] == "w":
        channels = entry[-2:] if OPERANDS[role][at] == "w" else entry[-1:]
        lost = np.broadcast_to(reached(role, at, (..., *channels), of_channels(spec)), seen.shape)
    sees = [i for i in range(len(few)) if i == spoilt or mapped[at] is None]
    for i in sees:
        bad[i][at][entry] = value
    for i, got in enumerate(program(bad)):
        assert i not in sees or (got[seen] != clean[i][seen]).all()
        kept = ~lost if i in sees else np.ones_like(lost)
        np.testing.assert_array_equal(got[kept], clean[i][kept])


def reached(role, at, entry, spec):
    """Which results see any of those values of an operand."""
    marks = [np.ones(cases.shapes(spec)[name]) for name in OPERANDS[role]]
    marks[at][...] = 0
    marks[at][entry] = 1
    return cases.reference(role, *marks, spec) > 0


def of_channels(spec):
    """One pixel and one tap of the same channels."""
    one = (1,) * spec.ndim
    channels = dict(in_channels=spec.in_channels, out_channels=spec.out_channels, groups=spec.groups)
    return ConvSpec.of(batch=spec.batch, spatial=one, kernel=one, **channels)


# -- what the others give up -----------------------------------------------------------------------


SKY = ConvSpec.of(spatial=(16, 15), kernel=(3, 3), in_channels=8, out_channels=8, padding=((1, 1),) * 2)
VOLUME = ConvSpec.of(spatial=(5, 16, 15), kernel=(3, 3, 3), in_channels=8, out_channels=8)


@pytest.mark.parametrize("name", MIXING)
def test_transforms_lose_small_values_beside_a_large_one(name):
    """A star that no window sees but through a tap that is 0 still costs the digits of its neighbours."""
    spec = VOLUME if refuses(ALGORITHMS[name], "forward", SKY) else SKY
    x = np.full(spec.x_shape, 1e-6, np.float32)
    x[(0, *(size // 2 for size in spec.spatial), 0)] = 5000
    w = np.random.default_rng(0).uniform(1, 2, spec.w_shape).astype("f")
    w[..., 1:, :, :] = 0
    right = cases.reference("forward", x, w, spec)
    got = np.asarray(compiled(ALGORITHMS[name], "forward", x, w, spec), float)
    assert cases.error(got, right) < 1e-5  # beside the largest all is well
    faint = right < 1
    assert (np.abs(got - right)[faint] > 0.1 * right[faint]).any()


@pytest.mark.parametrize("form", [form for form in FORMS if not form.exact], ids=lambda f: f.name + f.variant)
def test_transforms_give_up_every_other_sentence(form):
    """Locality, signs, zeros and whole numbers: what is said of them in their modules."""
    spec = ConvSpec.of(batch=2, spatial=(24, 25), kernel=(3, 3), in_channels=2, out_channels=3)
    rng = np.random.default_rng(0)
    x, w = rng.uniform(0, 1, spec.x_shape).astype("f"), rng.uniform(0, 1, spec.w_shape).astype("f")
    program = jax.jit(functools.partial(evaluate, form, "forward", spec=spec))
    bad = x.copy()
    bad[0, 11, 10, 0] = np.nan
    lost = np.isnan(np.asarray(program(bad, w)))
    assert (lost & ~reached("forward", 0, (0, 11, 10, 0), spec)).any()
    sparse = np.zeros_like(x)
    sparse[:, ::11, ::11] = 1e3 * x[:, ::11, ::11]
    right, got = cases.reference("forward", sparse, w, spec), np.asarray(program(sparse, w))
    assert (got[right == 0] != 0).any()
    assert (got < 0).any()
    few = cases.operands("forward", cases.whole(spec, most=100))
    right = cases.reference("forward", *few, spec)
    assert np.abs(right).max() < 2**24  # so that a direct sum is exact
    assert (np.asarray(program(*few)) != right).any()


@pytest.mark.parametrize("word", ["auto", "portable"])
@pytest.mark.parametrize("role", ROLES)
def test_the_words_take_exact_ones_alone(role, word):
    specs = [case.spec for case in cases.CASES] + [SKY, SKY.replace(groups=4, batch=64, spatial=(56, 56))]
    for spec in specs:
        choice = jconv.choice.pick.choose(spec, role, "cpu", word)
        assert choice.algorithm.exact
        assert not set(choice.seconds) & set(MIXING)
