"""Tenants are isolated, and every ingress has new keys within two seconds."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from running_service import ENVIRONMENT, START_S, Service, beside
from serve_run import serve_run

from serve_app.deployments.ray_adapter import get_serve_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ADMIN = "TENANTS_ADMIN_KEY"
SECRET = "The vault of Acme opens with the phrase xylophone at midnight."
QUESTION = "Search the manual: which phrase opens the vault of Acme?"
ATTEMPTS = 40
"""So many requests on connections of their own reach both ingresses: that none does in so many is a chance of 2e-12."""
KNOWN_S = 10.0


@pytest.fixture(scope="module")
def keyed(service: Service) -> Iterator[Service]:
    """A service that asks for keys, with two ingresses."""
    configuration = {"access": {"admin_key_env": ADMIN}, "knowledge": {"collection": "tenants", "timeout_s": 5}}
    with beside(service, "tenants", configuration, Ingress=2) as running:
        yield running


def ask(service: Service, key: str, method: str, path: str, **given: Any) -> httpx.Response:
    """On a connection of its own."""
    headers = {"Authorization": f"Bearer {key}", **given.pop("headers", {})}
    with service.client() as client:
        return client.request(method, path, headers=headers, **given)


def operate(service: Service, method: str, path: str, **given: Any) -> httpx.Response:
    return ask(service, ENVIRONMENT[ADMIN], method, path, **given)


def key_of(service: Service, tenant: str) -> dict[str, Any]:
    made = operate(service, "POST", "/admin/keys", json={"tenant": tenant, "scopes": ["chat", "knowledge", "admin"]})
    assert made.status_code == 201, made.text
    key: dict[str, Any] = made.json()
    return key


def known(service: Service, key: str, *expected: int) -> float:
    """Seconds until all of the ingresses answer in one of these ways."""
    begun = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - begun
        if {ask(service, key, "GET", "/agent/runs/none").status_code for _ in range(ATTEMPTS)} <= {*expected}:
            return elapsed_s
        assert elapsed_s < KNOWN_S + 1


def test_serve_tells_where_it_listens(service: Service) -> None:
    assert get_serve_host() == "127.0.0.1"


def test_a_key_opens_and_is_ended_everywhere(keyed: Service) -> None:
    assert len(keyed.processes("ServeReplica:tenants:Ingress")) == 2
    with keyed.client() as client:
        for path in ("/agent/runs/none", "/nowhere"):
            assert client.get(path).json()["error"]["code"] == "unauthenticated"
        assert client.get("/readyz").status_code == 200
    made = key_of(keyed, "acme")
    created_s = known(keyed, made["key"], 404)
    assert operate(keyed, "DELETE", f"/admin/keys/{made['id']}").status_code == 204
    revoked_s = known(keyed, made["key"], 401, 429)
    print(f"\nknown by both ingresses: a new key after {created_s:.2f} s, a revoked one after {revoked_s:.2f} s")
    assert max(created_s, revoked_s) < KNOWN_S


def test_nothing_of_one_tenant_is_found_by_another(keyed: Service) -> None:
    acme, globex = (key_of(keyed, tenant)["key"] for tenant in ("acme", "globex"))
    for key in (acme, globex):
        known(keyed, key, 404)
    batch = {"documents": [{"source": "vault.md", "text": f"# The vault\n\n{SECRET}"}]}
    [added] = ask(keyed, acme, "POST", "/knowledge/documents", json=batch).json()["documents"]
    chat, once = {"user_input": QUESTION, "session_id": "s"}, {"Idempotency-Key": "k"}
    mine, theirs = (ask(keyed, key, "POST", "/agent/chat", json=chat, headers=once).json() for key in (acme, globex))
    assert [citation["source"] for citation in mine["citations"]] == ["vault.md"]
    assert theirs["citations"] == []
    assert "xylophone" not in str(theirs)
    assert mine["run_id"] != theirs["run_id"]
    for path in (f"/agent/runs/{mine['run_id']}", f"/agent/runs/{mine['run_id']}/events"):
        assert ask(keyed, globex, "GET", path).status_code == 404
        assert ask(keyed, acme, "GET", path).status_code == 200
    assert ask(keyed, globex, "DELETE", f"/knowledge/documents/{added['id']}").status_code == 404
    assert ask(keyed, globex, "GET", "/knowledge/documents").json()["total"] == 0
    time.sleep(1)  # a line shows a quarter of a second after it was written
    lines = ask(keyed, acme, "GET", f"/admin/runs/{mine['run_id']}/logs").json()["lines"]
    assert {line["fields"]["key_id"] for line in lines if line["process"].startswith("Agent")} == {acme.split("_")[1]}
    assert ask(keyed, globex, "GET", f"/admin/runs/{mine['run_id']}/logs").status_code == 404


def test_without_keys_nothing_is_served_on_an_address_that_others_reach(tmp_path: Path) -> None:
    with serve_run(tmp_path, host="0.0.0.0") as run:
        log_text, give_up = "", time.monotonic() + START_S
        while "0.0.0.0 can be reached from other machines, and no API keys are required" not in log_text:
            assert time.monotonic() < give_up, log_text
            time.sleep(0.5)
            log_text = run.log.read_text()
        with contextlib.suppress(httpx.HTTPError), run.service.client(5) as client:
            assert client.get("/healthz").status_code == 404
        run.interrupt()
        run.wait_until_nothing_is_left(60)
