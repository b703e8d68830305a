"""`network prove`: a designed network in the laboratory: every demand at its rate and latency, every cut survived.

The laboratory is built from the design's own file, its rates scaled down alike. In each state the links are cut, the
lines of the proof stand as circuits all at once, and each is probed and sent through for a second; port counters prove
its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from tieline.cli import table, words
from tieline.cli.face import as_json, as_tieline, note, option, show_json, verb

if TYPE_CHECKING:
    from tieline.drivers.lab.control import LabCircuits, Laboratory
    from tieline.model.circuit import Circuit, Receipt
    from tieline.model.design import Design, Proof, ProofLine

LAB_BPS: Final = 40_000_000  # of the largest link in the laboratory
LEAST_BPS: Final = 100_000  # of a line: less says nothing in a second
GOOD_PERCENT: Final = 95  # of the computed goodput
TURNS: Final = 3  # in which a line may be seen to hold: a busy machine is late by itself
LATE_US: Final = 500  # one way: what user space adds in the laboratory


class LineSeen(NamedTuple):
    """One line as it was seen."""

    cut: tuple[str, ...]
    demand: int
    nodes: tuple[str, ...]
    rate_bps: int  # in the laboratory
    goodput_bps: int
    computed_bps: int
    is_path_proven: bool
    one_way_us: int  # half of the least round trip: an estimate
    latency_us: int
    is_good: bool


@verb("prove", "network_prove")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@option("--lab", "name", default="", help="lab_which")
@as_json
@click.pass_context
def prove(ctx: click.Context, folder: Path, name: str, as_json: bool) -> None:
    """Every state of a design in a laboratory that stands; exit code 1 where one does not hold."""
    import asyncio

    from tieline.cli.lab import _chosen
    from tieline.drivers.lab.control import Laboratory

    design = _design(folder)
    laboratory = Laboratory(_chosen(name or design.topology.name))
    seen = asyncio.run(_proved(laboratory, design, folder))
    if as_json:
        show_json([each._asdict() for each in seen])
    else:
        _show(seen)
    if not all(each.is_good for each in seen):
        ctx.exit(1)


def scale_of(design: Design) -> float:
    """By how much rates are less in the laboratory."""
    most = max(max(link.capacity_bps, link.capacity_back_bps or 0) for link in design.topology.links)
    return max(1.0, most / LAB_BPS)


def lab_topology(design: Design) -> bytes:
    """The file that `tieline lab up` builds, JSON."""
    import msgspec

    scale = scale_of(design)
    links = tuple(
        msgspec.structs.replace(link, capacity_bps=int(link.capacity_bps / scale)) for link in design.topology.links
    )
    made = msgspec.structs.replace(design.topology, links=links)
    return msgspec.json.format(msgspec.json.encode(made), indent=2)


def _design(folder: Path) -> Design:
    import msgspec

    from tieline.model.design import Design

    try:
        return msgspec.json.decode((folder / "design.json").read_bytes(), type=Design)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise as_tieline("invalid_request", words.say("prove_no_design", folder=folder, why=error)) from None


async def _proved(laboratory: Laboratory, design: Design, folder: Path) -> list[LineSeen]:
    from tieline.drivers.lab.control import LabCircuits

    scale = scale_of(design)
    stands = {link.name: link.capacity_bps for link in (await laboratory.show()).links}
    wanted = {link.name: int(link.capacity_bps / scale) for link in design.topology.links}
    if stands != wanted:
        hint = f"tieline lab up {folder / 'lab.json'}"
        raise as_tieline("conflict", words.say("prove_other_lab", name=design.topology.name), hint)
    circuits = LabCircuits(laboratory)
    seen: list[LineSeen] = []
    for proof in design.proofs:
        for link in proof.cut:
            await laboratory.ask("cut", link=link)
        try:
            seen += await _state(circuits, design, proof, scale)
        finally:
            for link in proof.cut:
                await laboratory.ask("restore", link=link)
        note(words.say("prove_state", cut=", ".join(proof.cut) or words.say("design_nothing_cut")))
    return seen


async def _state(circuits: LabCircuits, design: Design, proof: Proof, scale: float) -> list[LineSeen]:
    """One state: all lines stand, then each is looked at. Everything is taken down again."""
    lines = [line for line in proof.lines if line.rate_bps / scale >= LEAST_BPS]
    made = [_circuit(design, at, line, scale) for at, line in enumerate(lines)]
    seen = []
    try:
        await circuits.apply(made)
        for at, (line, circuit) in enumerate(zip(lines, made, strict=True)):
            for turn in range(TURNS):
                receipt = await circuits.verify(circuit, TURNS * at + turn + 1)
                found = _seen(proof, line, receipt, int(line.rate_bps / scale))
                if found.is_good:
                    break
            seen.append(found)
    finally:
        for circuit in made:
            await circuits.withdraw(circuit.id)
    return seen


def _circuit(design: Design, number: int, line: ProofLine, scale: float) -> Circuit:
    from tieline.model.circuit import Circuit, CircuitOrder, Route

    rate = int(line.rate_bps / scale)
    return Circuit(
        id=f"{design.topology.name}/line/{number}",
        order=CircuitOrder(a=line.nodes[0], b=line.nodes[-1], rate_bps=rate),
        user="design",
        route=Route(nodes=line.nodes, links=line.links, delay_us=line.delay_us),
        granted_bps=rate,
    )


def _seen(proof: Proof, line: ProofLine, receipt: Receipt, rate_bps: int) -> LineSeen:
    one_way_us = receipt.min_rtt_us // 2
    is_quick = not line.latency_us or (receipt.min_rtt_us > 0 and one_way_us <= line.latency_us + LATE_US)
    carries = 100 * receipt.goodput_bps >= GOOD_PERCENT * receipt.computed_bps > 0
    return LineSeen(
        cut=proof.cut,
        demand=line.demand,
        nodes=line.nodes,
        rate_bps=rate_bps,
        goodput_bps=receipt.goodput_bps,
        computed_bps=receipt.computed_bps,
        is_path_proven=receipt.is_path_proven,
        one_way_us=one_way_us,
        latency_us=line.latency_us,
        is_good=receipt.is_path_proven and carries and is_quick,
    )


def _show(seen: list[LineSeen]) -> None:
    from tieline.model.quantity import show_duration, show_rate

    rows = [
        (
            ", ".join(each.cut) or words.say("design_nothing_cut"),
            " > ".join(each.nodes),
            show_rate(each.rate_bps),
            f"{100 * each.goodput_bps // max(1, each.computed_bps)} %",
            words.say("yes" if each.is_path_proven else "no"),
            show_duration(each.one_way_us),
            show_duration(each.latency_us) if each.latency_us else "-",
            words.say("yes" if each.is_good else "no"),
        )
        for each in seen
    ]
    columns = ("cut", "paths", "rate", "of_computed", "path_proven", "one_way", "allowed", "holds")
    table.show(columns, rows, right=(2, 3, 5, 6))
    good = sum(each.is_good for each in seen)
    states = len({each.cut for each in seen})
    note(words.say("prove_sum", good=good, lines=len(seen), states=states))
