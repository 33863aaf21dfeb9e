"""`python -m jconv bench`: what it races, what it prints and keeps, and how it stops."""

import contextlib
import csv
import importlib.util
import json
import math
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jconv
from jconv import __main__ as command_line
from jconv.bench import contest, contest_torch, layers, models_race, progress, race, report, timing
from jconv.bench.contest import Entry
from jconv.bench.layers import Layer
from jconv.spec import ROLES, ConvSpec

pytest.importorskip("rich")

DENSE = ConvSpec.of(batch=2, spatial=(7, 6), kernel=(3, 3), in_channels=3, out_channels=4,
                    padding=((1, 1), (2, 0)), strides=(2, 1))  # fmt: skip
UP = ConvSpec.of(batch=2, spatial=(5, 4), kernel=(4, 3), in_channels=3, out_channels=2,
                 lhs_dilation=(2, 2), padding=((2, 2), (1, 1)))  # fmt: skip
TINY = (Layer("dense", "tiny dense", DENSE), Layer("transposed", "tiny up", UP))
GPUS = [device for device in jax.devices() if device.platform == "gpu"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(layers, "LAYERS", TINY)
    monkeypatch.setattr(timing, "MEASUREMENT", 1e-4)
    monkeypatch.setattr(timing, "REST", 0.0)


def bench(*arguments):
    return command_line.main(["bench", "--rounds", "1", *arguments])


def test_rows_then_the_table_and_the_files(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "json", "markdown", "png")}
    kinds = {"csv": "csv", "json": "json", "markdown": "markdown", "chart": "png"}
    status = bench(*(word for kind, of in kinds.items() for word in (f"--{kind}", str(files[of]))))
    out = capsys.readouterr().out
    assert status == 0, out
    lines = out.strip().split("\n")
    assert lines[-1] == "6 races, 0 wrong results"
    assert lines[-2].startswith("all families")
    rows = list(csv.DictReader(files["csv"].read_text(encoding="utf-8").splitlines()))
    assert {(row["layer"], row["role"]) for row in rows} == {(t.name, role) for t in TINY for role in ROLES}
    kept = json.loads(files["json"].read_text(encoding="utf-8"))
    for time in kept["times"]:
        assert time["seconds"] > 0
        assert time["contestant"] == "lax" or 0 <= time["error"] <= time["bound"] < 1e-4
        assert kept["specs"][time["spec"]]["batch"] == 2
    table = files["markdown"].read_text(encoding="utf-8").splitlines()
    assert len([line for line in table if re.search(r"[,|] lax \d", line)]) == 6
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("layer", TINY, ids=str)
def test_torch_takes_part_and_computes_the_same(layer, layout):
    pytest.importorskip("torch")
    for role in ROLES:
        result = contest.contest(Entry(layer, role, layout), jax.devices("cpu")[0], seed=1, rounds=1)
        assert set(result.seconds) == {"lax", "jconv", "PyTorch"}
        assert set(result.errors) == {"jconv", "PyTorch"}
        assert not result.wrong


def test_a_convolution_that_torch_lacks_is_raced_without_it():
    cropped = TINY[0].spec.replace(padding=((-1, 0), (0, 0)))
    assert contest_torch.calls(cropped, "forward", "NHWC", ()) is None


def test_every_algorithm_by_name(capsys):
    result = contest.contest(
        Entry(TINY[0], "forward"), jax.devices("cpu")[0], seed=0, rounds=1, with_torch=False, named=True
    )
    assert {"lax", "jconv", "im2col", "shift", "xla"} <= set(result.seconds)
    assert "pointwise" not in result.seconds
    assert not result.wrong
    assert not result.failed


def test_a_wrong_result_gives_1_and_is_named(monkeypatch, capsys):
    right = jconv.conv_general_dilated
    monkeypatch.setattr(jconv, "conv_general_dilated", lambda *a, **k: 1.001 * right(*a, **k))
    assert bench("--only", "dense", "--no-torch") == 1
    assert capsys.readouterr().out.strip().endswith("wrong jconv: tiny dense, grad_kernel, NHWC, f32")


def test_a_nan_and_a_failure_are_wrong(monkeypatch):
    entry, device = Entry(TINY[0], "forward"), jax.devices("cpu")[0]
    monkeypatch.setattr(
        jconv, "conv_general_dilated", lambda *a, **k: jnp.nan * jax.lax.conv_general_dilated(*a, **k)
    )
    assert contest.contest(entry, device, 0, 1, with_torch=False).wrong == ["jconv"]

    def fails(*args, **options):
        raise MemoryError("too large")

    monkeypatch.setattr(jconv, "conv_general_dilated", fails)
    result = contest.contest(entry, device, 0, 1, with_torch=False)
    assert result.wrong == ["jconv"]
    assert "MemoryError: too large" in report.row(result)


def test_ctrl_c_prints_what_there_is_and_gives_130(monkeypatch, capsys):
    one = contest.contest(Entry(TINY[0], "forward"), jax.devices("cpu")[0], 0, 1, with_torch=False)

    def interrupted(*args, **options):
        monkeypatch.setattr(race, "contest", stop)
        return one

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(race, "contest", interrupted)
    assert bench() == 130
    out, err = capsys.readouterr()
    assert "interrupted after 1 of 6 races" in err
    assert out.strip().endswith("1 races, 0 wrong results")


def test_a_spent_budget_starts_no_other_race(capsys):
    assert bench("--budget", "1e-9") == 0
    assert "is spent after 0 of 6 races" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "square"], "invalid choice: 'square'"),
        (["--every", "0"], "must be a whole number of at least 1, got '0'"),
        (["--budget", "-3"], "must be a number of seconds above 0, got '-3'"),
        (["--csv", "no/such/folder/x.csv"], "cannot write 'no/such/folder/x.csv'"),
        (["--csv", ""], "cannot write ''"),
        (["--models", "--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
        (["--models", "--batch", "1", "-1"], "--batch: must be a whole number of at least 1, got '-1'"),
        (["--models", "--rounds", "0"], "--rounds: must be a whole number of at least 1, got '0'"),
        (["--layout", "CHWN"], "invalid choice: 'CHWN'"),
        (["--scaling", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_usage_gives_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bench(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_no_such_layer_gives_2(capsys):
    assert bench("--only", "AlexNet") == 2
    assert "no layer of these families has 'AlexNet' in its name" in capsys.readouterr().err


@pytest.mark.skipif(bool(GPUS), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_gives_2(capsys):
    assert bench("--device", "gpu") == 2
    assert "`--device gpu`: JAX" in capsys.readouterr().err


def test_without_matplotlib_a_chart_is_refused_before_anything_is_raced(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert bench("--chart", str(tmp_path / "x.png")) == 2
    assert "pip install 'jconv[bench]'" in capsys.readouterr().err


def test_a_chart_of_no_known_kind_is_refused_before_anything_is_raced(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("x.nope", "x"):
        assert bench("--chart", str(tmp_path / name)) == 2
        out, err = capsys.readouterr()
        assert f"`--chart` cannot draw '{tmp_path / name}'; end its name with" in err
        assert ".png" in err
        assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_what_was_measured_is_printed_even_if_it_cannot_be_kept(kind, capsys):
    assert bench("--only", "tiny dense", f"--{kind}", "/dev/full") == 1
    out, err = capsys.readouterr()
    assert out.strip().endswith("3 races, 0 wrong results")
    assert err.endswith("error: cannot write '/dev/full': No space left on device\n")


def test_one_file_that_cannot_be_written_does_not_keep_the_others_from_it(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_csv", full)
    kept = tmp_path / "x.json"
    assert bench("--only", "tiny up", "--csv", str(tmp_path / "x.csv"), "--json", str(kept)) == 1
    assert len(json.loads(kept.read_text(encoding="utf-8"))["times"]) >= 6


def test_models_without_their_library_are_refused_before_anything_is_raced(capsys, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flax" else there(name))
    monkeypatch.setattr(models_race, "results", lambda *_: pytest.fail("it raced"))
    assert bench("--models", "ResNeXt-50", "--batch", "1") == 2
    assert "flax.nnx is not installed; pip install 'jconv[models]'" in capsys.readouterr().err


def test_models_race_row_by_row_with_progress(capsys, monkeypatch):
    done = models_race.Result("U-Net", "flax.linen", "forward", 1, 2e-3, 1e-3, 2.0)
    monkeypatch.setattr(models_race, "one", lambda *_, **__: done)
    monkeypatch.setattr(models_race.Model, "is_here", lambda self: True)
    built = types.SimpleNamespace()
    monkeypatch.setattr(
        models_race, "MODELS", (models_race.Model("U-Net", "flax", "dense", lambda full: built),)
    )
    steps = []

    @contextlib.contextmanager
    def watched(title, total, silent=False):
        yield lambda what: steps.append((total, what))

    monkeypatch.setattr(progress, "bar", watched)
    assert bench("--models", "--only", "forward", "--batch", "1", "2", "--no-torch") == 0
    assert [total for total, _ in steps] == [2, 2]
    assert capsys.readouterr().out.count("2.00×") == 2


def test_help_of_another_command_keeps_its_lines(capsys):
    for name, line in {
        "scaling": "\n    compute   three roles of every layer's FLOPs",
        "models": "Needs the extra",
    }.items():
        with pytest.raises(SystemExit) as stop:
            bench(f"--{name}", "--help")
        assert stop.value.code == 0
        assert line in capsys.readouterr().out


def test_scaling_and_models_are_reached(capsys, monkeypatch):
    reached = []
    for name in race.ELSEWHERE:
        module = pytest.importorskip(race.ELSEWHERE[name])
        monkeypatch.setattr(module, "main", lambda args, name=name: reached.append((name, args)) or 0)
        rest = {"models": ["--batch", "2"], "scaling": ["--link", "3"]}[name]
        assert bench(f"--{name}", *rest) == 0
    assert reached[0][1].batch == [2]
    assert reached[1][1].link == 3


# -- what a GPU would be given, as far as it can be seen without one --------------------------------


def test_a_gpu_gets_all_modes_both_layouts_and_training_batches():
    parser = command_line.build_parser()
    entries = race.all_entries(parser.parse_args(["bench", "--device", "gpu"]), "cuda")
    assert len(entries) == len(TINY) * len(ROLES) * 4 * 2 == len(set(entries))
    assert all(32 <= entry.spec.batch <= 128 for entry in entries)
    precisions = {(entry.mode, entry.spec.x_dtype, entry.spec.precision) for entry in entries}
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert precisions == {("f32", "float32", highest), ("tf32", "float32", None),
                          ("bf16", "bfloat16", None), ("f16", "float16", None)}  # fmt: skip


def test_cut_short_anywhere_families_and_modes_had_their_turn():
    kinds = [(layout, mode) for layout in race.LAYOUTS for mode in contest.MODES]
    pairs = list(race.balanced(list(TINY), kinds))
    assert len(set(pairs)) == len(pairs) == len(TINY) * len(kinds)
    assert {layer.family for layer, _ in pairs[: len(TINY)]} == {layer.family for layer in TINY}
    for turn in range(len(kinds)):
        of_turn = pairs[turn * len(TINY) : (turn + 1) * len(TINY)]
        assert len({kind for _, kind in of_turn}) == len(TINY)


def test_sets_of_arrays_go_round_and_do_not_fit_the_cache():
    entry = Entry(TINY[0], "forward", mode="f16", platform="cuda")
    sets = contest.input_sets(entry, seed=3)
    assert len(sets) == contest.MOST_SETS
    assert len({float(x.astype("float32").sum()) for x, _, _ in sets}) == len(sets)
    assert all(array.dtype == jnp.float16 for array in sets[0])
    seen = []
    contest.burst(lambda x, w, g: seen.append(id(x)) or x, sets, 2 * len(sets))
    assert seen == [id(x) for x, _, _ in sets] * 2


def test_the_means_are_geometric_and_families_count_alike():
    assert math.isnan(report.geometric_mean([]))
    assert report.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
