"""Who owns a data folder, and do its ports stay the same?"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from serve_app.deployments.data_folder import Ports, embedded_ports, hold
from serve_app.deployments.loopback import HOST
from serve_app.errors import InvalidConfiguration

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path, patience_s=0):
        with pytest.raises(InvalidConfiguration) as caught:
            hold(tmp_path, patience_s=0.1)
        [problem] = caught.value.problems
        assert str(os.getpid()) in problem.what
    hold(tmp_path, patience_s=0).close()


def test_a_folder_that_cannot_be_used_is_a_problem_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfiguration) as caught:
        embedded_ports(tmp_path / "file" / "data")
    [problem] = caught.value.problems
    assert "Not a directory" in problem.what


def test_ports_lie_outside_of_the_ranges_of_linux_and_ray_and_stay_the_same(tmp_path: Path) -> None:
    ports = embedded_ports(tmp_path)
    assert 20_000 <= ports.redis < 30_000
    assert 20_000 <= ports.milvus < 30_000
    assert ports.redis != ports.milvus
    assert embedded_ports(tmp_path) == ports


def test_ports_that_a_stranger_took_are_replaced(tmp_path: Path) -> None:
    taken = embedded_ports(tmp_path)
    with socket.create_server((HOST, taken.milvus)):
        ports = embedded_ports(tmp_path)
        assert taken.milvus not in (ports.redis, ports.milvus)
    assert embedded_ports(tmp_path) == ports


def test_ports_on_which_the_stores_of_the_folder_run_are_kept(tmp_path: Path) -> None:
    ports = embedded_ports(tmp_path)
    with hold(tmp_path, patience_s=0), socket.create_server((HOST, ports.redis)):
        assert embedded_ports(tmp_path) == ports


@pytest.mark.parametrize("content", ["", "{", "[]", '{"redis": 1}', "null"])
def test_a_damaged_record_of_ports_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert isinstance(embedded_ports(tmp_path), Ports)
    assert embedded_ports(tmp_path) == embedded_ports(tmp_path)
