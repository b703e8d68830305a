"""Who peers with whom: a star while it is small, a tree with bounded families when it is not."""

from __future__ import annotations

from collections import Counter

import pytest

from tieline.model.peer import PeerRole
from tieline.sim.convergence import difference, held_by
from tieline.sim.story import Size, story_of
from tieline.sim.topology import CHILDREN, above_of, is_industry, links_of, prefix_of, wanted_of
from tieline.sim.world import World


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"x{place + 1}" for place in range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 18])
def test_a_small_federation_is_a_star_that_asks_for_everything(count: int) -> None:
    children = [link for link in links_of(names_of(count)) if link[2] is PeerRole.CHILD]
    assert {one for one, _, _ in children} <= {"x1"}
    assert wanted_of(names_of(count)) == {}


@pytest.mark.parametrize("count", [20, 200, 1_000])
def test_in_a_large_one_every_region_has_one_parent_who_gave_it_its_prefix(count: int) -> None:
    names = names_of(count)
    links = links_of(names)
    parents = {two: one for one, two, role in links if role is PeerRole.CHILD}
    assert set(parents) == {name for place, name in enumerate(names) if place and not is_industry(place)}
    assert max(Counter(parents.values()).values()) == CHILDREN
    place_of = {name: place for place, name in enumerate(names)}
    for two, one in parents.items():
        assert place_of[one] < place_of[two], "a parent is peered with before its children are"
        assert prefix_of(place_of[two]).rpartition(".")[0] == prefix_of(place_of[one])
    assert len({prefix_of(place) for place in range(count)}) == count


def test_no_exchange_of_a_large_one_knows_many() -> None:
    links = links_of(names_of(1_000))
    known = Counter(name for one, two, _ in links for name in (one, two))
    assert max(known.values()) <= CHILDREN + 3


def test_what_is_pulled_is_what_the_own_and_the_pinned_keys_prove() -> None:
    wanted = wanted_of(names_of(200))
    assert set(wanted["x1"]) == {"cn", *(prefix_of(place) for place in range(1, 19) if not is_industry(place))}
    far = 199 if not is_industry(199) else 198
    assert {prefix_of(far), prefix_of(above_of(far))} <= set(wanted[f"x{far + 1}"])
    assert "cn" not in wanted[f"x{far + 1}"]


@pytest.mark.parametrize(("forgetful", "home"), [("x1", "x20"), ("x20", "x2"), ("x4", "x20")])
def test_what_one_exchange_of_a_tree_does_not_hold_is_a_difference(forgetful: str, home: str) -> None:
    """The hub of a city, a city of its region, one region of another's city."""
    world = World(story_of(1, Size(exchanges=20, sites=20, steps=0)))
    world.advance(60_000)  # what came before its delegation is looked at again within half a minute
    assert difference(world) == ""
    kept = world.exchanges[forgetful].disk.state["record"]
    prefix = f"{world.exchanges[home].prefix}.lab{home[1:]}"
    lost = f"{prefix}/dataset/d0"
    del kept[lost]
    assert difference(world) == f"{lost}: {home} has {held_by(world.exchanges[home])[prefix][lost]}, {forgetful} None"
