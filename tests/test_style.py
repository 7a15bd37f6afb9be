"""The rules of the house: shape of files and functions, names, docstrings, log events, imports of processes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Modules = dict[Path, ast.Module]


def _parse(folder: str) -> Modules:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / folder).rglob("*.py"))}


TOP_LEVEL = {"serve_app", "configs", "tests", "serve_config.yaml", "pyproject.toml", "README.md", "LICENSE"}
NO_NAMES = {"told", "asked", "kept", "heard", "said", "leaving", "patience", "course"}
"""Words that are no terms of the field: no module, class, function, variable or attribute has them in its name."""
NO_DEFINITIONS = {"given", "shown", "listed", "named", "marked", "taken"}
"""Participles: a function is a verb, a class a noun."""
SHARED_NAMES = {"Agent", "Retriever", "Tools"}
"""A deployment has the name of the protocol that it implements."""
LOG_METHODS = {"debug", "info", "warning", "error", "exception"}
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture(scope="module")
def modules() -> Modules:
    return _parse("serve_app")


@pytest.fixture(scope="module")
def tests() -> Modules:
    return _parse("tests")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["importlinter.cli", "lint_imports_command"],
    ],
    ids=["ruff check", "ruff format", "mypy strict", "import-linter"],
)
def test_the_checker_finds_nothing(command: list[str]) -> None:
    program = [sys.executable, "-m", *command]
    if command[0].startswith("importlinter"):
        program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def _place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def _definitions(tree: ast.Module) -> list[Definition]:
    return [node for node in ast.walk(tree) if isinstance(node, Definition)]


def test_files_and_functions_keep_their_size(modules: Modules) -> None:
    """A file has at most 500 lines, a function 50 lines and 5 parameters."""
    found = []
    for path, tree in modules.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 500:
            found.append(f"{_place(path, tree)}: {lines} lines; split it by concern")
        for node in _definitions(tree):
            if isinstance(node, ast.ClassDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            names = [each.arg for each in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            parameters = len([name for name in names if name not in {"self", "cls"}])
            if length > 50 or parameters > 5:
                found.append(f"{_place(path, node)}: {node.name} has {length} lines, {parameters} parameters")
    assert found == []


def test_a_docstring_begins_with_a_short_statement(modules: Modules) -> None:
    """Its first line states what the thing is or does in at most 15 words."""
    found = []
    for path, tree in modules.items():
        if not ast.get_docstring(tree):
            found.append(f"{_place(path, tree)}: a module says what it is")
        for node, first in _first_lines(tree):
            if len(first.split()) > 15:
                found.append(f"{_place(path, node)}: {len(first.split())} words: {first}")
    assert found == []


def test_no_docstring_asks_a_question(modules: Modules, tests: Modules) -> None:
    found = []
    for path, tree in (modules | tests).items():
        found += [f"{_place(path, node)}: {first}" for node, first in _first_lines(tree) if "?" in first]
    assert found == []


def _first_lines(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    return [(node, (ast.get_docstring(node) or "").split("\n", 1)[0]) for node in [tree, *_definitions(tree)]]


def test_names_are_words_of_the_field(modules: Modules, tests: Modules) -> None:
    """In the tests, too, but for the names of test functions: these are sentences."""
    found = []
    for path, tree in (modules | tests).items():
        definitions = [(node, node.name) for node in _definitions(tree) if not node.name.startswith("test_")]
        defined: list[tuple[ast.AST, str]] = [(tree, path.stem), *definitions]
        found += [f"{_place(path, node)}: {name}" for node, name in defined if _words(name) & NO_DEFINITIONS]
        names = [*defined]
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.append((node, node.id if isinstance(node, ast.Name) else node.attr))
            elif isinstance(node, ast.arg):
                names.append((node, node.arg))
        found += [f"{_place(path, node)}: {name}" for node, name in names if _words(name) & NO_NAMES]
    assert found == []


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)}


def test_a_class_name_stands_for_one_thing(modules: Modules) -> None:
    places = defaultdict(list)
    for path, tree in modules.items():
        for node in _definitions(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(_place(path, node))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED_NAMES} == {}


def test_an_asgi_class_ends_in_middleware(modules: Modules) -> None:
    found = []
    for path, tree in modules.items():
        for node in _definitions(tree):
            if isinstance(node, ast.ClassDef) and not node.name.endswith(("Middleware", "Response")):
                calls = [
                    each for each in node.body if isinstance(each, ast.AsyncFunctionDef) and each.name == "__call__"
                ]
                if any([each.arg for each in call.args.args][1:] == ["scope", "receive", "send"] for call in calls):
                    found.append(f"{_place(path, node)}: {node.name}")
    assert found == []


def test_a_log_event_is_a_name(modules: Modules) -> None:
    """The first argument of a log call is a name such as `turn_refused`; the facts are its fields."""
    found = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            logger = node.func.value
            if not (isinstance(logger, ast.Name) and logger.id in {"logger", "log"}):
                continue
            event = node.args[0]
            is_name = isinstance(event, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*(: %s)?", str(event.value))
            is_chosen = isinstance(event, ast.Name | ast.IfExp | ast.Attribute)
            if node.func.attr in LOG_METHODS and not (is_name or is_chosen):
                found.append(f"{_place(path, node)}: {ast.unparse(event)}")
    assert found == []


def test_the_top_level_holds_the_agreed_names_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_a_process_imports_no_package_that_it_does_not_use() -> None:
    for module, forbidden in {
        "serve_app.deployments.ingress": ["langchain", "langchain_core", "pymilvus"],
        "serve_app.deployments.tools": ["langchain", "langchain_core", "pymilvus", "redis"],
        "serve_app.deployments.retriever": ["langchain", "langchain_core"],
    }.items():
        code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert ran.stdout.strip() == "[]", module


def test_no_module_imports_itself_in_a_circle(modules: Modules) -> None:
    """Not even for types: what two modules need of each other stands in a third."""
    names = {_module(path) for path in modules}
    imports = {_module(path): _imports(path, tree, names) for path, tree in modules.items()}
    remaining = dict(imports)
    while leaves := [name for name, needed in remaining.items() if not needed & remaining.keys()]:
        for name in leaves:
            del remaining[name]
    assert sorted(remaining) == []


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path, tree: ast.Module, modules: set[str]) -> set[str]:
    """Those of `modules` that a module imports; of a package, the module that is named."""
    own, found = _module(path), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                found.add(inner if inner in modules else node.module)
    return {each for each in found & modules if each != own and not own.startswith(f"{each}.")}
