"""Every script in examples/ runs to the end, as a user runs it but for its timing, and says something."""

import ast
import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import compiling
import pytest
import untimed

from jconv.bench.timing import Times

ROOT = Path(__file__).parent.parent
EDGES = ROOT / "examples" / "edges.py"  # has a test of its own
TOUR = sorted((ROOT / "examples" / "tour").glob("*.py"))
EXAMPLES = sorted([*(ROOT / "examples").glob("*.py"), *TOUR])


def missing_imports(script):
    """Packages that the script imports and this environment does not have."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return sorted(name for name in found if importlib.util.find_spec(name) is None)


def skip_without_imports(script):
    if missing := missing_imports(script):
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'jconv[examples]'")


def run(script, folder):
    """What the script prints, run to its end in `folder` as its current directory."""
    skip_without_imports(script)
    folder.mkdir()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    around = {**os.environ, **compiling.environment(), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, untimed.__file__, script], cwd=folder, env=around, timeout=300,
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


def test_there_are_examples():
    names = {script.name for script in EXAMPLES}
    assert {"quickstart.py", "edges.py", "train_digits.py"} <= names


@pytest.mark.parametrize("script", sorted({*EXAMPLES} - {EDGES, *TOUR}), ids=lambda script: script.stem)
def test_example(script, folders):
    run(script, folders / script.stem)


@pytest.mark.parametrize("script", TOUR, ids=lambda script: script.stem)
def test_the_tour(script, monkeypatch, capsys):
    """It prints, word for word, the lines that its index promises, "…" being any words."""
    skip_without_imports(script)
    monkeypatch.setattr("jconv.bench.timing.measure", untimed.once)
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    promised = [re.escape(line).replace("…", ".+") for name, line in index() if name == script.name]
    missing = [line for line in promised if not re.search(line, printed)]
    assert promised
    assert not missing, (missing, printed)


def index():
    """(file, line) of every row of the tour's table."""
    text = (ROOT / "examples" / "tour" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\| .+? \| \[\d\d\]\((.+?)\) \| `(.+)` \|$", text, re.MULTILINE)


def test_the_index_names_every_script_of_the_tour():
    assert {name for name, _ in index()} == {script.name for script in TOUR}
    assert len(index()) > 20


def test_without_pytorch_the_tour_says_so(folders, monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else there(name))
    monkeypatch.setattr("jconv.bench.timing.race", lambda calls, **_: Times(dict.fromkeys(calls, (1.0,))))
    for name in ("03_einsum_or_matmul", "04_backward_is_two_convolutions", "08_winograd_by_hand"):
        runpy.run_path(str(ROOT / "examples" / "tour" / f"{name}.py"))
        assert "PyTorch is not installed: not compared with " in capsys.readouterr().out, name


@pytest.mark.parametrize(
    ("many", "few", "says"),
    [
        (1.1, 1.0, "neither layer pays noticeably"),
        (1.1, 2.0, "the layer with few channels"),
        (2.0, 1.1, "the layer with many channels"),
        (2.0, 2.0, "both pay about alike"),
    ],
)
def test_the_tour_concludes_from_what_it_measured(many, few, says, monkeypatch, capsys):
    # of four layers, lax and jconv take turns: jconv's are the second and the fourth race
    ratios = iter([1.0, many, 1.0, few, 1.0, 1.0, 1.0, 1.0])

    def measured(calls, **_):
        return Times({"NCHW": (next(ratios),), "NHWC": (1.0,)})

    monkeypatch.setattr("jconv.bench.timing.race", measured)
    runpy.run_path(str(ROOT / "examples" / "tour" / "05_nchw_or_nhwc.py"))
    out = capsys.readouterr().out
    assert f"{many:.2f} times NHWC's time at 64 channels, {few:.2f} at 4" in out
    assert says in out


def test_edges_writes_pictures_that_are_sobels(folders):
    """The written picture against SciPy's Sobel filter, to half a shade of rounding and one of float32."""
    run(EDGES, folders / "edges")
    image, ndimage = pytest.importorskip("PIL.Image"), pytest.importorskip("scipy.ndimage")
    numpy = pytest.importorskip("numpy")
    pictures = {
        path.stem: numpy.asarray(image.open(path)) for path in (folders / "edges/edges").glob("*.png")
    }
    assert {"photograph", "sobel_x", "sobel_y", "edges", "sheet"} <= set(pictures)
    for name, picture in pictures.items():
        assert picture.shape[:2] == ((639, 960) if name == "sheet" else (427, 640))
        assert picture.std() > 5, f"{name} is all one shade"
    photo = pictures["photograph"].astype("float64") / 255
    seen = ndimage.sobel(photo @ [0.299, 0.587, 0.114], axis=1, mode="nearest")
    expected = 127.5 + 127.5 * seen / numpy.percentile(abs(seen), 99.5)
    written = pictures["sobel_x"].astype("float64")
    assert numpy.max(abs(written - numpy.clip(expected, 0, 255))) <= 1.5
