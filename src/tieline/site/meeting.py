"""Meeting: where the nodes of a gang over several sites find each other: addresses, ports, and who may reach what.

Every node has the same loopback address at every site, so that a program may tell others where it is. A node that
stands here listens at its address itself; for one that stands elsewhere the site process listens in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tieline.model.error import TielineError
from tieline.model.protocol import Member, Part

BLOCKS, FIRST_BLOCK = 224, 16  # of 127.0.0.0/8, all of which is this machine (RFC 1122, section 3.2.1.3)
EACH = 254  # addresses in a row: neither .0 nor .255
NODES_MOST = 256 * EACH
PORTS, FIRST_PORT = 10_000, 20_000  # below those that the kernel gives to callers
LISTENERS_MOST = 512  # of one run: a descriptor each


class Listener(NamedTuple):
    """A node elsewhere, and a port of it that is reached from here."""

    rank: int
    port: int
    site: str


def address_of(number: int, rank: int) -> str:
    """The address of a node. Raises TielineError `unplaceable` for a rank beyond all addresses."""
    if not 0 <= rank < NODES_MOST:
        raise TielineError("unplaceable", f"rank {rank:,} has no address: gangs over sites have {NODES_MOST:,} nodes")
    row, column = divmod(rank, EACH)
    return f"127.{FIRST_BLOCK + number % BLOCKS}.{row}.{column + 1}"


def meeting_port(number: int) -> int:
    """The port at which the first node is met."""
    return FIRST_PORT + number % PORTS


def node_count(part: Part) -> int:
    """Nodes of the whole gang."""
    return sum(each.nodes for each in part.members)


def first_rank(part: Part) -> int:
    """The rank of the first node of this part."""
    return part.members[part.member].rank


def addresses(part: Part) -> list[str]:
    """The address of every node of the gang, by rank."""
    return [address_of(part.number, rank) for rank in range(node_count(part))]


def member_of(part: Part, rank: int) -> Member | None:
    """Whose node has this rank."""
    return next((each for each in part.members if each.rank <= rank < each.rank + each.nodes), None)


def others(part: Part, site: str) -> list[str]:
    """The other sites of the gang, in the order of their ranks."""
    return list(dict.fromkeys(each.site for each in part.members if each.site != site))


def ports_of(part: Part, rank: int) -> tuple[int, ...]:
    """The ports of a node that other sites reach; all meet at the first node alone."""
    meeting = (meeting_port(part.number),) if rank == 0 else ()
    return tuple(dict.fromkeys((*meeting, *part.ports)))


def listeners(part: Part, site: str) -> Iterator[Listener]:
    """What ``site`` listens at in place of nodes elsewhere."""
    for member in part.members:
        if member.site != site:
            for rank in range(member.rank, member.rank + member.nodes):
                for port in ports_of(part, rank):
                    yield Listener(rank, port, member.site)


def checked_part(part: Part, site: str) -> None:
    """Raises TielineError `unplaceable` for a part that no honest exchange makes, or that this machine cannot serve."""
    at, why = 0, ""
    if not 0 <= part.member < len(part.members) or part.members[part.member].site != site:
        why = f"its member {part.member} is none of `{site}`"
    for member in part.members:
        if member.rank != at or member.nodes < 1:
            why = why or f"`{member.run}` begins at rank {member.rank}, not {at}"
        at += member.nodes
    if why:
        raise TielineError("unplaceable", f"the gang makes no sense: {why}")
    count = sum(each.nodes * len(part.ports) for each in part.members if each.site != site) + 1
    if at > NODES_MOST or count > LISTENERS_MOST:
        raise TielineError(
            "unplaceable",
            f"{at:,} nodes with {len(part.ports)} ports take {count:,} listeners here, over {LISTENERS_MOST:,}",
        )
