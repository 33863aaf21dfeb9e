"""The house: who may import whom, read from the files, and what a file may look like."""

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jconv

ROOT = Path(jconv.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# From the ground up.  A room may import from its own floor and from those below, never from above.
FLOORS = (
    ("spec", "runtime"),  # what is to be computed; where
    ("algorithms",),  # how
    ("choice",),  # which
    ("mesh",),  # on many devices
    ("calculus",),  # its derivatives
    ("api", "lax", "sharding"),  # what the user types
    ("programs", ""),  # whole programs, and jconv itself: the public names
    ("testing", "lesson", "bench", "__main__"),  # around
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BESIDE = "textbook"  # NumPy only; whoever stands around may use it
TOP_OF_THE_LIBRARY = FLOOR[""]

# the run-time dependencies and what jax itself always brings
OF_JAX = {"jax", "jaxlib", "numpy", "ml_dtypes"}
MOST_LINES_OF_A_BODY = 40


def room(module: str) -> str:
    """`jconv.algorithms.shift` stands in the room `algorithms`, `jconv` in the room ``."""
    return [*module.split("."), ""][1]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Full names of all that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in inner if name in MODULES or not node.module.startswith("jconv")}
            found |= submodules | ({node.module} if inner - submodules else set())
    return frozenset(found)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "jconv"}


@pytest.mark.parametrize("module", MODULES)
def test_every_file_has_a_floor_and_imports_go_down(module):
    if room(module) == BESIDE:
        assert {room(name) for name in ours(module)} <= {BESIDE}
        return
    assert room(module) in FLOOR, f"give {module} a floor in FLOORS"
    for name in ours(module):
        if room(name) == BESIDE:
            assert FLOOR[room(module)] > TOP_OF_THE_LIBRARY, f"{module} computes with {name}, the oracle"
        else:
            assert FLOOR[room(name)] <= FLOOR[room(module)], f"{module} reaches up to {name}"


def test_no_two_files_import_each_other_in_a_circle():
    graph = {module: ours(module) & set(MODULES) - {module} for module in MODULES}
    while free := [module for module, needs in graph.items() if not needs & set(graph)]:
        for module in free:
            del graph[module]
    assert not graph, f"a circle runs through {sorted(graph)}"


@pytest.mark.parametrize("module", [m for m in MODULES if FLOOR.get(room(m), 0) <= TOP_OF_THE_LIBRARY])
def test_the_library_stands_on_jax_and_numpy_alone(module):
    allowed = {"jconv", "numpy"} if room(module) == BESIDE else {"jconv", *OF_JAX}
    roots = {name.split(".")[0] for name in imports(module)}
    assert roots - sys.stdlib_module_names <= allowed


def test_only_the_calculus_and_accelerate_touch_the_interpreters():
    users = {m for m in MODULES if any(name.startswith("jax.interpreters") for name in imports(m))}
    assert users == {"jconv.calculus.primitives", "jconv.programs.lowering", "jconv.runtime.private"}
    for module in MODULES:
        reached = {ast.unparse(node) for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
        assert not {name for name in reached if name.startswith("jax.interpreters")}, module


@pytest.mark.parametrize("module", MODULES)
def test_what_jax_keeps_private_is_used_only_where_it_may_be_missing(module):
    """`jax._src` changes without notice: an import of it stands in a `try` that goes on without."""
    tries = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Try)]
    guarded = {
        inner
        for node in tries
        if any("ImportError" in ast.unparse(handler.type or node) for handler in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "jax._src" in ast.unparse(node):
            assert node in guarded, f"{module}, line {node.lineno}: {ast.unparse(node)}"


def loaded(program: str) -> set[str]:
    """What a fresh interpreter prints, as words."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_jconv_pulls_in_nothing_new():
    """Whatever `import jconv` loads beyond the jax and NumPy that were there before is jconv."""
    new = loaded(
        "import sys, numpy, jax, jax.numpy, jax.extend.core, jax.interpreters.mlir\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "import jconv\n"
        "print(*({name.split('.')[0] for name in sys.modules} - before))"
    )
    assert new - sys.stdlib_module_names == {"jconv"}


def test_every_module_imports_without_the_extras():
    """Only a command that draws needs rich, and it imports it when it runs."""
    modules = [module for module in MODULES if module != "jconv.__main__"]
    extras = ["rich", "matplotlib", "torch", "PIL", "sklearn", "chex", "pytest", "hypothesis", "onnx"]
    loaded(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({extras}))\n"
        f"for name in {[*modules, 'jconv.__main__']}: importlib.import_module(name)"
    )


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_what_it_is_about(module):
    assert ast.get_docstring(tree(module)), f"{module} does not say what it is about"


@pytest.mark.parametrize("module", MODULES)
def test_bodies_are_short(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= MOST_LINES_OF_A_BODY, f"{module}.{node.name} has a body of {lines} lines"


@pytest.mark.parametrize("name", jconv.__all__)
def test_public_names_are_documented_by_example(name):
    assert ">>>" in (inspect.getdoc(getattr(jconv, name)) or ""), f"jconv.{name} shows no example"


def test_no_room_for_odds_and_ends():
    names = {module.split(".")[-1] for module in MODULES}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


def test_what_needs_pytorch_says_so_in_its_name():
    """So `pytest -k torch` finds all of it where there is a PyTorch."""
    asking = [
        (path.stem, getattr(node, "name", ""))
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if path != Path(__file__) and re.search(r"importorskip\('torch'|import torch", ast.unparse(node))
    ]
    assert len(asking) > 3
    assert [pair for pair in asking if "torch" not in "".join(pair)] == []
