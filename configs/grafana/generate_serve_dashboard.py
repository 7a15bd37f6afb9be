"""Writes Ray's own dashboards of the installed version to `ray/`.

Run it in the environment of the service, and again after an upgrade of Ray:
`python configs/grafana/generate_serve_dashboard.py`. The dashboards have the ids by which Ray's dashboard (port 8265)
embeds their panels.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ray.dashboard.modules.metrics.grafana_dashboard_factory import (
    generate_default_grafana_dashboard,
    generate_serve_deployment_grafana_dashboard,
    generate_serve_grafana_dashboard,
)

GENERATORS = {
    "cluster": generate_default_grafana_dashboard,
    "serve": generate_serve_grafana_dashboard,
    "serve-deployment": generate_serve_deployment_grafana_dashboard,
}


def main(folder: Path) -> None:
    """Write the dashboards, and print their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, generate in GENERATORS.items():
        content, _uid = generate()
        path = folder / f"{name}.json"
        path.write_text(content, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "ray")
