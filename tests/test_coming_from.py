"""docs/coming_from.md is true: each row's two calls give the same array, each name is that library's."""

import importlib
import inspect
import os
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv.api.options import ConvOptions, TransposedOptions, usual
from jconv.spec import ConvSpec
from jconv.spec.spelling import ELSEWHERE

PAGE = (Path(__file__).parent.parent / "docs" / "coming_from.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
LIBRARIES = ["PyTorch", "TensorFlow and Keras", "Flax", "lax", "ONNX"]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def whole(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


FIRST = dict(x=whole(2, 8, 9, 7), w=whole(6, 8, 3, 3), b=whole(6), wt=whole(8, 6, 3, 3),
             wd=whole(16, 1, 3, 3), x1=whole(2, 8, 9), w1=whole(6, 8, 3), wg=whole(6, 4, 3, 3),
             wo=whole(5, 72, 7, 5), xl=whole(2, 9, 7, 8), wl=whole(3, 3, 8, 6))  # fmt: skip
LAST = dict(x=whole(2, 9, 7, 8), w=whole(3, 3, 8, 6), wt=whole(3, 3, 6, 8), wk=whole(3, 3, 8, 2),
            x1=whole(2, 9, 8), w1=whole(3, 8, 6), wf=whole(3, 3, 8, 6))  # fmt: skip


def first(x):
    return x.transpose(0, 3, 1, 2)


def imported(name):
    return pytest.importorskip(name, reason="an optional oracle")


def of_pytorch():
    torch = imported("torch")

    def layer_of(layer, kernel):
        layer.weight = torch.nn.Parameter(kernel, requires_grad=False)
        return layer

    tensors = {name: torch.tensor(array) for name, array in FIRST.items()}
    return FIRST, tensors | dict(F=torch.nn.functional, nn=torch.nn, layer_of=layer_of)


def of_keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    ours = LAST | dict(first=first)
    return ours, ours | dict(keras=imported("keras"), causal=lambda x, n: np.pad(x, ((0, 0), (n, 0), (0, 0))))


def of_flax():
    return LAST, LAST | dict(nn=imported("flax.linen"), of=lambda kernel: {"params": {"kernel": kernel}})


def of_lax():
    return FIRST, FIRST | dict(lax=lax, flipped=lambda w: w[:, :, ::-1, ::-1].swapaxes(0, 1))


def of_onnx():
    onnx = imported("onnx")
    reference = importlib.import_module("onnx.reference")

    def run(operator, *arrays, **attributes):
        names = ["x", "w", "b"][: len(arrays)]
        node = onnx.helper.make_node(operator, names, ["y"], **attributes)
        given = dict(zip(names, arrays, strict=True))
        typed = [onnx.helper.make_tensor_value_info(name, 1, array.shape) for name, array in given.items()]
        result = onnx.helper.make_tensor_value_info("y", 1, None)
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "one", typed, [result]))
        return reference.ReferenceEvaluator(model).run(None, given)[0]

    return FIRST, FIRST | dict(onnx=run)


NAMESPACES = dict(zip(LIBRARIES, [of_pytorch, of_keras, of_flax, of_lax, of_onnx], strict=True))


def rows(section):
    """The two cells of each row that are both code and nothing else."""
    return re.findall(r"^\| `([^`]*)` \| `([^`]*)` \|$", SECTIONS[section], re.MULTILINE)


ROWS = [(library, *row) for library in LIBRARIES for row in rows(library)]


@pytest.mark.parametrize(("library", "theirs", "ours"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_both_calls_of_a_row_give_the_same_array(library, theirs, ours):
    mine, others = NAMESPACES[library]()
    found = eval(ours, dict(mine, jconv=jconv))
    expected = np.asarray(eval(theirs, dict(others)))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_hardly_a_row_is_left_out():
    for library in LIBRARIES:
        lines = [line for line in SECTIONS[library].splitlines() if line.startswith("| `")]
        assert 6 <= len(rows(library)) <= len(lines) <= len(rows(library)) + (library == "PyTorch")


NAMES = [line.strip("| ").split("|") for line in SECTIONS["Names"].splitlines() if line.startswith("| `")]
COLUMNS = {
    "PyTorch": lambda: inspect.signature(imported("torch").nn.Conv2d).parameters,
    "Keras": lambda: inspect.signature(of_keras()[1]["keras"].layers.Conv2D).parameters,
    "Flax": lambda: inspect.signature(imported("flax.linen").Conv).parameters,
    "lax": lambda: inspect.signature(lax.conv_general_dilated).parameters,
    "ONNX": lambda: imported("onnx").defs.get_schema("Conv").attributes,
}


@pytest.mark.parametrize("library", COLUMNS)
def test_the_names_are_the_librarys_and_a_wrong_one_is_answered_by_ours(library):
    theirs = COLUMNS[library]()
    column = [*COLUMNS].index(library) + 1
    x, w = jnp.ones((1, 3, 5)), jnp.ones((2, 3, 3))
    for cells in NAMES:
        mine, its = (cells[at].strip(" `") if at < len(cells) else "" for at in (0, column))
        assert mine in usual(ConvOptions)
        if its:
            assert its in theirs
        if its and its != mine:
            with pytest.raises(TypeError, match=f"no option `{its}`; .* `{mine}`"):
                jconv.conv1d(x, w, **{its: 1})


def test_what_other_libraries_say_is_answered_by_an_option_that_exists():
    known = {*usual(TransposedOptions), *inspect.signature(ConvSpec.of).parameters}
    for theirs, ours in ELSEWHERE.items():
        assert set(ours) <= known - {theirs}
