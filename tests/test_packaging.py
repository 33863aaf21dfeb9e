"""What is shipped: the source distribution holds all its tests need, the wheel all the page needs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

setuptools = pytest.importorskip(
    "setuptools", minversion="77", reason="pyproject.toml is written for 77 or newer"
)
ROOT = Path(__file__).parent.parent
LEFT_OUT = {"__pycache__", ".venv", ".git", "build", "dist"}


def build(kind, out):
    """`sdist` or `wheel` as a frontend would build it, from a copy so that nothing is left in the tree."""
    tree = shutil.copytree(
        ROOT, out / "tree", ignore=shutil.ignore_patterns(*LEFT_OUT, ".*_cache", "*.egg-info")
    )
    program = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    out = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", out)) as archive:
        archive.extractall(out, filter="data")
    (root,) = (path for path in out.glob("jconv-*") if path.is_dir())
    return root


def sources(root, *folders):
    """Every file of these folders that somebody wrote."""
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.parts) and path.suffix != ".pyc"
    }


def test_the_source_distribution_is_the_whole_tree(sdist):
    folders = "tests", "examples", "findings", ".ci", "jconv"
    assert sources(ROOT, *folders) <= sources(sdist, *folders)
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".pre-commit-config.yaml"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_the_source_distribution_runs_its_own_tests(sdist):
    """Those that read other files of the tree."""
    files = [
        "tests/test_readme.py",
        "tests/test_architecture.py",
        "tests/test_examples.py::test_there_are_examples",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(command, cwd=sdist, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_library_and_no_tests(tmp_path):
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert sources(ROOT, "jconv") <= names
    assert not any(name.startswith(("tests", "examples")) for name in names)


def test_the_changelog_has_the_version():
    version = re.search(r'__version__ = "(.+?)"', (ROOT / "jconv" / "__init__.py").read_text())[1]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}$", text, re.MULTILINE)


def test_contributing_names_the_commands_that_ci_runs():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) == 3
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format --check", "mypy"):
        assert tool in block
        assert f".venv/bin/{tool}" in script
    assert block.splitlines()[2] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
