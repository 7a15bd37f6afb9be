"""The real service, once per test session: serve_config.yaml on a Ray, ports and data of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from manual_pages import snippets
from running_service import ROOT, Service, started
from task_model import TaskModel, served
from two_replicas import SEARCH_S, Pair, paired

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that `serve run serve_config.yaml` starts, with one more tool."""
    folder = tmp_path_factory.mktemp("service")
    with started(folder, _configuration(folder)) as running:
        yield running


@pytest.fixture(scope="session")
def pair(service: Service) -> Iterator[Pair]:
    """Two replicas of each deployment, with a model that does tasks."""
    with served(TaskModel()) as model, paired(service, model) as running:
        yield running


def _configuration(folder: Path) -> Path:
    """configs/local.yaml with time for a search, and the tool of the README, brought as the README says."""
    tree = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    [tool] = [each.text for each in snippets("python", [ROOT / "README.md"]) if "track_parcel" in each.text]
    (folder / "my_tools.py").write_text(tool)
    [entry] = [each.text for each in snippets("yaml", [ROOT / "README.md"]) if "track_parcel" in each.text]
    tree["tools"] |= yaml.safe_load(entry)["tools"]
    tree.setdefault("knowledge", {})["timeout_s"] = SEARCH_S
    tree["orders"]["file"] = str(ROOT / "configs" / "orders.json")
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path
