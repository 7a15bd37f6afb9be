"""The installed packages are the pinned ones, all are pinned, and none is known to be unsafe."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "configs" / "constraints.txt"
AUDIT = "pip-audit --disable-pip --no-deps -r configs/constraints.txt"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;@]+", line) for line in pinned), "a pin is NAME==VERSION"
    return {_canonical(line.split("==")[0]): line.split("==")[1] for line in pinned}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_every_pin_is_what_is_installed() -> None:
    others = {name: (pin, _installed(name)) for name, pin in _pins().items() if _installed(name) != pin}
    assert others == {}


def test_everything_that_the_project_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {_canonical(re.match(r"[A-Za-z0-9._-]+", each)[0]) for each in requirements}  # type: ignore[index]
    assert names - _pins().keys() == set()


@pytest.mark.long
def test_no_pinned_version_is_known_to_be_unsafe() -> None:
    """Where pip-audit is installed and its database is reached; else the pins above are what there is to go by."""
    if shutil.which("pip-audit") is None:
        pytest.skip("pip-audit is not installed: pip install pip-audit")
    audited = subprocess.run(AUDIT.split(), cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    if "could not be audited" in audited.stdout or "ConnectionError" in audited.stderr:
        pytest.skip("pip-audit does not reach its database here")
    assert audited.returncode == 0, audited.stdout
