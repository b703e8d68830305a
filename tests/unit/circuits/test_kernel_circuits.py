"""The kernel driver over routers that write down what they were told: laid, moved, resized, undone whole."""

from __future__ import annotations

import msgspec
import pytest
from fabric_world import circuit, fabric_of, route, state
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.drivers.circuits.kernel.driver import KernelCircuits
from tieline.drivers.circuits.kernel.router import REST
from tieline.drivers.circuits.kernel.steps import MOST_SEGMENTS, Way, head_steps, kept_segments, way_steps
from tieline.model.error import TielineError
from tieline.model.topology import Line

replace = msgspec.structs.replace


@pytest.fixture
def driver(fabric):
    made = KernelCircuits(fabric)
    yield made
    made.close()


def stands(fabric, node, verb):
    return {key[1:]: given for key, given in fabric.routers[node].stands.items() if key[0] == verb}


def test_a_circuit_is_packed_at_both_ends_and_led_over_its_links(driver, fabric):
    driver.bring([circuit()])
    policies = stands(fabric, "a", "policy")
    assert policies[("fd00:0:4:2::1/128",)][1] == ("fc00:0:2:2:0::1", "fc00:0:3:2:0::1", "fc00:0:4:2:0::6")
    assert policies[("10.0.2.4/32",)][1][-1] == "fc00:0:4:2:0::4"
    assert stands(fabric, "d", "policy")[("fd00:0:1:2::1/128",)][1][-1] == "fc00:0:1:2:0::6"
    assert [given[2] for given in stands(fabric, "b", "segment").values()] == ["End"]
    assert sorted(given[2] for given in stands(fabric, "d", "segment").values()) == ["End.DT6", "End.DX4"]
    index = fabric.ports["b", "bc"].index
    assert stands(fabric, "b", "shape")[(index, 2)] == (index, 2, 10_000_000, 10_000_000)
    assert stands(fabric, "b", "shape")[(index, REST)][2:] == (90_000_000, 100_000_000)
    assert stands(fabric, "e", "segment") == {}


def test_taking_it_down_leaves_the_routers_as_they_were(driver, fabric):
    driver.bring([circuit("k-0", "ad")])
    before = state(fabric)
    driver.bring([circuit("k-1", "abcd", spare="abed")])
    assert state(fabric) != before
    driver.remove("k-1")
    after = state(fabric)
    for node in after:  # the rest of a port was stated once more, as it was
        rest = {key for key in after[node] if f", {REST})" in key}
        assert {key: value for key, value in after[node].items() if key not in rest - set(before[node])} == before[node]
    driver.remove("k-1")
    assert list(driver.standing) == ["k-0"]


def test_a_new_route_is_made_before_the_old_one_is_left(driver, fabric, monkeypatch):
    driver.bring([circuit(path="abcd")])
    order = []
    for name, router in fabric.routers.items():
        monkeypatch.setattr(
            router, "policy", lambda *given, name=name: order.append(("policy", name, given[1])), raising=False
        )
        monkeypatch.setattr(
            router, "segment", lambda *given, name=name: order.append(("segment", name, given[0])), raising=False
        )
        monkeypatch.setattr(
            router, "no_segment", lambda *given, name=name: order.append(("no_segment", name, given[0])), raising=False
        )
    driver.bring([circuit(path="abed")])
    verbs = [verb for verb, _, _ in order]
    assert verbs.index("policy") > max(at for at, verb in enumerate(verbs) if verb == "segment")
    assert verbs.index("no_segment") > max(at for at, verb in enumerate(verbs) if verb == "policy")
    assert driver.standing["k-1"].on == ("ab", "be", "ed")
    assert list(driver.standing["k-1"].ways) == [("ab", "be", "ed")]


def test_the_same_again_changes_nothing(driver):
    driver.bring([circuit(spare="ad")])
    assert driver.bring([circuit(spare="ad")]).step_count == 0


def test_a_spare_route_lies_ready_and_is_entered_by_one_step_at_each_end(driver):
    driver.bring([circuit(spare="ad")])
    moved = driver.bring([replace(circuit(path="ad"), spare=route("abcd"))])
    assert moved.step_count == 4  # IPv6 and IPv4 at two ends
    assert driver.spare(("ad",)) == {"k-1": "spare"}
    assert driver.standing["k-1"].on == ("ab", "bc", "cd")
    assert driver.spare(("ad", "bc")) == {"k-1": "igp"}
    assert driver.spare(("ad", "bc")) == {}
    driver.bring([circuit(path="abed")])
    assert driver.standing["k-1"].on == ("ab", "be", "ed")


def test_a_resize_changes_classes_alone(driver, fabric):
    driver.bring([circuit()])
    before = state(fabric)
    driver.bring([replace(circuit(), granted_bps=30_000_000)])
    after = state(fabric)
    changed = [key for node in after for key in after[node] if after[node][key] != before[node].get(key)]
    assert len(changed) == 12  # six ports: the circuit's class and the rest
    assert all(key.startswith("('shape'") for key in changed)
    assert driver.taken(("a", "ab")) == 30_000_000


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 140), st.sampled_from(["abcd", "abed", "ad"]))
def test_a_router_that_refuses_any_step_changes_nothing(at, path):
    budget = [0]
    fabric = fabric_of(budget)
    driver = KernelCircuits(fabric)
    try:
        driver.bring([circuit("k-0", "ad", rate=5_000_000), circuit(spare="ad")])
        before, kept = state(fabric), dict(driver.standing)
        budget[0] = at
        try:
            driver.bring([circuit("k-2", "abcd"), replace(circuit(path=path), granted_bps=20_000_000)])
        except TielineError as error:
            refused = error
        else:
            refused = None
            assert budget[0] > 0
        if refused is not None:
            assert refused.code == "circuit_refused"
            assert driver.standing == kept
            after = state(fabric)
            assert {n: {k: v for k, v in s.items() if k in before[n]} for n, s in after.items()} == before
            left = {key for n, s in after.items() for key in s if key not in before[n]}
            assert all(f", {REST})" in key for key in left)  # the rest of a port was stated, as it was
    finally:
        driver.close()


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (circuit(rate=101_000_000), "circuit_refused", "111000000 bit/s of `ab`"),
        (circuit(mtu_bytes=1_480), "circuit_refused", "wrapped ones have 1576"),
        (circuit(line=Line.OSU), "invalid_request", "is a model"),
        (replace(circuit(), route=None), "invalid_request", "no route"),
        (replace(circuit(), route=replace(route("abcd"), links=("ab", "bc", "ad"))), "invalid_request", "no link `ad`"),
        (replace(circuit(), route=replace(route("abcd"), links=("ab", "bc"))), "invalid_request", "one more is needed"),
        (replace(circuit(), route=replace(route("abcb"), links=("ab", "bc", "bc"))), "invalid_request", "twice"),
        (replace(circuit(), spare=route("abe")), "invalid_request", "other ends"),
    ],
)
def test_what_cannot_stand_is_refused_whole(driver, fabric, wrong, code, said):
    driver.bring([circuit("k-0", "ad")])
    before = state(fabric)
    with pytest.raises(TielineError, match=said) as caught:
        driver.bring([circuit("k-9", "abed"), wrong])
    assert caught.value.code == code
    assert list(driver.standing) == ["k-0"]
    after = state(fabric)
    assert all(after[node].get(key) == value for node in before for key, value in before[node].items())
    with pytest.raises(TielineError, match="other ends"):
        driver.bring([circuit("k-0", "abc")])


def test_two_circuits_share_a_port_as_long_as_it_carries_both(driver, fabric):
    driver.bring([circuit("k-1", rate=60_000_000), circuit("k-2", rate=40_000_000)])
    index = fabric.ports["a", "ab"].index
    assert stands(fabric, "a", "shape")[(index, REST)][2] == 0
    with pytest.raises(TielineError, match="101000000 bit/s of `ab` at `a` would be held; it carries 100000000"):
        driver.bring([circuit("k-3", "ab", rate=1_000_000)])
    assert driver.standing["k-1"].number != driver.standing["k-2"].number


@given(st.integers(1, 30))
def test_the_last_routers_of_a_long_way_are_segments(count):
    kept = kept_segments(count)
    assert len(kept) == min(count, MOST_SEGMENTS)
    assert kept[-1] == count - 1


def test_every_step_has_an_opposite(fabric):
    way = Way(route("abcd"), 0)
    for step in (*way_steps(fabric, 7, way), *head_steps(fabric, 7, way, None)):
        assert step.opposite.opposite == step
        assert step.opposite.verb == f"no_{step.verb}"
