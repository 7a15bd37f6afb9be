"""A data folder has one owner, and its ports stay the same."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from serve_app.deployments.embedded_stores import LOOPBACK, StorePorts, choose_ports, lock_data_folder
from serve_app.errors import InvalidConfiguration

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with lock_data_folder(tmp_path, timeout_s=0):
        with pytest.raises(InvalidConfiguration) as caught:
            lock_data_folder(tmp_path, timeout_s=0.1)
        [problem] = caught.value.problems
        assert str(os.getpid()) in problem.what
    lock_data_folder(tmp_path, timeout_s=0).close()


def test_a_folder_that_cannot_be_used_is_a_problem_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfiguration) as caught:
        choose_ports(tmp_path / "file" / "data")
    [problem] = caught.value.problems
    assert "Not a directory" in problem.what


def test_ports_lie_outside_of_the_ranges_of_linux_and_ray_and_stay_the_same(tmp_path: Path) -> None:
    ports = choose_ports(tmp_path)
    assert 20_000 <= ports.redis < 30_000
    assert 20_000 <= ports.milvus < 30_000
    assert ports.redis != ports.milvus
    assert choose_ports(tmp_path) == ports


def test_ports_that_a_stranger_took_are_replaced(tmp_path: Path) -> None:
    taken = choose_ports(tmp_path)
    with socket.create_server((LOOPBACK, taken.milvus)):
        ports = choose_ports(tmp_path)
        assert taken.milvus not in (ports.redis, ports.milvus)
    assert choose_ports(tmp_path) == ports


def test_ports_on_which_the_stores_of_the_folder_run_are_kept(tmp_path: Path) -> None:
    ports = choose_ports(tmp_path)
    with lock_data_folder(tmp_path, timeout_s=0), socket.create_server((LOOPBACK, ports.redis)):
        assert choose_ports(tmp_path) == ports


@pytest.mark.parametrize("content", ["", "{", "[]", '{"redis": 1}', "null"])
def test_a_damaged_record_of_ports_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert isinstance(choose_ports(tmp_path), StorePorts)
    assert choose_ports(tmp_path) == choose_ports(tmp_path)
