"""The alert rules, the recorded rules, and the queries of the runbooks."""

from __future__ import annotations

from typing import Any

import yaml
from debian_monitoring import CONFIGS, ROOT

RULES = CONFIGS / "prometheus" / "rules"
RUNBOOKS = CONFIGS / "prometheus" / "runbooks.md"
CASES = sorted((ROOT / "tests" / "observability" / "alerts").glob("*.yml"))


def _rules(kind: str) -> dict[str, dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    listed = [rule for document in documents for group in document["groups"] for rule in group["rules"] if kind in rule]
    named = {rule[kind]: rule for rule in listed}
    assert len(named) == len(listed), f"two rules have the same {kind}"
    return named


def alerts() -> dict[str, dict[str, Any]]:
    return _rules("alert")


def recorded() -> dict[str, dict[str, Any]]:
    return _rules("record")


def runbook_queries() -> list[str]:
    """The queries of the runbooks: their indented lines."""
    lines = RUNBOOKS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]
