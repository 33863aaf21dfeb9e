"""The command line: what it prints, what it exits with, and how it stops."""

import contextlib
import gc
import os
import random
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import compiling
import pytest
from oracles import runs_here

from jconv import __main__ as command_line
from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.record import Algorithm, refuses
from jconv.bench import accuracy, interrupts, job, ladder, timing
from jconv.choice.pick import choose
from jconv.spec import ROLES, ConvSpec
from jconv.testing import cases, check
from jconv.testing.cases import named, tagged

pytest.importorskip("rich")

SMALL = ConvSpec.of(
    batch=2, in_channels=3, out_channels=4, spatial=(7, 6), kernel=(3, 3), padding=((1, 1),) * 2
)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def small(monkeypatch):
    """The main job over one geometry and one small ladder, so that a run takes about a second."""
    monkeypatch.setattr(job, "few_cases", lambda: (named("same"),))
    rungs = ladder.rungs
    monkeypatch.setattr(ladder, "rungs", lambda **options: rungs(SMALL, **options))
    monkeypatch.setattr(timing, "MEASUREMENT", 1e-4)
    monkeypatch.setattr(timing, "REST", 0.0)


@pytest.fixture
def few_algorithms():
    """Two algorithms instead of all, where that is not the point; then all again, in their order."""
    everyone = dict(ALGORITHMS)
    for name in set(ALGORITHMS) - {"im2col", "xla"}:
        del ALGORITHMS[name]
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(everyone)


def wrong_forward(x, w, spec):
    return IM2COL.forward(x, w, spec) * 1.0001


STEPS = ("quadruple loop", "im2col by hand", "strided view", "jconv im2col", "jconv auto", "lax.conv_general")


def rows_of(out):
    """The ways of the printed table that agree, in its order."""
    return re.findall(r"^(\w.*?)  .*\d (?:s|ms|µs) .*\d×.*yes", out, re.MULTILINE)


def test_prints_one_table_that_a_beginner_can_read_and_exits_0(small, capsys):
    assert command_line.main(["--rounds", "2", "--no-torch"]) == 0
    out = capsys.readouterr().out
    rows = rows_of(out)
    assert [way for way, step in zip(rows, STEPS, strict=True) if way.startswith(step)] == rows
    assert re.search(rf"jconv auto .*: {choose(SMALL).algorithm.name[:8]}", out)
    assert re.search(r"quadruple loop .* 1\.0× ", out)
    assert max(map(len, out.partition("\nway ")[2].split("\n"))) <= 80


def test_verbose_has_a_row_for_every_algorithm_and_names_those_checked(small, capsys):
    assert command_line.main(["--rounds", "2", "-v"]) == 0
    out = capsys.readouterr().out
    for name, algorithm in ALGORITHMS.items():
        assert (f"jconv {name} " in out) == (refuses(algorithm, "forward", SMALL) is None), name
        assert re.search(rf"(computed by|refused every problem:).*\b{name}\b", out), name
    able = [form.name for form in FORMS if refuses(form, "forward", named("same").spec) is None]
    results = 6 * len(able)
    assert f"{results} of {results} results agree: {len(set(able))} algorithms" in out
    assert "Everything agreed" in out


def test_the_few_cases_leave_no_algorithm_out():
    for form in filter(runs_here, FORMS):
        takes = [case for case in job.few_cases() if refuses(form, "forward", case.spec) is None]
        assert takes, form.name


def test_the_real_job_on_no_terminal():
    """The whole job as a user starts it, stdin closed and output in a pipe."""
    process = subprocess.run(
        [sys.executable, "-m", "jconv", "--rounds", "1", "--algorithm", "im2col", "--algorithm", "shift"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | compiling.environment() | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "3×3 3→16 on 8×32×32" in process.stdout
    assert "\x1b" not in process.stdout
    assert process.stderr.split("\n") == ["checking the algorithms …", "timing the ladder …", ""]


def test_a_wrong_algorithm_gives_1_and_is_named(small, few_algorithms, capsys, monkeypatch):
    monkeypatch.setitem(ALGORITHMS, "crooked", Algorithm("crooked", wrong_forward))
    assert command_line.main(["--rounds", "1", "--no-torch", "-v"]) == 1
    out = capsys.readouterr().out
    for role in ROLES:
        assert f"crooked {role} of same" in out
    assert re.search(r"jconv crooked .* off by 1\.0e-04", out)
    assert "Everything agreed" not in out


def test_a_wrong_gradient_gives_1(small, few_algorithms, capsys, monkeypatch):
    crooked = Algorithm(
        "crooked", IM2COL.forward, grad_kernel=lambda x, g, spec: -IM2COL.grad_kernel(x, g, spec)
    )
    monkeypatch.setitem(ALGORITHMS, "crooked", crooked)
    assert command_line.main(["--rounds", "1", "--no-torch"]) == 1
    wrong = re.findall(r"wrong (crooked \w+ of same)", capsys.readouterr().out)
    assert wrong == ["crooked grad_kernel of same"] * 2  # by NumPy and by lax


def test_refusals_are_told_and_are_no_errors(small, few_algorithms, capsys, monkeypatch):
    never = Algorithm("never", IM2COL.forward, rejects=lambda spec: "it is not Tuesday")
    monkeypatch.setitem(ALGORITHMS, "never", never)
    assert command_line.main(["--rounds", "1", "--no-torch"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"not checked, refused every problem: .*never", out)
    assert "jconv never" not in out


def test_a_nan_and_a_wrong_shape_never_agree():
    x, w = ladder.arrays(SMALL, seed=0)
    assert cases.error(x * float("nan"), x) == float("inf")
    assert cases.error(x, w) == float("inf")


def test_check_covers_every_role_and_oracle():
    verdicts = list(check.check(tagged("few")[:1], [IM2COL]))
    assert {(v.role, v.oracle) for v in verdicts} == {(role, o) for role in ROLES for o in ("NumPy", "lax")}
    assert all(0 < v.error <= v.bound < 1e-4 for v in verdicts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: must be a whole number of at least 1, got '0'"),
        (["--rounds", "many"], "got 'many'"),
        (["--quick"], "unrecognized arguments: --quick"),
        (["--algorithm", "magic"], "invalid choice: 'magic'"),
        (["mystery"], "mystery"),
        (["scaling", "--link", "0"], "--link: must be a finite number above 0, got '0'"),
        (["scaling", "--link", "-5"], "--link: must be a finite number above 0, got '-5'"),
        (["scaling", "--tflops", "nan"], "--tflops: must be a finite number above 0, got 'nan'"),
        (["scaling", "--tflops", "inf"], "--tflops: must be a finite number above 0, got 'inf'"),
        (["scaling", "--images", "-1"], "--images: must be a whole number of at least 1, got '-1'"),
        (["scaling", "--per-device", "0"], "--per-device: must be a whole number of at least 1, got '0'"),
        (["tune", "--rounds", "0"], "--rounds: must be a whole number of at least 1, got '0'"),
    ],
)
def test_wrong_usage_gives_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "why"), [("no/such/folder/a", "No such file or directory"), (".", "Is a directory")]
)
@pytest.mark.parametrize("option", ["--markdown", "--csv"])
def test_accuracy_finds_out_before_it_measures(option, path, why, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "sweep", lambda *_: pytest.fail("it measured"))
    assert command_line.main(["accuracy", option, path]) == 2
    assert f"cannot write '{path}': {why}; name a file in a folder that is there" in capsys.readouterr().err


def test_help_tells_the_options_and_the_exit_status(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("--rounds", "--algorithm", "--no-torch", "--all-cases", "--version", "Exit status"):
        assert word in out


def test_subcommands_plug_in(monkeypatch, capsys):
    plugin = types.ModuleType("plugin", "Say a number.\n\nMore about it.")
    plugin.add_arguments = lambda parser: parser.add_argument("number", type=int)
    plugin.main = lambda args: args.number
    monkeypatch.setitem(sys.modules, "plugin", plugin)
    monkeypatch.setitem(command_line.COMMANDS, "say", "plugin")
    assert command_line.main(["say", "7"]) == 7
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    assert "Say a number." in capsys.readouterr().out


def test_every_subcommand_has_a_line_of_help(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in command_line.COMMANDS)


def test_without_rich_it_says_what_to_install(small, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert command_line.main([]) == 2
    assert "pip install 'jconv[cli]'" in capsys.readouterr().err


def test_an_interrupt_in_the_job_gives_130(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "main", interrupted)
    assert command_line.main([]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_an_interrupt_while_subcommands_are_imported_gives_130(pythons_own_handler, monkeypatch, capsys):
    """Also one that a callback of the garbage collector drops: it comes again."""
    monkeypatch.setattr(interrupts, "AGAIN", 0.05)
    monkeypatch.setattr(command_line, "build_parser", _drop_the_interrupt_and_go_on)
    assert command_line.main(["bench"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.fixture
def pythons_own_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def _drop_the_interrupt_and_go_on():
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    time.sleep(60)


def test_an_interrupt_that_was_dropped_is_raised_again(pythons_own_handler, monkeypatch):
    monkeypatch.setattr(interrupts, "AGAIN", 0.01)
    with pytest.raises(KeyboardInterrupt), interrupts.insisting():
        _drop_the_interrupt_and_go_on()


def _interrupted_in_the_garbage_collector(phase, info):
    gc.callbacks.remove(_interrupted_in_the_garbage_collector)
    signal.raise_signal(signal.SIGINT)


def _collect_garbage():
    gc.callbacks.append(_interrupted_in_the_garbage_collector)
    gc.collect()
    time.sleep(60)


def test_an_interrupt_of_the_garbage_collector_comes_again_without_a_traceback(
    pythons_own_handler, monkeypatch, capsys
):
    monkeypatch.setattr(interrupts, "AGAIN", 0.01)
    with pytest.raises(KeyboardInterrupt), interrupts.insisting():
        _collect_garbage()
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_finished_after_an_interrupt_is_left_in_peace(pythons_own_handler, monkeypatch):
    monkeypatch.setattr(interrupts, "AGAIN", 0.01)
    with interrupts.insisting():
        with pytest.raises(KeyboardInterrupt), interrupts.insisting():
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)


def test_a_handler_of_the_users_own_stays(pythons_own_handler):
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    with interrupts.insisting():
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [1]


def test_ctrl_c_stops_the_real_job_without_a_traceback():
    # the child sets the handler itself: under a shell's background job it would inherit "ignore"
    start = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-c", start + "runpy.run_module('jconv', run_name='__main__')"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        first = process.stderr.readline()  # "checking …": the job is under way
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert first.startswith("checking"), first + rest
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.rstrip().endswith("interrupted")


def test_ctrl_c_does_not_reach_a_child():
    """It is the first of a process group of its own, and is ended by who waits for it."""
    code = "import os; raise SystemExit(0 if os.getpgrp() == os.getpid() else 1)"
    assert interrupts.child([sys.executable, "-c", code], os.environ) == 0


# -- timing ----------------------------------------------------------------------------------------


def test_race_interleaves_and_lets_slow_ones_sit_out(monkeypatch):
    monkeypatch.setattr(timing, "REST", 0.0)
    monkeypatch.setattr(timing, "MEASUREMENT", 0.0)
    monkeypatch.setattr(timing, "SLOW", 0.0)  # everything counts as slow
    turns = []
    times = timing.race({"a": lambda: None, "b": lambda: None}, rounds=5, after_each=turns.append)
    assert all(set(turns[i : i + 2]) == {"a", "b"} for i in range(0, 10, 2))
    for name in "ab":
        measured = [seconds is not None for seconds in times.rounds[name]]
        assert measured == [True] * timing.SLOW_ROUNDS + [False] * (5 - timing.SLOW_ROUNDS)


def test_the_ratio_is_paired_by_round():
    drifting = timing.Times({"slow": (2.0, 20.0, 200.0), "fast": (1.0, 10.0, 100.0)})
    assert drifting.ratio("slow", "fast") == 2.0


def test_a_round_that_was_slow_for_all_does_not_count_against_who_sat_it_out():
    times = timing.Times({"slow": (2.0, 20.0, 200.0), "fast": (1.0, 10.0, None), "other": (3.0, 30.0, 300.0)})
    assert times.ratio("slow", "fast") == pytest.approx(2.0)
    assert times.ratio("other", "fast") == pytest.approx(3.0)


def test_times_and_ratios_never_contradict_each_other_in_order():
    rng = random.Random(0)
    names = "abcde"
    for _ in range(20):
        rounds = {name: tuple(rng.lognormvariate(0, 0.3) for _ in range(5)) for name in names}
        times = timing.Times(rounds)
        by_time = sorted(names, key=times.median)
        assert by_time == sorted(names, key=lambda name: times.ratio(name, "a"))
        assert by_time == sorted(names, key=lambda name: -times.ratio("a", name))


def test_race_refuses_no_rounds():
    with pytest.raises(ValueError, match="`rounds`=0 must be at least 1"):
        timing.race({}, rounds=0)
