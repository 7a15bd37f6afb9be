"""Work is done once for all who wait for it, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.resilience.tasks import SingleFlight

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Work:
    """Takes three seconds, and fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.begun = self.ended = 0
        self.failures = failures

    async def do(self) -> None:
        self.begun += 1
        await asyncio.sleep(3)
        self.ended += 1
        if self.ended <= self.failures:
            raise ConnectionError


async def impatient(shared: SingleFlight) -> None:
    async with asyncio.timeout(1):
        await shared.run()


async def test_all_who_wait_wait_for_the_same_work() -> None:
    work = Work()
    shared = SingleFlight(work.do)
    await asyncio.gather(*(shared.run() for _ in range(5)))
    assert (work.begun, work.ended, asyncio.get_running_loop().time()) == (1, 1, pytest.approx(3))
    await shared.run()
    assert work.begun == 2


async def test_who_gives_up_leaves_the_work_to_the_next_one() -> None:
    work = Work()
    shared = SingleFlight(work.do)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await impatient(shared)
    await shared.run()
    assert (work.begun, asyncio.get_running_loop().time()) == (1, pytest.approx(3))


async def test_a_failure_reaches_all_who_wait_and_the_next_one_tries_again() -> None:
    work = Work(failures=1)
    shared = SingleFlight(work.do)
    results = await asyncio.gather(*(shared.run() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in results] == [ConnectionError] * 3
    await shared.run()
    assert work.begun == 2


async def test_work_that_is_under_way_ends_with_its_owner() -> None:
    work = Work()
    shared = SingleFlight(work.do)
    await shared.close()
    with pytest.raises(TimeoutError):
        await impatient(shared)
    await shared.close()
    assert (work.begun, work.ended) == (1, 0)
