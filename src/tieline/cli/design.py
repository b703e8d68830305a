"""`network design`: a network from a request, with its proof, its bill of materials and its configuration in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import as_json, as_tieline, hint, note, option, show_json, usage, verb

if TYPE_CHECKING:
    from tieline.model.design import Design, DesignRequest, Proof
    from tieline.model.trafficplan import DemandFile

MOST_PROOFS = 40  # states that a table shows; `--json` and the files give all
NO_ANSWER = 3


@verb("design", "network_design")
@click.argument("request", metavar="REQUEST.yaml|-")
@option("--out", "folder", default=None, type=click.Path(file_okay=False, path_type=Path), help="design_out")
@as_json
@click.pass_context
def design(ctx: click.Context, request: str, folder: Path | None, as_json: bool) -> None:
    """A network that does what is asked, at the least price that could be found; exit code 3 over its budget."""
    from tieline.cli.solver import solving
    from tieline.model.design import DesignRequest
    from tieline.network.blueprint import drawn
    from tieline.network.documents import read

    if folder is not None:
        _check_free(folder)
    content, source = _content(request)
    asked = read(content, DesignRequest, source)
    with solving():
        made = drawn(asked)
    if folder is not None:
        _write(folder, asked, made)
    if as_json:
        show_json(made)
    else:
        _show(asked, made)
        if folder is not None:
            note(words.say("design_written", folder=folder, nodes=len(made.topology.nodes)))
            hint(f"tieline lab up {folder / 'lab.json'}", f"tieline network prove {folder}")
    if not made.is_within_budget:
        ctx.exit(NO_ANSWER)


def _content(file: str) -> tuple[bytes, str]:
    import sys

    from tieline.network.import_values import MOST_BYTES

    if file == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1), "stdin"
    path = Path(file)
    if not path.is_file():
        raise usage(words.say("no_such_file", file=file))
    with path.open("rb") as opened:
        return opened.read(MOST_BYTES + 1), path.name


def _show(asked: DesignRequest, made: Design) -> None:
    from tieline.model.quantity import show_duration, show_money, show_rate

    rows = [
        (
            words.say(f"design_{each.what}"),
            each.name,
            each.where,
            f"{each.count:,}",
            show_money(each.price_micro_cny),
            show_money(each.total_micro_cny),
        )
        for each in made.items
    ]
    table.show(("item", "name", "where", "count", "unit_price", "total"), rows, right=(3, 4, 5))
    click.echo()
    shown = [made.proofs[0], *sorted(made.proofs[1:], key=_tightness)[: MOST_PROOFS - 1]]
    proofs = [
        (
            ", ".join(each.cut) or words.say("design_nothing_cut"),
            show_rate(each.asked_bps),
            show_rate(each.carried_bps),
            show_duration(each.slowest_us),
            f"{each.fullest_ppm // 10_000} %",
        )
        for each in shown
    ]
    table.show(("cut", "wanted", "carried", "slowest", "fullest"), proofs, right=(1, 2, 3, 4))
    if len(made.proofs) > len(shown):
        note(words.say("and_more", count=len(made.proofs) - len(shown)))
    amounts = {"price": show_money(made.price_micro_cny), "least": show_money(made.least_micro_cny)}
    counts = {"nodes": len(made.topology.nodes), "links": len(made.topology.links), "states": len(made.proofs)}
    note(words.say("design_sum", name=made.topology.name, gap=f"{made.gap_ppm / 10_000:.2f} %", **amounts, **counts))
    if not made.is_within_budget:
        key = "design_never" if made.least_micro_cny > asked.budget_micro_cny else "design_over"
        note(words.say(key, budget=show_money(asked.budget_micro_cny), **amounts))


def _tightness(proof: Proof) -> tuple[int, tuple[str, ...]]:
    return -proof.fullest_ppm, proof.cut


def _write(folder: Path, asked: DesignRequest, made: Design) -> None:
    """The files of a design, once all are made, into an empty or new folder: nothing is written over."""
    import os
    import shutil
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    made_at = Path(tempfile.mkdtemp(prefix=f".{folder.name[:50]}.", dir=folder.parent))
    try:
        _fill(made_at, asked, made)
        umask = os.umask(0)
        os.umask(umask)
        made_at.chmod(0o777 & ~umask)
        if folder.exists():  # empty when it was looked at; somebody may stand in it
            for each in sorted(made_at.iterdir()):
                each.rename(folder / each.name)
        else:
            made_at.rename(folder)
    except OSError as error:
        raise as_tieline("conflict", f"`{folder}`: {error.strerror}") from None
    finally:
        shutil.rmtree(made_at, ignore_errors=True)


def _check_free(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise as_tieline("conflict", words.say("design_not_empty", folder=folder))


def _fill(folder: Path, asked: DesignRequest, made: Design) -> None:
    import msgspec

    from tieline.cli.prove import lab_topology
    from tieline.network.configuration import addresses, frr

    plan = addresses(made.topology)
    (folder / "frr").mkdir()
    files = {
        "topology.json": msgspec.json.format(msgspec.json.encode(made.topology), indent=2),
        "design.json": msgspec.json.format(msgspec.json.encode(made), indent=2),
        "addresses.json": msgspec.json.format(msgspec.json.encode(plan), indent=2),
        "lab.json": lab_topology(made),
        "demands.json": msgspec.json.format(msgspec.json.encode(_demands(asked)), indent=2),
        "bill.csv": _bill(made),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content + b"\n")
    for node in plan:
        (folder / "frr" / f"{node.number:02d}-{_file_name(node.node)}.conf").write_text(frr(node))


def _bill(made: Design) -> bytes:
    import csv
    import io

    from tieline.model.quantity import show_money

    def plain(micro_cny: int) -> str:
        return show_money(micro_cny).replace(",", "")

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("what", "name", "where", "count", "price_cny", "total_cny"))
    for each in made.items:
        prices = plain(each.price_micro_cny), plain(each.total_micro_cny)
        rows.writerow((*map(_harmless, (each.what, each.name, each.where)), each.count, *prices))
    rows.writerow(("total", "", "", "", "", plain(made.price_micro_cny)))
    return text.getvalue().rstrip("\n").encode()


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _demands(asked: DesignRequest) -> DemandFile:
    """What is asked, as `network plan` reads it: both directions are two."""
    from tieline.model.trafficplan import DemandFile, PlanDemand

    rows = []
    for each in asked.demands:
        ends = (each.source, each.target)
        for source, target in (ends, ends[::-1])[: 2 if each.both_ways else 1]:
            rows.append(PlanDemand(source=source, target=target, rate_bps=each.rate_bps, latency_us=each.latency_us))
    return DemandFile(demands=tuple(rows))


def _file_name(name: str) -> str:
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in name)[:60]
