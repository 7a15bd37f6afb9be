"""Each tenant is served by its weight, and no place is lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serve_app.resilience.fair_queue import FairQueue, Throughput, Ticket


def _full(places: int = 1, waiting: int = 100) -> tuple[FairQueue, list[Ticket]]:
    queue = FairQueue(places, waiting)
    return queue, [queue.enter("greedy") for _ in range(places)]


def _order(queue: FairQueue, first: Ticket) -> list[str]:
    """The tenants, as they are served one after the other."""
    served, ticket = [], queue.leave(first)
    while ticket:
        served.append(ticket.tenant)
        ticket = queue.leave(ticket)
    return served


def test_whoever_comes_anew_is_served_before_what_another_has_piled_up():
    queue, [first] = _full()
    for _ in range(20):
        queue.enter("greedy")
    queue.enter("modest")
    assert _order(queue, first)[0] == "modest"


def test_two_tenants_that_always_want_more_are_served_in_turn():
    queue, [first] = _full()
    for _ in range(10):
        queue.enter("greedy")
    for _ in range(10):
        queue.enter("other")
    served = _order(queue, first)
    assert all(abs(Counter(served[:n])["greedy"] - n / 2) <= 1 for n in range(1, 21))


def test_a_tenant_of_three_times_the_weight_is_served_three_times_as_often():
    queue, [first] = _full(waiting=200)
    for _ in range(40):
        queue.enter("heavy", 3)
        queue.enter("light", 1)
    assert Counter(_order(queue, first)[:40])["heavy"] in {29, 30, 31}


def test_what_a_tenant_did_not_use_gives_it_no_credit():
    queue, [first] = _full()
    for _ in range(30):
        first = queue.leave(first) or queue.enter("greedy")
    for _ in range(10):
        queue.enter("greedy")
    for _ in range(10):
        queue.enter("late")
    assert Counter(_order(queue, first)[:10])["late"] in {5, 6}


def test_one_tenant_alone_leaves_places_to_wait_in_free():
    queue, _ = _full(waiting=96)
    assert sum(queue.enter("greedy") is not None for _ in range(200)) == 56, "two thirds of seven eighths"
    assert not queue.has_room("greedy")
    assert queue.has_room("newcomer")


def test_though_a_dozen_fill_the_queue_whoever_comes_anew_finds_a_place():
    queue, _ = _full(waiting=100)
    for number in range(12):
        while queue.enter(f"greedy-{number}"):
            pass
    assert queue.enter("newcomer")


def test_nobody_waits_where_no_place_is_to_wait_in():
    queue, [first] = _full(waiting=0)
    assert queue.enter("other") is None
    assert queue.leave(first) is None
    assert queue.enter("other").state == "served"


def test_one_that_gives_up_costs_its_tenant_nothing():
    queue, [first] = _full()
    for ticket in [queue.enter("patient") for _ in range(30)]:
        queue.leave(ticket)
    for _ in range(4):
        queue.enter("greedy")
        queue.enter("patient")
    assert Counter(_order(queue, first)[:4])["patient"] == 2


def test_tenants_that_are_gone_are_forgotten():
    queue = FairQueue(1, 10)
    for number in range(10_000):
        queue.leave(queue.enter(f"t{number}"))
    assert len(queue._ends) < 200


STEPS = st.lists(st.tuples(st.sampled_from("eeel"), st.integers(0, 50), st.sampled_from([0.5, 1.0, 7.0])), max_size=200)


def test_turns_of_one_tenant_that_last_do_not_fill_all_places():
    queue = FairQueue(4, 10, reserved=1)
    lasting = [queue.enter("greedy") for _ in range(5)]
    assert [ticket.state for ticket in lasting] == ["served"] * 3 + ["waits"] * 2
    assert queue.has_room("modest")
    modest = queue.enter("modest")
    assert modest.state == "served"
    assert queue.leave(modest) is None, "greedy has what one may have"
    assert queue.enter("modest").state == "served"
    assert queue.leave(lasting[0]) is lasting[3]


@given(places=st.integers(1, 5), waiting=st.integers(0, 12), reserved=st.integers(0, 2), steps=STEPS)
def test_no_place_is_lost_or_given_twice_whoever_comes_and_goes(places, waiting, reserved, steps):
    reserved = min(reserved, places - 1)
    queue, inside = FairQueue(places, waiting, reserved), []
    for what, which, weight in steps:
        if what == "e":
            ticket = queue.enter(f"t{which % 6}", weight)
            inside += [ticket] if ticket else []
        elif inside:
            following = queue.leave(inside.pop(which % len(inside)))
            assert following is None or following in inside
        states = Counter(ticket.state for ticket in inside)
        assert states["served"] == queue.served <= places
        assert states["waits"] == queue.waiting <= waiting
        serving = Counter(ticket.tenant for ticket in inside if ticket.state == "served")
        assert all(served <= places - reserved for served in serving.values())
        waiting_for = {ticket.tenant for ticket in inside if ticket.state == "waits"}
        assert queue.served == places or all(serving[tenant] == places - reserved for tenant in waiting_for)
    for ticket in inside:
        queue.leave(ticket)
    assert (queue.served, queue.waiting, queue._queues, queue._serving) == (0, 0, {}, {})


def test_whoever_is_refused_is_told_how_long_those_who_wait_take():
    throughput = Throughput()
    for tenth in range(100):
        throughput.record_end(tenth / 10)
    assert throughput.per_second(9.9) == 10
    assert throughput.retry_after_s(49, 9.9) == 5


def test_it_is_never_told_to_come_back_at_once_nor_after_more_than_a_minute():
    throughput = Throughput()
    throughput.record_end(0)
    throughput.record_end(29)
    assert throughput.retry_after_s(1000, 29) == 60
    for _ in range(200):
        throughput.record_end(29)
    assert throughput.retry_after_s(0, 29) == 1


def test_what_ended_long_ago_says_nothing_of_the_throughput():
    throughput = Throughput()
    for second in range(20):
        throughput.record_end(second)
    assert throughput.per_second(100) == 0
    assert throughput.retry_after_s(10, 100) == 5


def test_more_places_serve_those_that_wait_and_fewer_take_none_away():
    queue, inside = _full(places=2, waiting=10)
    waiting = [queue.enter(tenant) for tenant in ("a", "b", "a")]
    served = queue.resize(4, reserved=0)
    assert [ticket.tenant for ticket in served] == ["a", "b"]
    assert queue.resize(1, reserved=0) == []
    assert (queue.served, queue.waiting) == (4, 1)
    for ticket in (*inside, served[0]):
        assert queue.leave(ticket) is None, "there are fewer places than turns"
    assert queue.leave(served[1]) is waiting[2]
