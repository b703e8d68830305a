"""Where the nodes of a gang meet: one address each, the same everywhere."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.model.protocol import Member, Part
from tieline.site.meeting import (
    LISTENERS_MOST,
    NODES_MOST,
    address_of,
    addresses,
    checked_part,
    first_rank,
    listeners,
    meeting_port,
    member_of,
    others,
    ports_of,
)

NUMBERS = st.integers(0, 65_535)


def part(*nodes: int, member: int = 0, ports: tuple[int, ...] = (29_500,), sites: str = "abcdefgh") -> Part:
    members = tuple(
        Member(run=f"r.{at}", site=sites[at], rank=sum(nodes[:at]), nodes=count) for at, count in enumerate(nodes)
    )
    return Part(member=member, members=members, number=300, ports=ports)


@given(NUMBERS, st.integers(0, NODES_MOST - 1))
def test_an_address_is_this_machine_and_neither_a_network_nor_a_broadcast(number: int, rank: int) -> None:
    where = ipaddress.IPv4Address(address_of(number, rank))
    assert where.is_loopback
    first, block, row, last = where.packed
    assert (first, 16 <= block <= 239, 0 < last < 255) == (127, True, True)
    assert 20_000 <= meeting_port(number) < 30_000
    assert (block - 16, row * 254 + last - 1) == (number % 224, rank)  # another rank, another address


def test_every_node_has_one_and_there_are_no_more() -> None:
    assert addresses(part(1, 2)) == ["127.92.0.1", "127.92.0.2", "127.92.0.3"]
    assert (address_of(0, 253), address_of(0, 254)) == ("127.16.0.254", "127.16.1.1")
    with pytest.raises(TielineError):
        address_of(0, NODES_MOST)
    with pytest.raises(TielineError):
        address_of(0, -1)


def test_a_site_listens_for_nodes_elsewhere_and_all_meet_at_the_first() -> None:
    gang = part(2, 1, 1, ports=(7_000, 20_300), sites="aba")
    assert list(listeners(gang, "a")) == [(2, 7_000, "b"), (2, 20_300, "b")]
    assert list(listeners(gang, "b")) == [
        (0, 20_300, "a"), (0, 7_000, "a"), (1, 7_000, "a"), (1, 20_300, "a"), (3, 7_000, "a"), (3, 20_300, "a"),
    ]  # fmt: skip
    assert ports_of(gang, 0) == (20_300, 7_000)  # the meeting port may be one of those that are named
    assert (others(gang, "a"), others(gang, "b")) == (["b"], ["a"])
    found = [member_of(gang, rank) for rank in (0, 1, 2, 3, 4)]
    assert [each.run if each else "" for each in found] == ["r.0", "r.0", "r.1", "r.2", ""]
    assert first_rank(part(2, 1, member=1)) == 2


def test_a_part_that_nobody_could_serve_is_refused() -> None:
    checked_part(part(1, 1), "a")
    checked_part(part(1, LISTENERS_MOST - 1), "a")
    for wrong, site in (
        (part(1, 1), "b"),  # its member is another site's
        (part(1, 1, member=2), "a"),
        (part(1, 1, member=-1), "b"),
        (part(1, LISTENERS_MOST), "a"),
        (part(1, 1, 0), "a"),
        (part(NODES_MOST, 1, ports=()), "a"),
        (Part(member=0, members=(Member(run="r", site="a", rank=1, nodes=1),), number=0), "a"),
    ):
        with pytest.raises(TielineError) as caught:
            checked_part(wrong, site)
        assert caught.value.code == "unplaceable"
