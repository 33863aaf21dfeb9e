"""Every algorithm keeps to the rounding error it documents, and to what it says of NaN and Inf."""

import csv
import functools
import io
import itertools
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import AS_USERS
from oracles import runs_here

from jconv import __main__ as command_line
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import MAX_AMPLIFICATION, allowed, evaluate, refuses
from jconv.bench import accuracy
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance, unit_roundoff
from jconv.testing import cases

HERE = {name: algorithm for name, algorithm in ALGORITHMS.items() if runs_here(algorithm)}
everyone = pytest.mark.parametrize("algorithm", HERE.values(), ids=HERE)

# Geometries with groups come first: what leaks from one group into another shows there.
SMALL = {"groups": 72, "depthwise": 16, "dense": 72, "1×1": 16, "patches": 72, "transposed": 72,
         "transposed patches": 72, "transposed depthwise": 16, "strided": 144, "volumes": 54,
         "valid": 72, "colours": 27}  # fmt: skip


SPECS = [accuracy.FAMILIES[name](length) for name, length in SMALL.items()]
TAKEN = {
    (name, role): next((spec for spec in SPECS if not refuses(algorithm, role, spec)), None)
    for name, algorithm in ALGORITHMS.items()
    for role in ROLES
}
everyone_s_roles = pytest.mark.parametrize(
    ("algorithm", "role"), [(ALGORITHMS[name], role) for (name, role), spec in TAKEN.items() if spec]
)


def test_everyone_has_a_geometry():
    assert all(TAKEN[name, "forward"] for name in HERE)


@functools.cache
def small(algorithm, role):
    """A geometry of which the algorithm computes the role, its operands, and the role compiled as a user's:
    here all algorithms are, while the other tests mind how soon a program runs."""
    spec = TAKEN[algorithm.name, role]
    operands = cases.operands(role, cases.normal(spec))
    role_of = functools.partial(evaluate, algorithm, role, spec=spec)
    return spec, operands, jax.jit(role_of, compiler_options=AS_USERS)


# -- the bound it documents ------------------------------------------------------------------------


@everyone_s_roles
def test_the_error_keeps_to_what_is_documented(algorithm, role):
    spec, operands, compiled = small(algorithm, role)
    error = cases.error(compiled(*operands), cases.reference(role, *operands, spec))
    amplification = accuracy.amplification(algorithm, role, spec)
    assert 0 < error <= tolerance("float32", cases.reduction(role, spec), amplification)


HALVES = [(name, "bfloat16") for name in HERE if runs_here(HERE[name], "bfloat16")] + [
    (name, "float16") for name in ("xla", "fft", "winograd")
]


@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_halves_err_by_little_more_than_their_last_rounding(name, dtype):
    """Sums are kept in float32: a result in halves is half a unit off, whatever the length."""
    spec, _, _ = small(ALGORITHMS[name], "forward")
    (family,) = (f for f, length in SMALL.items() if accuracy.FAMILIES[f](length) == spec)
    cell = accuracy.measure(ALGORITHMS[name], family, dtype, SMALL[family])
    assert cell.error <= cell.bound
    assert cell.rms <= unit_roundoff(dtype)


def test_sums_kept_in_halves_would_be_seen():
    spec = accuracy.dense(576).with_dtype("bfloat16")
    x, w = cases.operands("forward", cases.normal(spec))
    total = np.zeros(spec.y_shape, spec.y_dtype)
    for r, p, h in cases.meetings(spec):
        for c in range(spec.c):
            total[:, *p] += x[:, *h][..., c : c + 1] * w[r][c]
    assert cases.error(total, cases.reference("forward", x, w, spec)) > tolerance("bfloat16", 576)


def test_the_error_does_not_outgrow_the_square_root():
    cells = [accuracy.measure(ALGORITHMS["im2col"], "dense", "float32", n) for n in (9, 72, 576, 4608)]
    assert all(cell.error <= cell.bound for cell in cells)
    assert cells[-1].bound < 30 * cells[0].bound


@pytest.mark.parametrize("name", [name for name, a in ALGORITHMS.items() if not a.exact])
def test_fastest_takes_what_mixes_values_only_where_it_errs_little(name):
    algorithm = ALGORITHMS[name]
    family = accuracy.family_of(algorithm, (72,))
    spec = accuracy.FAMILIES[family](72)
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert allowed(algorithm, spec, fastest=True) == (algorithm.amplification(spec) < MAX_AMPLIFICATION)
    assert not allowed(algorithm, spec.replace(precision=highest), fastest=True)
    assert not allowed(algorithm, spec, fastest=False)
    direct = accuracy.measure(ALGORITHMS["xla"], family, "float32", 72)
    cell = accuracy.measure(algorithm, family, "float32", 72)
    assert cell.rms < MAX_AMPLIFICATION * direct.rms


def test_exact_ones_are_always_allowed():
    spec = accuracy.dense(72).replace(precision=(jax.lax.Precision.HIGHEST,) * 2)
    assert all(allowed(ALGORITHMS["im2col"], spec, fastest) for fastest in (False, True))


# -- NaN and Inf -----------------------------------------------------------------------------------


def poisoned(array, value, row=None):
    """One entry replaced, in the middle but for its row."""
    array = array.copy()
    at = [size // 2 for size in array.shape]
    at[1] = at[1] if row is None else row
    array[tuple(at)] = value
    return array


def reached(role, operands, position, spec, row=None):
    """Which results have that entry of operand number `position` in their sums."""
    marks = [np.ones_like(v) for v in operands]
    marks[position] = poisoned(np.zeros_like(operands[position]), 1, row)
    return cases.reference(role, *marks, spec) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@everyone_s_roles
def test_nan_and_inf_stay_where_they_belong(algorithm, role, value):
    """In whatever holds pixels (x or a gradient): it reaches all results that sum over it and, if the
    algorithm is exact, no other; in particular not those of other groups."""
    spec, operands, compiled = small(algorithm, role)
    clean = np.asarray(compiled(*operands))
    for position in (0, 1) if role == "grad_kernel" else (0,):
        bad = [poisoned(v, value) if i == position else v for i, v in enumerate(operands)]
        got, inside = np.asarray(compiled(*bad)), reached(role, operands, position, spec)
        assert not np.isfinite(got[inside]).any()
        if algorithm.exact:
            assert inside.any()
            assert not inside.all()
            np.testing.assert_array_equal(got[~inside], clean[~inside])


@everyone
def test_nan_in_a_kernel_stays_in_its_output_channel(algorithm):
    """There it reaches whatever its tap sees of the input; of the padding, that is left open."""
    spec, (x, w), compiled = small(algorithm, "forward")
    got = np.asarray(compiled(x, poisoned(w, np.nan)))
    seen = reached("forward", (x, w), 1, spec)
    assert np.isnan(got[seen]).all()
    channel = spec.out_channels // 2
    assert seen[..., channel].any()
    if algorithm.exact or not np.isnan(np.delete(got, channel, -1)).any():
        np.testing.assert_array_equal(
            np.delete(got, channel, -1), np.delete(np.asarray(compiled(x, w)), channel, -1)
        )


IN_PIECES = {
    "blocks of taps": ("depthwise", "forward", dict(spatial=(17, 11), kernel=(13, 6), groups=4)),
    "pieces of rows": ("depthwise", "grad_kernel", dict(spatial=(21, 9), kernel=(3, 3), groups=4)),
    "bands": ("im2col", "grad_kernel", dict(spatial=(67, 90), kernel=(3, 3), batch=9)),
}


@pytest.mark.parametrize(("name", "role", "geometry"), IN_PIECES.values(), ids=IN_PIECES)
def test_cutting_into_pieces_that_do_not_fit_leaks_no_nan(name, role, geometry):
    """What fills up the last piece must not meet a row that it does not see."""
    channels = 32 if name == "im2col" else 4
    spec = ConvSpec.of(**geometry, in_channels=channels, out_channels=4)
    x, other = cases.operands(role, cases.whole(spec))
    compiled = jax.jit(functools.partial(evaluate, ALGORITHMS[name], role, spec=spec))
    clean = np.asarray(compiled(x, other))
    np.testing.assert_array_equal(clean, cases.reference(role, x, other, spec))
    for row in (spec.spatial[0] - 1, spec.spatial[0] // 2):
        got = np.asarray(compiled(poisoned(x, np.nan, row), other))
        inside = reached(role, (x, other), 0, spec, row)
        assert inside.any()
        np.testing.assert_array_equal(got, np.where(inside, np.nan, clean))


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_and_writes_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy.sweep, "__defaults__", (accuracy.DTYPES, (9, 18)))
    files = tmp_path / "table.md", tmp_path / "table.csv"
    arguments = ["accuracy", "im2col", "depthwise", "--dtypes", "float32", "--markdown", str(files[0])]
    assert command_line.main([*arguments, "--csv", str(files[1])]) == 0
    out = capsys.readouterr().out
    assert out.strip() == files[0].read_text().strip()
    assert "| `im2col`" in out
    assert "## float32" in out
    files[0].write_text("Read this.\n\nMeasured on an abacus\n\n| 1 |\n")
    assert command_line.main(arguments) == 0
    written = files[0].read_text()
    assert written.startswith("Read this.\n\nMeasured on ")
    assert "abacus" not in written
    rows = list(csv.DictReader(io.StringIO(files[1].read_text())))
    forms = [accuracy.written(form) for name in ("im2col", "depthwise") for form in ALGORITHMS[name].forms]
    assert [(row["algorithm"], row["length"]) for row in rows] == [*itertools.product(forms, ("9", "18"))]
    assert all(0 < float(row["error"]) < 1e-6 for row in rows)


def test_the_command_fails_when_a_bound_is_broken(capsys, monkeypatch):
    cell = accuracy.Cell("im2col", "dense", "forward", "float32", 9, 1e-3, 1e-4, 1e-6)
    monkeypatch.setattr(accuracy, "sweep", lambda *_: iter([cell]))
    assert command_line.main(["accuracy", "im2col"]) == 1
    assert "1.0e-03 over 1.0e-06!" in capsys.readouterr().out


def test_the_command_refuses_wrong_usage(tmp_path, capsys, monkeypatch):
    assert command_line.main(["accuracy", "guesswork"]) == 2
    assert "no algorithm 'guesswork'; there are onednn, xla" in capsys.readouterr().err
    monkeypatch.setattr(accuracy, "sweep", lambda *_: iter([]))
    assert command_line.main(["accuracy", "--csv", str(tmp_path / "no" / "folder.csv")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_an_algorithm_beside_xla_is_compared_on_the_same_problem():
    cell = accuracy.measure(ALGORITHMS["xla"], "dense", "float32", 9)
    assert accuracy._against_xla(cell) == 1.0
    assert math.isnan(accuracy._against_xla(accuracy.Cell("a", "dense", "forward", "int32", 9, 0, 0, 0)))


def test_the_page_has_a_row_for_every_algorithm():
    """`python -m jconv accuracy --markdown jconv/algorithms/ACCURACY.md` writes it."""
    page = Path(accuracy.__file__).parents[1] / "algorithms" / "ACCURACY.md"
    named = set(re.findall(r"^\| `(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == set(ALGORITHMS)
