"""`/metrics` gives the page of all nodes, which is made at most once in five seconds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from serve_app.observability import metrics_page

if TYPE_CHECKING:
    import pytest
    from http_service import Service

PAGE = '# HELP ray_up Up.\n# TYPE ray_up gauge\nray_up{WorkerId="a",deployment="A"} 1.0\n'


async def test_the_page_is_prometheus_text_of_all_nodes_and_says_who_did_not_answer(service: Service) -> None:
    service.nodes.page_texts = {"10.0.0.1": PAGE, "10.0.0.2": None}
    response = await service.client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family.samples for family in text_string_to_metric_families(response.text)}
    assert [(sample.labels, sample.value) for sample in families["ray_up"]] == [({"deployment": "A"}, 1)]
    assert {sample.labels["node"]: sample.value for sample in families["serve_app_scrape_up"]} == {
        "10.0.0.1": 1,
        "10.0.0.2": 0,
    }


async def test_many_who_ask_at_once_have_it_made_once(service: Service) -> None:
    answers = await asyncio.gather(*(service.client.get("/metrics") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert service.nodes.calls == 1


async def test_the_page_is_made_anew_after_its_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_page, "FRESH_S", 0.05)
    await service.client.get("/metrics")
    service.nodes.page_texts = {"10.0.0.3": PAGE}
    await asyncio.sleep(0.1)
    assert "10.0.0.3" in (await service.client.get("/metrics")).text
