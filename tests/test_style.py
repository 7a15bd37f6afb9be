"""Does the code keep the house's rules?"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "serve_app").rglob("*.py"))
TOP_LEVEL = {"serve_app", "configs", "tests", "serve_config.yaml", "pyproject.toml", "README.md", "LICENSE"}


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_its_shape(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 500, "a module is never over 500 lines: split it by concern"
    assert ast.get_docstring(tree), "a module opens with what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines; a function has at most 50"
            arguments = [each.arg for each in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            given = [name for name in arguments if name not in {"self", "cls"}]
            assert len(given) <= 5, f"{node.name} takes {len(given)} parameters; a function takes at most 5"


def test_the_top_level_holds_the_agreed_names_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_the_ingress_process_imports_neither_langchain_nor_pymilvus() -> None:
    _assert_not_imported("serve_app.deployments.ingress", ["langchain", "langchain_core", "pymilvus"])


def test_the_tools_process_imports_no_model_and_no_store() -> None:
    _assert_not_imported("serve_app.deployments.tools", ["langchain", "langchain_core", "pymilvus", "redis"])


def test_the_retriever_process_imports_no_langchain() -> None:
    _assert_not_imported("serve_app.deployments.retriever", ["langchain", "langchain_core"])


def _assert_not_imported(module: str, forbidden: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
