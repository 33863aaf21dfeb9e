"""The README is true: its commands are the ones that are run, its lines of use run, its names exist."""

import re
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest
from test_architecture import BESIDE, FLOORS

import jconv
from jconv.algorithms import ALGORITHMS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jconv"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker):
    """The code block that follows <!-- marker -->."""
    (found,) = re.findall(rf"^<!-- {marker} -->\n```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return found


def test_is_short():
    assert README.count("\n") < 170


@pytest.mark.parametrize("marker", ["run", "test"])
def test_a_command_is_one_line_that_makes_its_own_environment(marker):
    (line,) = block(marker).splitlines()
    assert line.startswith("python3 -m venv ")


def test_ci_runs_the_commands_as_they_stand_here():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "as_in_readme run" in script
    assert "as_in_readme test" in script


def test_the_lines_of_use_do_what_they_say():
    names = {}
    exec(block("use"), names)
    assert names["y"].shape == (8, 16, 16, 16)
    assert names["z"].shape == (8, 16, 32, 32)
    assert names["step"].shape == names["w"].shape
    assert names["dx"].shape == names["x"].shape
    assert names["cols"].shape == (8, 27, 1024)
    assert jnp.all(names["z"][:, :, 1:-1, 1:-1] == 27)


def test_every_name_in_the_table_exists_and_no_public_name_is_missing():
    table = README.partition("<!-- names -->")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(jconv.__all__)


def test_the_ranges_of_speed_are_those_of_the_table():
    """What is promised for a family is the least and the most of its three passes as measured."""
    promise = README.partition("**Speed where XLA is slow.**")[2].partition("(the second table")[0]
    ranges = re.findall(r"([\w-]+)\s+([\d.]+) to ([\d.]+)", promise)
    assert len(ranges) >= 4
    for family, least, most in ranges:
        (row,) = re.findall(rf"^\| {re.escape(family)} \|(.+)$", README, re.MULTILINE)
        passes = [float(cell.strip(" ×")) for cell in row.split("|")[:3]]
        assert (float(least), float(most)) == (min(passes), max(passes)), family


def test_the_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    named = {name for names in re.findall(r"'\.\[([\w,]+)\]'", README) for name in names.split(",")}
    assert {"examples", "models"} <= named <= set(extras)


def test_every_algorithm_is_named():
    text = README.partition("<!-- algorithms -->")[2].partition("<!-- end -->")[0]
    assert set(re.findall(r"`(\w+)`", text)) == set(ALGORITHMS)
    assert len(ALGORITHMS) <= 14


def test_the_folders_and_files_are_named_as_they_are():
    house = README.partition("## How it is built")[2].partition("A gradient of")[0]
    floors = re.findall(r"^\| (\d) \| (.+?) \|", house, re.MULTILINE)
    listed = [set(re.findall(r"`(\w+)/`", names)) for _, names in floors]
    assert listed == [set(rooms) - {"", "__main__"} for rooms in FLOORS]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders | {"", "__main__"} == {BESIDE}.union(*FLOORS)
    for path in re.findall(r"^(\w+/\w+\.py)", house, re.MULTILINE):
        assert (PACKAGE / path).is_file(), path
