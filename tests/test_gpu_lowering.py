"""Everything lowers for a GPU on a machine without one, by the choice made for a GPU."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.record import Algorithm, refuses
from jconv.calculus import primitives
from jconv.calculus.primitives import convolve
from jconv.choice import pick
from jconv.choice.pick import choose
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases
from jconv.testing.cases import named

FAMILIES = ("same", "stride_dilation", "groups", "multiplier", "pointwise", "large_kernel", "1d_causal",
            "3d", "transposed")  # fmt: skip
LARGE = ConvSpec.of(batch=8, spatial=(56, 56), kernel=(3, 3), in_channels=64, out_channels=64, groups=64)


def forward_and_gradients(spec, algorithm):
    def run(x, w, g):
        y, backward = jax.vjp(lambda x, w: convolve("forward", x, w, spec, algorithm), x, w)
        return y, *backward(g)

    return run


def lowered(spec, algorithm, platforms=("cuda",)):
    """The exported program of all three roles."""
    arrays = (jax.ShapeDtypeStruct(shape, spec.x_dtype) for shape in cases.shapes(spec).values())
    run = jax.jit(forward_and_gradients(spec, algorithm))
    return jax.export.export(run, platforms=platforms)(*arrays)


def takers(algorithm):
    """The families' cases that an algorithm takes, or the first of all cases that it does."""
    takes = [case for case in map(named, FAMILIES) if refuses(algorithm, "forward", case.spec) is None]
    return takes[:2] or [c for c in cases.CASES if refuses(algorithm, "forward", c.spec) is None][:1]


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_lowers_every_family(family):
    spec = named(family).spec
    exported = lowered(spec, "auto")
    assert exported.platforms == ("cuda",)
    assert [aval.shape for aval in exported.out_avals] == [spec.result(role)[0] for role in ROLES]


PORTABLE = [algorithm for algorithm in ALGORITHMS.values() if algorithm.portable]


def test_what_is_for_the_cpu_says_so():
    with pytest.raises(ValueError, match="`algorithm`='onednn' refuses: oneDNN is for the CPU, not for cuda"):
        pick.resolve("onednn", "forward", LARGE, "cuda")


@pytest.mark.parametrize("algorithm", PORTABLE, ids=lambda algorithm: algorithm.name)
def test_every_portable_algorithm_lowers_by_name(algorithm):
    chosen = takers(algorithm)
    assert chosen, "no case of the table is for it"
    for case in chosen:
        text = lowered(case.spec, algorithm.name).mlir_module()
        if algorithm.name in ("im2col", "shift", "depthwise"):
            assert "stablehlo.convolution" not in text, "it is written without XLA's own"
        if algorithm.name == "xla":
            assert text.count("stablehlo.convolution") == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_lower(dtype):
    exported = lowered(named("groups").spec.with_dtype(dtype), "auto")
    assert {str(aval.dtype) for aval in exported.out_avals} == {dtype}


def test_the_doors_lower():
    x, w = jnp.ones((2, 4, 9, 8)), jnp.ones((4, 4, 3, 3))
    doors = (
        functools.partial(jconv.conv2d, stride=2, padding=1),
        functools.partial(jconv.conv_transpose2d, stride=2, padding=1),
        functools.partial(jconv.conv_general_dilated, window_strides=(1, 1), padding="SAME"),
        jax.vmap(jconv.conv2d, (None, 0)),
        jconv.accelerate(lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID")),
    )
    for number, door in enumerate(doors):
        kernels = w[None] if number == 3 else w
        loss = lambda x, w, door=door: jnp.sum(door(x, w) ** 2)  # noqa: E731
        exported = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=["cuda"])(x, kernels)
        assert [aval.shape for aval in exported.out_avals] == [x.shape, kernels.shape]


# -- the platform reaches the choice ---------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """(platform, role) of every question put to the choice while a program is lowered."""
    questions = []
    resolve = primitives.resolve

    def spy(algorithm, role, spec, platform, *reason, **more):
        questions.append((platform, role))
        return resolve(algorithm, role, spec, platform, *reason, **more)

    monkeypatch.setattr(primitives, "resolve", spy)
    return questions


@pytest.mark.parametrize("platforms", [("cpu",), ("cuda",), ("rocm",), ("tpu",), ("cpu", "cuda")])
def test_the_platform_of_the_program_is_asked_about_not_the_machines(platforms, asked):
    lowered(named("same").spec, "auto", platforms)
    assert set(asked) == {(platform, role) for platform in platforms for role in ROLES}


def test_a_program_for_both_runs_here():
    spec = named("everything").spec
    arrays = tuple(cases.normal(spec).values())
    results = lowered(spec, "auto", ("cpu", "cuda")).call(*arrays)
    for role, result in zip(ROLES, results, strict=True):
        want = cases.reference(role, *cases.operands(role, dict(zip("xwy", arrays, strict=True))), spec)
        assert cases.error(result, want) <= tolerance("float32", cases.reduction(role, spec))


@pytest.mark.parametrize("role", ROLES)
def test_the_choice_is_the_same_every_time(role):
    choices = [choose(LARGE, role, "cuda") for _ in range(3)]
    choices.append(choose(LARGE.replace(), role, "cuda"))
    assert len({(choice.algorithm.name, choice.reason) for choice in choices}) == 1
    assert choices[0].platform == "cuda"


def test_an_own_algorithm_lowers():
    own = Algorithm("own", lambda x, w, spec: np.float32(1) * IM2COL.forward(x, w, spec))
    assert lowered(named("same").spec, own).platforms == ("cuda",)
