"""Tuning: what is measured, and a cache that nothing can break."""

import errno
import importlib
import json
import multiprocessing
import os
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv import __main__ as command_line
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm
from jconv.calculus.primitives import OPERANDS
from jconv.choice import rates, winners
from jconv.choice.pick import choose
from jconv.programs import calibrate, measure
from jconv.programs.measure import race
from jconv.programs.tune import collect, tune
from jconv.runtime import store, verified
from jconv.spec import ROLES, ConvSpec

tuning = importlib.import_module("jconv.programs.tune")

SPEC = ConvSpec.of(batch=1, spatial=(6, 5), kernel=(3, 3), in_channels=2, out_channels=3)
OTHER = SPEC.replace(batch=2)
LARGE = ConvSpec.of(batch=4, spatial=(28, 27), kernel=(3, 3), in_channels=64, out_channels=64)
TOO_SMALL = ConvSpec.of(spatial=(4,), kernel=(9,))
EMPTY = {"format": store.FORMAT, "version": store.VERSION, "entries": {}}


@pytest.fixture
def file(tmp_path):
    """A cache file in use, not there yet."""
    path = tmp_path / "folder" / "tuned.json"
    store.use(path)
    yield path
    store.use(None)


def put(spec=SPEC, role="forward", winner="im2col"):
    return winners.keep(spec, role, "cpu", {winner: 1e-3}, winner)


# -- the cache -------------------------------------------------------------------------------------


def test_nothing_is_known_at_first_and_no_file_appears(file):
    assert winners.winner(SPEC, "forward", "cpu") is None
    assert not file.parent.exists()


def test_what_is_stored_is_found_by_the_next_process(file):
    assert put()
    store.use(file)
    assert winners.winner(SPEC, "forward", "cpu") == "im2col"
    assert winners.entry(SPEC, "forward", "cpu") == {"algorithm": "im2col", "seconds": {"im2col": 1e-3}}


HIGH = (jax.lax.Precision.HIGH,) * 2


@pytest.mark.parametrize("change", [dict(batch=2), dict(w_dtype="bfloat16"), dict(precision=HIGH)])
def test_it_holds_for_these_sizes_types_and_role_only(file, change):
    put()
    assert winners.winner(SPEC.replace(**change), "forward", "cpu") is None
    assert winners.winner(SPEC, "grad_input", "cpu") is None


def test_it_holds_for_this_device_and_jax_only(file, monkeypatch):
    put()
    with monkeypatch.context() as changed:
        changed.setattr(jax, "__version__", "99.0")
        assert winners.winner(SPEC, "forward", "cpu") is None
    with monkeypatch.context() as changed:
        changed.setattr(winners, "device_kind", lambda platform: "an abacus")
        assert winners.winner(SPEC, "forward", "cpu") is None
    assert winners.winner(SPEC, "forward", "tpu") is None  # a platform that is not here
    assert winners.winner(SPEC, "forward", "cpu") == "im2col"


def test_the_file_is_read_once_and_not_before_it_is_needed(file, monkeypatch):
    put()
    reads = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: reads.append(path) or read(path))
    store.use(file)
    assert not reads
    for _ in range(3):
        winners.winner(SPEC, "forward", "cpu")
    assert reads == [file]


def test_an_algorithm_that_is_gone_or_refuses_counts_for_nothing(file):
    put(winner="no_longer_there")
    put(SPEC, "grad_input", "pointwise")
    assert winners.entry(SPEC, "forward", "cpu")
    assert winners.winner(SPEC, "forward", "cpu") is None
    assert winners.winner(SPEC, "grad_input", "cpu") is None


def test_no_file_keeps_it_in_memory():
    store.use(None)
    assert put() is False
    assert winners.winner(SPEC, "forward", "cpu") == "im2col"
    store.use(None)
    assert winners.winner(SPEC, "forward", "cpu") is None


def test_the_default_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(store.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.default_path() == tmp_path / "jconv" / "tuned.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.default_path() == tmp_path / ".cache" / "jconv" / "tuned.json"


def test_a_wrong_path_is_refused():
    with pytest.raises(TypeError, match="`path` must be a path, None or 'default', got 3"):
        store.use(3)


def write_many(path, writer, count):
    store.use(path)
    for i in range(count):
        assert store.put({f"writer {writer} entry {i}": {"algorithm": "im2col", "seconds": {}}})


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    path, writers, count = tmp_path / "tuned.json", 4, 20
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(path, w, count)) for w in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * writers
    assert len(json.loads(path.read_text())["entries"]) == writers * count
    assert {p.name for p in tmp_path.iterdir()} == {"tuned.json", "tuned.json.lock"}


class Bomb:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("it_went_off",)


FOREIGN = {
    "half": b'{"format": "jconv tu',
    "text": b"dear diary",
    "binary": bytes(range(256)),
    "pickle": pickle.dumps(Bomb()),
    "deep": b"[" * 100_000,
    "list": b"[]",
    "other": b'{"format": "something else", "entries": {}}',
    "newer": json.dumps(EMPTY | {"version": 2}).encode(),
    "no entries": json.dumps(EMPTY | {"entries": []}).encode(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_is_neither_trusted_nor_touched(file, content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=rf"{re.escape(str(file))} (is not|has).*; it is ignored"):
        assert winners.winner(SPEC, "forward", "cpu") is None
    with pytest.warns(RuntimeWarning, match="holds for this process only, the file is as it was"):
        assert put() is False
    assert file.read_bytes() == content
    assert winners.winner(SPEC, "forward", "cpu") == "im2col"
    assert not (tmp_path / "it_went_off").exists()


def test_an_empty_file_is_an_empty_cache(file):
    file.parent.mkdir()
    file.touch()
    assert winners.winner(SPEC, "forward", "cpu") is None
    assert put()


def test_entries_of_another_make_are_ignored_and_kept(file):
    file.parent.mkdir()
    strange = {"a": 3, "b": {"algorithm": 7, "seconds": {}}, winners.key(SPEC, "forward", "cpu"): ["im2col"]}
    file.write_text(json.dumps(EMPTY | {"entries": strange, "note": "by hand"}))
    assert winners.winner(SPEC, "forward", "cpu") is None
    assert put(OTHER)
    content = json.loads(file.read_text())
    assert content["note"] == "by hand"
    assert strange.items() <= content["entries"].items()


def full_disk(handle, *args, **kwargs):
    os.close(handle)
    return open("/dev/full", *args, **kwargs)


def no_space(handle):
    raise OSError(errno.ENOSPC, "No space left on device")


FAILURES = {
    "full, seen when written": ("fdopen", full_disk),
    "full, seen when synced": ("fsync", no_space),
    "no right to rename": ("replace", lambda old, new: (_ for _ in ()).throw(PermissionError("not allowed"))),
}


@pytest.mark.parametrize(("call", "failure"), FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_written_leaves_the_old_file(file, call, failure, monkeypatch):
    assert put()
    before = file.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, failure)
        with pytest.warns(RuntimeWarning, match="(No space left|not allowed).*this process only"):
            assert put(OTHER) is False
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"tuned.json", "tuned.json.lock"}
    assert winners.winner(OTHER, "forward", "cpu") == "im2col"
    assert put(OTHER, "grad_input")  # and when there is room again, it goes on


def test_interrupted_while_writing_leaves_the_old_file(file, monkeypatch):
    put()
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        put(OTHER)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"tuned.json", "tuned.json.lock"}


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
    (tmp_path / "a_file").touch()
    store.use(tmp_path / "a_file" / "tuned.json")
    with pytest.warns(RuntimeWarning, match="Not a directory.*it is ignored"):
        assert winners.winner(SPEC) is None
    with pytest.warns(RuntimeWarning, match="File exists.*this process only"):
        assert put() is False
    if os.getuid() == 0:  # for whom nothing is read-only
        return
    (tmp_path / "closed").mkdir(mode=0o500)
    store.use(tmp_path / "closed" / "tuned.json")
    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert put() is False
    store.use(None)


def test_a_changed_file_keeps_its_permissions(file):
    put()
    file.chmod(0o640)
    put(OTHER)
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_linked_file_is_written_behind_its_link(file, tmp_path):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(tmp_path / "behind.json")
    put()
    assert file.is_symlink()
    assert json.loads((tmp_path / "behind.json").read_text())["entries"]


def test_a_home_folder_may_be_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    store.use("~/tuned.json")
    assert store.path() == tmp_path / "tuned.json"
    store.use(None)


# -- the choice ------------------------------------------------------------------------------------


def test_auto_takes_the_measured_winner_and_forgets_it_again(file):
    untuned = choose(SPEC, "forward", "cpu").algorithm.name
    winner = next(name for name in choose(SPEC, "forward", "cpu").seconds if name != untuned)
    put(winner=winner)
    choice = choose(SPEC, "forward", "cpu")
    assert (choice.algorithm.name, choice.measured) == (winner, {winner: 1e-3})
    assert "in 1 ms; measured to be the fastest here" in choice.reason
    assert choice.rejected[untuned] == "not measured"
    store.use(None)
    assert choose(SPEC, "forward", "cpu").algorithm.name == untuned


# -- what is found ---------------------------------------------------------------------------------


def test_finds_every_convolution_forward_and_backward(file):
    def loss(w, x):
        def step(x, _):
            return jconv.conv2d(x, w, padding=1), None

        x, _ = jax.lax.scan(step, x, length=4)
        x = jax.jit(lambda x: jax.lax.conv_general_dilated(x, w, (2, 2), "VALID"))(x)
        return jconv.conv2d(x, w, algorithm="im2col").sum()  # named: nothing to choose

    w, x = jnp.ones((3, 3, 3, 3)), jnp.ones((2, 3, 9, 9))
    found = collect(jax.grad(loss), w, x)
    same = ConvSpec.of(
        batch=2, spatial=(9, 9), kernel=(3, 3), in_channels=3, out_channels=3, padding=((1, 1),) * 2
    ).replace(channels_first=True)
    strided = same.replace(strides=(2, 2), padding=((0, 0),) * 2)
    assert found == {(spec, role): 4 if spec == same else 1 for spec in (same, strided) for role in ROLES}


def test_takes_specs_and_pairs():
    assert set(collect(SPEC)) == {(SPEC, role) for role in ROLES}
    assert set(collect([(SPEC, "forward"), OTHER])) == {(SPEC, "forward")} | {(OTHER, role) for role in ROLES}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([(SPEC, "sideways")],), TypeError, r"`fn_or_specs` must be a function, ConvSpecs or"),
        ((["im2col"],), TypeError, r"got 'im2col'"),
        ((SPEC, jnp.ones(3)), TypeError, r"specs take none"),
        ((None,), TypeError, r"`fn_or_specs` must be a function, ConvSpecs or .*got None"),
        ((TOO_SMALL,), ValueError, r"`fn_or_specs`: 9 1→1 on 1×4, float32 is empty, nothing to tune"),
        (([(TOO_SMALL, "forward")],), ValueError, r"is empty, nothing to tune"),
    ],
)
def test_wrong_problems_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tune(*arguments, progress=False)


@pytest.mark.parametrize(
    "option",
    [
        dict(rounds=0),
        dict(rounds=1.5),
        dict(within=0.5),
        dict(within="x"),
        dict(within=None),
        dict(rounds=True),
        dict(within=True),
    ],
    ids=str,
)
def test_wrong_options_are_refused(option):
    with pytest.raises(ValueError, match=f"`{next(iter(option))}`="):
        tune(SPEC, progress=False, **option)


# -- what is measured ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Times by name instead of by clock: nothing is compiled or run."""
    times = {}
    monkeypatch.setattr(tuning, "compiled", lambda names, role, spec: (dict.fromkeys(names), {}))

    def race(calls, rounds, failed, kept):
        return dict(sorted(((n, times.get(n, 1.0)) for n in calls), key=lambda item: item[1]))

    monkeypatch.setattr(tuning, "race", race)
    return times


def test_the_fastest_is_stored_and_told(file, clock):
    clock["im2col"] = 0.25
    (row,) = tuned = tune([(SPEC, "forward")], within=1e9, progress=False)
    assert row.algorithm == "im2col" == winners.winner(SPEC)
    assert row.before in row.seconds
    assert row.gain == 1.0 / row.seconds["im2col"] * row.seconds[row.before]
    assert f"im2col {250:.3g} ms" in str(tuned)
    assert "1 convolutions" in tuned.summary
    assert json.loads(json.dumps(tuned.as_dicts()))[0]["algorithm"] == "im2col"
    assert "<table>" in tuned._repr_html_()


def test_a_near_tie_stays_with_what_was_chosen(file, clock):
    before = choose(SPEC).algorithm.name
    other = next(name for name in choose(SPEC).seconds if name != before)
    clock[other] = 0.98
    assert tune([(SPEC, "forward")], within=1e9, progress=False).rows[0].algorithm == before
    clock[other] = 0.96
    assert tune([(SPEC, "forward")], within=1e9, again=True, progress=False).rows[0].algorithm == other


def test_what_is_known_is_not_measured_again(file, clock):
    tune([(SPEC, "forward")], progress=False)
    clock["im2col"] = 0.1
    (row,) = tune([(SPEC, "forward")], progress=False)
    assert row.known
    assert row.algorithm == row.before
    assert not tune([(SPEC, "forward")], again=True, progress=False).rows[0].known


def test_only_what_is_promising_is_tried(file, clock):
    choice = choose(SPEC)
    least = min(choice.seconds.values())
    (row,) = tune([(SPEC, "forward")], within=1.0, progress=False)
    fitting = {name for name, seconds in choice.seconds.items() if seconds <= least}
    assert set(row.seconds) == fitting | {"xla", choice.algorithm.name}


def test_interrupting_keeps_what_was_measured(file, clock, monkeypatch):
    race, seen = tuning.race, []

    def impatient(calls, rounds, failed, kept):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return race(calls, rounds, failed, kept)

    monkeypatch.setattr(tuning, "race", impatient)
    with pytest.raises(KeyboardInterrupt):
        tune([SPEC, OTHER], progress=False)
    assert len(json.loads(file.read_text())["entries"]) == 2
    store.use(file)
    monkeypatch.setattr(tuning, "race", race)
    assert [row.known for row in tune([SPEC, OTHER], progress=False)] == [True] * 2 + [False] * 4


def test_whatever_does_not_compile_is_left_out(file, monkeypatch):
    def broken(x, w, spec):
        raise NotImplementedError("not on a Tuesday\nreally")

    monkeypatch.setitem(ALGORITHMS, "broken", Algorithm("broken", broken))
    calls, failed = measure.compiled(["broken", "im2col"], "forward", SPEC)
    assert failed == {"broken": "NotImplementedError: not on a Tuesday"}
    assert calls["im2col"]().shape == SPEC.y_shape


def test_the_race_orders_by_time_and_drops_the_hopeless(monkeypatch):
    elapsed = {"slow": 2.0, "fast": 1.0, "hopeless": 3.5}
    monkeypatch.setattr(measure, "seconds_of", lambda call, repeats: elapsed[call])
    assert race({name: name for name in elapsed}, 3, {}) == {"fast": 1.0, "slow": 2.0}


def test_what_a_winner_is_compared_with_stays_in_the_race(file, monkeypatch):
    """However slow: without it there is no time before, and the summary leaves the largest gains out."""
    spec = SPEC.replace(spatial=(56, 56), in_channels=96, out_channels=96, groups=96)
    before = choose(spec).algorithm.name
    assert before != "xla"
    elapsed = {before: 100.0, "xla": 1000.0}
    monkeypatch.setattr(tuning, "compiled", lambda names, role, spec: ({name: name for name in names}, {}))
    monkeypatch.setattr(measure, "seconds_of", lambda call, repeats: elapsed.get(call, 0.5))
    (row,) = tuned = tune([(spec, "forward")], within=1e9, progress=False)
    assert {before, "xla"} <= set(row.seconds)
    assert row.gain == 200.0
    assert tuned.summary == "1 convolutions, 1 changed: 1e+05 ms before, 500 ms now"


FIRST = {"x": (2, 4, 7, 5), "w": (6, 2, 3, 2), "y": (2, 6, 5, 4)}
LAST = {"x": (2, 7, 5, 4), "w": (3, 2, 2, 6), "y": (2, 5, 4, 6)}


def door(role, layout, shapes, algorithm):
    """The user's own call of `role`, of its two arrays in the order of `OPERANDS`."""
    how = dict(groups=2, layout=layout, algorithm=algorithm)
    return {
        "forward": lambda x, w: jconv.conv2d(x, w, **how),
        "grad_input": lambda g, w: jconv.grad_input(shapes["x"], w, g, **how),
        "grad_kernel": lambda x, g: jconv.grad_kernel(x, shapes["w"], g, **how),
    }[role]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["im2col", "depthwise", "xla"])
@pytest.mark.parametrize(("layout", "shapes"), [("NCHW", FIRST), ("NHWC", LAST)])
def test_what_is_timed_is_the_program_of_a_call(layout, shapes, name, role):
    """From the user's axes to the user's, so that each algorithm pays for its transpositions."""
    user = door(role, layout, shapes, name)
    operands = [jax.ShapeDtypeStruct(shapes[operand], "float32") for operand in OPERANDS[role]]
    (problem,) = collect(door(role, layout, shapes, "auto"), *operands)
    calls, failed = measure.compiled([name], role, problem[0])
    assert not failed
    timed, arrays = calls[name].func, calls[name].args
    assert [array.shape for array in arrays] == [operand.shape for operand in operands]
    np.testing.assert_allclose(calls[name](), user(*arrays), rtol=1e-5, atol=1e-5)
    assert timed.cost_analysis() == jax.jit(user).lower(*arrays).compile().cost_analysis()


def test_what_is_timed_multiplies_as_a_call_does():
    """By oneDNN where a program may call it: a product of XLA's is another algorithm."""
    spec = ConvSpec.of(batch=2, spatial=(28, 27), kernel=(3, 3), in_channels=64, out_channels=64)
    calls, _ = measure.compiled(["im2col"], "forward", spec)
    user = jax.jit(lambda x, w: jconv.conv2d(x, w, layout="NHWC", algorithm="im2col"))
    program = user.lower(*calls["im2col"].args).compile().as_text()
    assert ("__onednn$matmul" in calls["im2col"].func.as_text()) == ("__onednn$matmul" in program)


def test_progress_is_told(file, clock, capsys):
    told = []
    tune(SPEC, progress=lambda *what: told.append(what))
    assert [what[:2] for what in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    tune([(OTHER, "forward")])
    assert capsys.readouterr().err == f"[0/1] forward of {OTHER}\n"


# -- the command -----------------------------------------------------------------------------------

PROBLEM = ["tune", "--x", "1,2,7", "--w", "3,2,3", "--forward-only", "--rounds", "1"]


def test_the_command_measures_and_then_knows(tmp_path, capsys):
    file = tmp_path / "tuned.json"
    assert command_line.main([*PROBLEM, "--cache", str(file)]) == 0
    assert "3 2→3 on 1×7, float32" in capsys.readouterr().out
    assert command_line.main([*PROBLEM, "--cache", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["known"] is True
    store.use(None)


def test_the_command_takes_a_program(tmp_path, capsys, clock):
    program = tmp_path / "train.py"
    program.write_text(
        "import jax.numpy as jnp, jconv\n"
        "def example():\n    return jconv.conv1d, jnp.ones((1, 2, 9)), jnp.ones((3, 2, 3))\n"
    )
    assert command_line.main(["tune", f"{program}:example", "--cache", str(tmp_path / "t.json")]) == 0
    assert "3 2→3 on 1×9, float32" in capsys.readouterr().out
    store.use(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "--groups", "2"], "name a program as MODULE:FUNCTION, or one convolution by --x and --w"),
        (["tune", "--x", "1,2,7"], "name a program"),
        (["tune", "--x", "1,2,7", "--w", "3,4,3"], "`w` (3, 4, 3) takes 4 input channels"),
        (["tune", "--x", "0,2,5,5", "--w", "2,2,3,3"], "of --x with --w is empty, nothing to tune"),
        (["tune", "a.py:make", "--stride", "2"], "a.py:make brings its own convolutions; leave out --stride"),
        (["tune", "a.py:make", "--x", "1,1,3", "--forward-only"], "leave out --x, --forward-only"),
        (["tune", "json"], "'json' must be MODULE:FUNCTION"),
        (["tune", "json:nothing"], "json has no function 'nothing'"),
        (["tune", "os:getcwd"], "os:getcwd must return (fn, *args), got str"),
        (["tune", "no_such_module:f"], "No module named 'no_such_module'"),
    ],
)
def test_the_command_refuses_wrong_usage(arguments, message, capsys):
    assert command_line.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_command_says_when_nothing_was_kept(tmp_path, capsys, clock):
    (tmp_path / "notes.txt").write_text("dear diary")
    assert command_line.main([*PROBLEM, "--cache", str(tmp_path / "notes.txt")]) == 1
    assert "is not JSON" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "dear diary"
    store.use(None)


# -- without arguments -----------------------------------------------------------------------------


def test_without_arguments_the_machine_is_compared_with_the_record(file, monkeypatch):
    """A second for each is beyond belief."""
    monkeypatch.setattr(calibrate, "race", lambda calls, *_: dict.fromkeys(calls, 1.0))
    before = choose(SPEC, platform="cpu").seconds
    tuned = jconv.tune(progress=False)
    assert {"products", "loops", "convolutions"} <= set(tuned.factors) <= set(calibrate.PROBES)
    assert set(tuned.factors.values()) == {calibrate.MOST}
    assert "loops 5.00×" in str(tuned) == tuned.summary
    assert "loops" in file.read_text()
    after = choose(SPEC, platform="cpu").seconds
    assert sum(after.values()) > sum(before.values())


def test_what_no_program_may_call_is_not_timed(file, monkeypatch):
    monkeypatch.setattr(verified, "refusal", lambda: "this jaxlib was not verified")
    monkeypatch.setattr(calibrate, "race", lambda calls, *_: dict.fromkeys(calls, 1.0))
    factors = jconv.tune(progress=False).factors
    assert {"products", "loops", "convolutions"} == set(factors)


def test_a_factor_scales_its_kind_only(file):
    before = choose(LARGE, platform="cpu").seconds
    winners.keep_factors("cpu", {"convolutions": 3.0})
    after = choose(LARGE, platform="cpu").seconds
    assert after["xla"] > 1.5 * before["xla"]
    assert after["shift"] == before["shift"]
    assert rates.of("cpu", (("products", 2.0),)).gemm == rates.CPU.gemm / 2


@pytest.mark.parametrize("factors", [3, {"loops": "fast"}, {"loops": -1.0}])
def test_factors_that_are_none_change_nothing(file, factors):
    before = choose(LARGE, platform="cpu").seconds
    winners.keep_factors("cpu", {})
    store.put({next(iter(store.read(file)["entries"])): {"factors": factors}})
    assert choose(LARGE, platform="cpu").seconds == before


def test_a_platform_without_a_record_has_nothing_to_compare():
    with pytest.raises(ValueError, match="no rates were measured on tpu"):
        calibrate.calibrate("tpu")
