"""Replicas follow the turns in flight and the lag of the event loops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.deployments.autoscaling import scale_by_load

ROOT = Path(__file__).parent.parent.parent


def _wanted(current: int, calls: float = 0.0, **metrics: list[float]) -> float:
    """What the policy wants, of a deployment whose replicas shall have 100 turns each."""
    config = AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=100)
    by_replica = {name: dict(enumerate(values)) for name, values in metrics.items()}
    context = AutoscalingContext(
        deployment_id=DeploymentID("Agent"),
        deployment_name="Agent",
        app_name="serve_app",
        current_num_replicas=current,
        target_num_replicas=current,
        running_replicas=[],
        total_num_requests=calls,
        total_queued_requests=0,
        aggregated_metrics=by_replica,
        raw_metrics={},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=config,
    )
    wanted, state = scale_by_load(context)
    assert state == {}
    return wanted


@pytest.mark.parametrize(
    ("wanted", "current", "load"),
    [
        (2.0, 1, {"runs": [200.0], "worked": [0.0]}),
        (0.05, 1, {"runs": [5.0], "worked": [0.0]}),
        (1.2, 3, {"runs": [40.0, 40.0, 40.0], "worked": [0.0, 0.0, 0.0]}),
        (2, 1, {"runs": [30.0], "worked": [0.95]}),
        (3, 3, {"runs": [10.0, 10.0, 10.0], "worked": [0.6, 0.6, 0.6]}),
        (4.0, 1, {"runs": [400.0], "worked": [0.95]}),
    ],
    ids=["more turns", "few turns", "fewer turns", "they compute", "they compute a little", "both"],
)
def test_replicas_follow_turns_and_load(wanted: float, current: int, load: dict[str, list[float]]) -> None:
    assert _wanted(current, **load) == wanted


def test_calls_count_before_the_first_report() -> None:
    assert _wanted(1, calls=300) == 3.0


def test_the_controller_loads_nothing_of_the_service_for_it() -> None:
    code = "import sys; import serve_app.deployments.autoscaling; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "pydantic", "langchain_core", "fastapi"} & set(modules)


def test_the_shipped_configuration_scales_the_turns_by_it() -> None:
    deployed = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    scaled = {each["name"]: each["autoscaling_config"] for each in deployed["applications"][0]["deployments"]}
    for name in ("Ingress", "Agent"):
        policy = AutoscalingConfig.model_validate(scaled[name]).policy.get_policy()
        assert (policy.__module__, policy.__name__) == (scale_by_load.__module__, scale_by_load.__name__)
