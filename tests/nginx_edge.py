"""Starts a real nginx with our configuration for a test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx
import pytest
from listening import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NGINX = Path(__file__).parent.parent / "configs" / "nginx"
INSTALL = "apt-get install nginx"
START_S = 10
NONE: Mapping[str, str] = MappingProxyType({})
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program() -> str:
    """Its path. Skips where it is not installed, and fails in CI."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        missing = f"nginx is missing: {INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@dataclass(frozen=True, slots=True)
class Edge:
    """A running nginx."""

    url: str
    plain_url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))

    def client(self, path: str = "", headers: Mapping[str, str] = NONE) -> httpx.AsyncClient:
        url = f"{self.url}{path}"
        return httpx.AsyncClient(base_url=url, verify=self.trusted, headers=headers, trust_env=False, timeout=30)

    @property
    def log(self) -> str:
        return (self.folder / "access.log").read_text(encoding="utf-8")


def upstreams(stable: Sequence[int], canary: Sequence[int] = ()) -> str:
    """`site/upstreams.conf` with these ports on loopback; all else as it is shipped."""
    text = (NGINX / "site" / "upstreams.conf").read_text(encoding="utf-8")
    servers = [_servers(stable), _servers(canary or stable)]
    parts = text.split("    server 127.0.0.1:8000 max_fails=3 fail_timeout=10s;\n")
    assert len(parts) == 3
    return parts[0] + servers[0] + parts[1] + servers[1] + parts[2]


def _servers(ports: Sequence[int]) -> str:
    return "".join(f"    server 127.0.0.1:{port} max_fails=3 fail_timeout=10s;\n" for port in ports)


def written(folder: Path, site: Mapping[str, str], changes: Mapping[str, str] = NONE) -> tuple[int, int]:
    """The configuration for a test in `folder`, with these files of `site/`; the ports for TLS and without.

    `changes` are made to nginx.conf itself.
    """
    tls, plain = free_port(), free_port()
    shutil.copytree(NGINX, folder, dirs_exist_ok=True)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-addext", names, *files], check=True, capture_output=True)
    mine = {
        "listen_plain.conf": f"listen 127.0.0.1:{plain} default_server;",
        "listen_tls.conf": f"listen 127.0.0.1:{tls} ssl http2 default_server; server_name localhost;",
        "certificate.conf": "ssl_certificate fullchain.pem; ssl_certificate_key privkey.pem;",
        **site,
    }
    for name, text in mine.items():
        assert (folder / "site" / name).exists(), f"{name} is no file of site/"
        (folder / "site" / name).write_text(text, encoding="utf-8")
    main = (folder / "nginx.conf").read_text(encoding="utf-8")
    temporary = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in TEMPORARY)
    for shipped, here in (
        ("user www-data;", f"user {getpass.getuser()};\ndaemon off;"),
        ("worker_processes auto;", "worker_processes 1;"),
        ("worker_rlimit_nofile 65536;", ""),
        ("pid /run/nginx.pid;", f"pid {folder}/nginx.pid;"),
        ("error_log stderr warn;", f"error_log {folder}/error.log warn;"),
        ("access_log /var/log/nginx/access.log served;", f"access_log {folder}/access.log served;\n{temporary}"),
        *changes.items(),
    ):
        assert shipped in main
        main = main.replace(shipped, here)
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    return tls, plain


@contextmanager
def edge(folder: Path, site: Mapping[str, str], changes: Mapping[str, str] = NONE) -> Iterator[Edge]:
    """nginx on loopback, to the end of the block."""
    tls, plain = written(folder, site, changes)
    command = [program(), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20, check=False)
    assert tried.returncode == 0, tried.stderr
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(tls)
            yield Edge(f"https://127.0.0.1:{tls}", f"http://127.0.0.1:{plain}", folder, process)
        finally:
            process.terminate()


def _wait(port: int) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nginx does not answer within {START_S} s")
