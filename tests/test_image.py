"""The recipe of the image: without root, secrets and build tools.

There is no Docker where the tests run: the recipe is read, and its steps are done in a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
RECIPE = (ROOT / "configs" / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
UID = "10001"


def _instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", RECIPE)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def _last_stage() -> list[tuple[str, str]]:
    instructions = _instructions()
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[last:]


def test_it_runs_as_nobody_in_particular() -> None:
    users = [value for name, value in _last_stage() if name == "USER"]
    assert users == [UID]
    names = [name for name, _ in _last_stage()]
    assert "RUN" not in names[names.index("USER") :]


def test_nothing_is_installed_that_is_not_pinned() -> None:
    installs = [value for name, value in _instructions() if name == "RUN" and "pip install" in value]
    assert len(installs) == 1
    assert "-c configs/constraints.txt" in installs[0]
    bases = [value.split(" AS ")[0] for name, value in _instructions() if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.11-slim-[a-z]+", base) for base in bases)
    assert not any("apt-get" in value or "curl" in value for _, value in _instructions())
    assert not any(name == "ADD" for name, _ in _instructions())


def test_no_secret_and_no_file_that_is_not_needed_is_copied() -> None:
    copied = [
        value.split()[:-1] for name, value in _instructions() if name == "COPY" and not value.startswith("--from")
    ]
    files = {name for each in copied for name in each}
    assert all((ROOT / name).exists() for name in files)
    assert "." not in files
    assert not any("env" in name.lower() for name in files)
    assert not re.search(
        r"(?i)(key|token|password|secret)\S*=", "".join(v for n, v in _instructions() if n in {"ENV", "ARG"})
    )
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == files


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_its_steps_make_a_service_that_another_user_can_start(open_folder: Path) -> None:
    """pip install as in the recipe, then the command line as uid 10001 in a home that only this user may write to."""
    source, home = open_folder / "src", open_folder / "home"
    for name in ("pyproject.toml", "README.md", "LICENSE", "serve_config.yaml"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "serve_app", source / "serve_app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", source / "configs")
    venv = open_folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    as_user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    which = [*as_user, str(venv / "bin" / "python"), "-c", "import sys; print(sys.version)"]
    if subprocess.run(which, capture_output=True, text=True, check=False).stdout.strip() != sys.version:
        pytest.skip("the interpreter lies where other users cannot read it")
    install = [str(venv / "bin" / "pip"), "install", "-q", "--no-cache-dir", "-c", "configs/constraints.txt", "."]
    subprocess.run(install, cwd=source, check=True, timeout=500)
    (home / "configs").mkdir(parents=True)
    shutil.copy(source / "serve_config.yaml", home)
    for name in ("local.yaml", "orders.json"):
        shutil.copy(source / "configs" / name, home / "configs")
    for path in (home, *home.rglob("*")):
        os.chown(path, int(UID), int(UID))
    environment = {"HOME": str(home), "PATH": f"{venv / 'bin'}:/usr/bin:/bin", "SERVE_APP_DATA_DIR": str(home / "data")}
    code = "import os, serve_app, serve_app.app; print(os.getuid(), serve_app.__file__)"
    options: dict[str, Any] = {"cwd": home, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    ran = subprocess.run([*as_user, str(venv / "bin" / "python"), "-c", code], check=False, **options)
    assert ran.stdout.startswith(f"{UID} {venv}"), ran.stderr
    checked = subprocess.run([*as_user, "serve-app", "check"], check=False, **options)
    assert checked.returncode == 0 or "port" in checked.stdout + checked.stderr, checked.stdout + checked.stderr
