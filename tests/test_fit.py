"""`python -m jconv tune --fit` finds the numbers that times were made from, and loses no measurement."""

import dataclasses
import json

import numpy as np
import pytest

from jconv import __main__ as command_line
from jconv.algorithms.record import Gemm, Loop, Native
from jconv.bench import fitting
from jconv.bench.fitting import Timed
from jconv.bench.interrupts import INTERRUPTED
from jconv.choice import rates
from jconv.spec import ConvSpec

SPECS = [
    ConvSpec.of(batch=2, spatial=(7, 6), kernel=(3, 2), in_channels=3, out_channels=4),
    ConvSpec.of(batch=1, spatial=(9,), kernel=(3,), in_channels=4, out_channels=4, groups=4),
    ConvSpec.of(batch=1, spatial=(5, 5), kernel=(1, 1), in_channels=6, out_channels=5),
]


@pytest.fixture
def few(monkeypatch):
    """Three tiny problems instead of hundreds, and two turns of the fit."""
    monkeypatch.setattr(fitting, "problems", lambda: [(spec, "forward") for spec in SPECS])
    monkeypatch.setattr(fitting, "ITERATIONS", 2)


def fit_command(file, *more):
    return command_line.main(["tune", "--fit", "--measured", str(file), "--rounds", "1", *more])


def test_measures_fits_and_compares_and_measures_nothing_twice(few, tmp_path, capsys, monkeypatch):
    file = tmp_path / "times.jsonl"
    assert fit_command(file) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 problems, ")
    for line in ("gemm ", "native.ynn.packing ", "picks take, times the best ", "  at worst "):
        assert line in out
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [fitting.timings(row)[0].seconds > 0 for row in rows] == [True] * 3
    monkeypatch.setattr(fitting, "times_of", None)
    assert fit_command(file) == 0
    assert capsys.readouterr().out == out


def test_an_interrupted_run_keeps_what_it_measured(few, tmp_path, capsys, monkeypatch):
    file, times_of = tmp_path / "times.jsonl", fitting.times_of
    done = []

    def impatient(*problem):
        done.append(problem)
        if len(done) == 3:
            raise KeyboardInterrupt
        return times_of(*problem)

    monkeypatch.setattr(fitting, "times_of", impatient)
    assert fit_command(file) == INTERRUPTED
    assert "2 problems are in" in capsys.readouterr().err
    assert len(fitting.read(file)) == 2
    assert fit_command(file) == 0
    assert len(done) == 4
    assert len(fitting.read(file)) == 3


def timed(record, rng):
    """What machines with that record would take for steps of all sizes: the first is fast on each second."""
    sizes = 2 ** rng.uniform(2, 11, (60, 3))
    found = []
    for m, n, k in sizes.astype(int).tolist():
        spec = ConvSpec.of(spatial=(m % 60 + 8, 33), kernel=(3, 3), in_channels=n % 256 + 17, out_channels=64)
        for name, steps in {"im2col": (Gemm(1, m, n, k),), "depthwise": (Loop(m * n, 8 * m * k),),
                            "xla": (Native(spec),)}.items():  # fmt: skip
            one = Timed(name, steps, 0, 1.0)
            found.append(one._replace(seconds=one.estimate(record)))
    return found


def test_the_fit_finds_the_machine_that_times_were_made_from():
    """Three times slower products, twice as fast loops: from the present record's numbers to theirs."""
    other = rates.scaled(rates.CPU, {"products": 3.0, "loops": 0.5, "convolutions": 1.5})
    times = timed(other, np.random.default_rng(0))
    before, refit = rates.CPU, fitting.fit(times, rates.CPU)
    assert np.abs(fitting.errors(times, before)).mean() > 0.3
    assert np.abs(fitting.errors(times, refit)).mean() < 0.05
    assert refit.onednn == before.onednn, "nothing spoke of it"
    grouped = [times[i : i + 3] for i in range(0, len(times), 3)]
    assert fitting.regrets(refit, grouped).mean() <= fitting.regrets(before, grouped).mean()


def test_every_number_of_the_record_is_fitted_but_those_given():
    names = fitting.numbers(rates.CPU)
    assert {"half_side", "native.naive.rate", "onednn.kernel", "call"} <= set(names)
    assert not {"onednn.lanes", "native.ynn.packed", "native.eigen.kernel"} & set(names)
    assert fitting.with_numbers(rates.CPU, names) == rates.CPU
    assert fitting.with_numbers(rates.CPU, {"fft": 1.0}) == dataclasses.replace(rates.CPU, fft=1.0)


def test_the_problems_are_many_and_of_every_kind():
    found = fitting.problems()
    assert len(set(found)) == len(found) > 400
    assert {role for _, role in found} == {"forward", "grad_input", "grad_kernel"}
    assert {spec.ndim for spec, _ in found} == {1, 2, 3}
    assert {spec.channels_first for spec, _ in found} == {False, True}


ROW = json.dumps(
    {"machine": "an abacus", "role": "forward", "spec": vars(SPECS[0]), "times": [["xla", "", 1]]}
)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("dear diary\n", [], "line 1 of"),
        (f'{ROW}\n{{"role": 3}}\n', [], "line 2 of"),
        (ROW, [], "holds times of 'an abacus', not of"),
        ("", ["--budget", "0"], "nothing was measured and"),
        ("", ["--groups", "2"], "--fit measures problems of its own; leave out --groups"),
        ("", ["--json"], "--fit measures problems of its own; leave out --json"),
        ("", ["a.py:f"], "--fit measures problems of its own; leave out a.py:f"),
    ],
)
def test_what_it_refuses(few, tmp_path, capsys, content, arguments, message):
    file = tmp_path / "times.jsonl"
    file.write_text(content)
    assert fit_command(file, *arguments) == 2
    assert message in capsys.readouterr().err
    assert file.read_text() == content


def test_a_file_of_another_machine_can_be_fitted_where_nothing_is_measured(few, tmp_path, capsys):
    (tmp_path / "times.jsonl").write_text(ROW)
    assert fit_command(tmp_path / "times.jsonl", "--budget", "0") == 0
    assert "1 problems, 1 times" in capsys.readouterr().out


def test_its_options_go_with_it(capsys):
    assert command_line.main(["tune", "--budget", "3"]) == 2
    assert "--budget goes with --fit" in capsys.readouterr().err
