"""Serve's own proxies keep steering, slow and refused clients from the replicas."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from running_service import GUARDS, ROOT, START_S
from serve_run import serve_run

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.long

TURN = {"user_input": "hello", "session_id": "s1"}
REFUSED = 30
REFUSED_LINE = b"HTTP/1.1 429 Too Many Requests\r\n"
EXPORTED_S = 40
"""Ray reports every ten seconds; a page is kept for five."""


@pytest.mark.timeout(START_S + 120)
def test_serves_proxies_hold_off_who_steers_drips_or_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    configuration["orders"]["file"] = str(ROOT / "configs" / "orders.json")
    configuration["limits"] = {"tenant": {"turns_per_minute": 1, "turns_burst": 1}}
    (tmp_path / "limited.yaml").write_text(yaml.safe_dump(configuration))
    for name, value in {**GUARDS, "SERVE_APP_CONFIG": str(tmp_path / "limited.yaml")}.items():
        monkeypatch.setenv(name, value)
    with serve_run(tmp_path) as run:
        run.service.wait_until_ready(START_S)
        with run.service.client() as client:
            steering = {"X-Request-Timeout-Seconds": "0.001"}
            assert client.post("/agent/chat", json=TURN, headers=steering).status_code == 200
            refused = [client.post("/agent/chat", json=TURN) for _ in range(REFUSED)]
            assert _dripped(run.service.url) == REFUSED_LINE
            ids = [each.headers.get_list("X-Request-Id") for each in refused]
            assert {each.status_code for each in refused} == {429}
            assert {each.json()["error"]["code"] for each in refused} == {"rate_limited"}
            assert all(int(each.headers["Retry-After"]) > 30 for each in refused)
            assert [each.json()["error"]["request_id"] for each in refused] == [one for [one] in ids]
            assert len({one for [one] in ids}) == REFUSED
            assert {each.json()["error"]["reason"] for each in refused} == {"rate_limited"}
            found = [client.get(f"/admin/requests/{one}/logs") for [one] in ids[:1]]
            assert found[0].json()["run_id"] is None, found[0].text
            [line] = found[0].json()["lines"]
            assert (line["event"], line["fields"]["reason"]) == ("turn_refused", "rate_limited")
            by_proxies, by_ingresses = _counted(client, REFUSED + 1)
    assert by_proxies + by_ingresses == REFUSED + 1
    assert by_proxies >= 1


def _dripped(url: str) -> bytes:
    """The first line of what a client is answered whose body comes in three pieces."""
    parts, body = urlsplit(url), b'{"user_input": "hello", "session_id": "s2"}'
    head = "POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    pieces = head.format(len(body)).encode() + body[:5], body[5:10], body[10:]
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.2)
        with connection.makefile("rb") as answered:
            return answered.readline()


def _counted(client: httpx.Client, many: int) -> tuple[float, float]:
    """How many refusals the page of metrics has, of proxies and of ingresses, as soon as they are so many together."""
    give_up = time.monotonic() + EXPORTED_S
    while True:
        samples = [
            sample
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
            if sample.labels.get("code") == "rate_limited"
        ]
        names = "ray_serve_app_requests_shed_total", "ray_serve_app_responses_total"
        shed, refused = (sum(sample.value for sample in samples if sample.name == name) for name in names)
        if shed + refused >= many or time.monotonic() > give_up:
            return shed, refused
        time.sleep(1)
