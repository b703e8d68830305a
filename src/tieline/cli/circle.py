"""`circle`: which sites are within a time of a place, how much of a region has compute so near, what to build for more.

An exchange answers, or a file of readings does (`--readings`), by the same code. Plans are computed in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Decorator,
    Face,
    Verbs,
    as_json,
    as_tieline,
    hint,
    note,
    option,
    pass_context,
    pass_face,
    show_json,
    usage,
    verb,
)

if TYPE_CHECKING:
    from tieline.model.circle import AccessPoint, Circle, Coverage, CoverageView, Measure, Member, PointStanding
    from tieline.model.improvement import CandidateFile, Improvement, PlanCheck
    from tieline.model.topology import Topology

F = TypeVar("F", bound=Callable[..., Any])
MOST_FILE_BYTES = 64 * 2**20
MOST_NODES = 10_000_000
MOST_NAMED = 5
FULL_PPM = 1_000_000
OPTIONS = {"place": "of", "is_round_trip": "one-way", "as_json": "json"}  # parameters whose option has another name


def measured(command: F) -> F:
    """The options that say what decides."""
    options: tuple[Decorator, ...] = (
        option("--within", default="1ms", metavar="TIME", show_default=True, help="circle_within"),
        option("--round-trip/--one-way", "is_round_trip", default=True, help="circle_one_way"),
        option("--quantile", default="p50", type=click.Choice(["p50", "p99"]), help="circle_quantile"),
        option("--age", default="1h", metavar="TIME", show_default=True, help="circle_age"),
        option("--readings", default="", metavar="FILE", help="circle_readings"),
    )
    for each in reversed(options):
        command = each(command)
    return command


@click.group("circle", cls=Verbs, help="circle", invoke_without_command=True)
@option("--of", "place", default="", metavar="PLACE", help="circle_of")
@measured
@as_json
@pass_context
def circle(ctx: click.Context, place: str, readings: str, as_json: bool, **stated: Any) -> None:
    """The circle of a place."""
    if ctx.invoked_subcommand is not None:
        _refuse_before(ctx)
        return
    if not place:
        raise usage(words.say("circle_needs_place"))
    measure = _measure(**stated)
    found = _circle_here(place, measure, readings) if readings else _circle_there(ctx.obj, place, measure)
    if as_json:
        show_json(found)
        return
    _show_circle(found)


@verb("coverage", "circle_coverage")
@option("--points", default="", metavar="FILE", help="circle_points")
@measured
@option("--to", "target", default="75%", metavar="SHARE", show_default=True, help="circle_to")
@option("--map", "drawing", default="", metavar="FILE", help="circle_map")
@option("--every/--by-region", "is_every", default=False, help="circle_every")
@as_json
@pass_face
def coverage(
    face: Face, points: str, target: str, drawing: str, is_every: bool, readings: str, as_json: bool, **stated: Any
) -> None:
    """The covered share of access points."""
    seen = _coverage(face, points, _measure(**stated), _ppm(target), readings)
    if drawing:
        from tieline.network.coveragemap import drawn

        Path(drawing).write_text(drawn(seen, _map_words()), encoding="utf-8")
    if as_json:
        show_json(seen)
    else:
        _show_coverage(seen, is_every=is_every)
    if drawing:
        note(words.say("circle_mapped", path=drawing))


@verb("improve", "circle_improve")
@option("--points", default="", metavar="FILE", help="circle_points")
@option("--candidates", required=True, metavar="FILE", help="circle_candidates")
@measured
@option("--to", "target", default="", metavar="SHARE", help="circle_to")
@option("--budget", default="", metavar="CNY", help="circle_budget")
@option("--topology", default="", metavar="FILE", help="circle_topology")
@option("--out", default="", metavar="FILE", help="circle_out")
@option("--check", default="", metavar="FILE", help="circle_check")
@option("--nodes", default=20_000, type=click.IntRange(1, MOST_NODES), help="circle_nodes")
@as_json
@pass_face
def improve(
    face: Face,
    points: str,
    candidates: str,
    target: str,
    budget: str,
    topology: str,
    out: str,
    check: str,
    nodes: int,
    readings: str,
    as_json: bool,
    **stated: Any,
) -> None:
    """A plan to review."""
    from tieline.network.circlefile import candidates_of, plan_of

    file = candidates_of(_content(candidates), candidates)
    measure = _measure(**stated)
    said = plan_of(_content(check), check) if check else None
    if said is not None:
        measure = said.measure
        target_ppm, budget_micro_cny = said.target_ppm, said.budget_micro_cny
    else:
        target_ppm, budget_micro_cny = _aim(target, budget)
    seen = _coverage(face, points, measure, target_ppm or FULL_PPM, readings)
    over = _topology(face, topology, file, is_offline=bool(readings))
    if said is not None:
        _show_check(_checked(said, seen, file, over, nodes), as_json=as_json)
        return
    plan = _planned(seen, file, over, target_ppm, budget_micro_cny, nodes)
    if out:
        Path(out).write_text(_as_yaml(plan), encoding="utf-8")
    if as_json:
        show_json(plan)
    else:
        _show_plan(plan)
    if out:
        note(words.say("circle_plan_written", path=out))
        from_here = f" --points {points}" * bool(points) + f" --readings {readings}" * bool(readings)
        hint(f"tieline circle improve{from_here} --candidates {candidates} --check {out}")


for _each in (coverage, improve):
    circle.add_command(_each)


def _refuse_before(ctx: click.Context) -> None:
    """Options of a circle that stand before a verb of its own would be lost."""
    for name in ctx.params:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            said = OPTIONS.get(name, name)
            raise usage(words.say("circle_option_after", option=f"--{said}", verb=ctx.invoked_subcommand or ""))


# -- what is asked ----------------------------------------------------------------------------------------------------


def _measure(within: str, is_round_trip: bool, quantile: str, age: str) -> Measure:
    import msgspec

    from tieline.model.circle import Measure
    from tieline.model.quantity import TIME_US, scaled

    times = {}
    for name, text, unit in (("--within", within, "ms"), ("--age", age, "s")):
        try:
            times[name] = scaled(text, TIME_US, unit)
        except ValueError as error:
            raise usage(f"{name}: {error}") from None
        if not times[name]:
            raise usage(f"{name}: `{text}` is no time above zero")
    stated = {
        "within_us": times["--within"],
        "bound": "round_trip" if is_round_trip else "one_way",
        "quantile": quantile,
        "most_age_ms": times["--age"] // 1_000,
    }
    try:
        return msgspec.convert(stated, Measure)
    except msgspec.ValidationError as error:
        raise as_tieline("invalid_request", str(error)[:1].lower() + str(error)[1:]) from None


def _ppm(text: str) -> int:
    """``75%`` or ``75`` -> 750000."""
    from tieline.model.quantity import scaled

    try:
        share_ppm = scaled(text, {"%": 10_000}, "%")
    except ValueError as error:
        raise usage(f"--to: {error}") from None
    if share_ppm > FULL_PPM:
        raise usage(f"--to: {text} > 100%")
    return share_ppm


def _aim(target: str, budget: str) -> tuple[int | None, int | None]:
    """The target, or the budget in micro-yuan."""
    from tieline.model.quantity import money_micro_cny

    if target and budget:
        raise usage(words.say("circle_one_aim"))
    if not budget:
        return _ppm(target or "75%"), None
    try:
        return None, money_micro_cny(budget)
    except ValueError as error:
        raise usage(f"--budget: {error}") from None


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        content = file.read(MOST_FILE_BYTES + 1)
    if len(content) > MOST_FILE_BYTES:
        raise as_tieline("too_large", f"`{path}` has more than {MOST_FILE_BYTES:,} bytes")
    return content


def _circle_there(face: Face, place: str, measure: Measure) -> Circle:
    return face.call(lambda client: client.circle(place, measure))


def _circle_here(place: str, measure: Measure, readings: str) -> Circle:
    from tieline.network.circle import circle_of
    from tieline.network.circlefile import readings_of
    from tieline.network.coverage import place_of

    file = readings_of(_content(readings), readings)
    sites = [*(site.site for site in file.sites), *file.idle]
    places = {site.site: stands for site in file.sites if (stands := place_of(site)) is not None}
    return circle_of((place,), measure, sites, file.readings, places, file.as_of_ms)


def _coverage(face: Face, points: str, measure: Measure, target_ppm: int, readings: str) -> CoverageView:
    from tieline.network.circlefile import points_of

    asked: tuple[AccessPoint, ...] = points_of(_content(points), points) if points else ()
    if not readings:
        return face.call(lambda client: client.coverage(measure, asked, target_ppm=target_ppm))
    if not asked:
        raise usage(words.say("circle_needs_points"))
    from tieline.network.circlefile import readings_of
    from tieline.network.coverage import coverage_of

    file = readings_of(_content(readings), readings)
    return coverage_of(asked, file.sites, file.readings, measure, file.as_of_ms, target_ppm, file.idle)


def _topology(face: Face, path: str, file: CandidateFile, *, is_offline: bool) -> Topology | None:
    """The topology of a file, or the exchange's where candidates need one."""
    from tieline.model.error import TielineError

    if path:
        from tieline.network.topologyfile import read as read_topology

        return read_topology(_content(path), path).topology
    if is_offline or not any(each.node or each.a for each in file.candidates):
        return None
    try:
        return face.call(lambda client: client.topology()).topology
    except TielineError as error:
        if error.code != "not_found":
            raise
        return None


def _planned(
    seen: CoverageView,
    file: CandidateFile,
    topology: Topology | None,
    target_ppm: int | None,
    budget_micro_cny: int | None,
    nodes: int,
) -> Improvement:
    from tieline.cli.solver import solving
    from tieline.network.improve import improved

    with solving():
        plan = improved(
            seen,
            file.candidates,
            target_ppm=target_ppm,
            budget_micro_cny=budget_micro_cny,
            topology=topology,
            assumptions=file.assumptions,
            nodes=nodes,
        )
    return _with_inputs(plan, seen, file)


def _with_inputs(plan: Improvement, seen: CoverageView, file: CandidateFile) -> Improvement:
    """The same with the digests of what it was made from."""
    import msgspec

    from tieline.model.circle import AccessPoint
    from tieline.network.circlefile import sha256_of

    fields = AccessPoint.__struct_fields__
    points = [{name: getattr(point, name) for name in fields} for point in seen.points]
    return msgspec.structs.replace(
        plan,
        points_sha256=sha256_of(points),
        candidates_sha256=sha256_of(file),
        readings_sha256=sha256_of(seen.readings),
    )


def _checked(
    said: Improvement, seen: CoverageView, file: CandidateFile, topology: Topology | None, nodes: int
) -> PlanCheck:
    """A plan against the files and readings of now; where these are the same, against the whole computation."""
    import msgspec

    from tieline.network.improve import recounted

    check = recounted(said, seen, file.candidates, topology=topology, assumptions=file.assumptions)
    inputs = ("points_sha256", "candidates_sha256", "readings_sha256")
    now = _with_inputs(said, seen, file)
    changed = tuple(name.partition("_")[0] for name in inputs if getattr(now, name) != getattr(said, name))
    problems = list(check.problems)
    if not changed and not problems:
        found = _planned(seen, file, topology, said.target_ppm, said.budget_micro_cny, nodes)
        problems += [
            f"{name}: the plan says {getattr(said, name)}, it is {getattr(found, name)}"[:400]
            for name in found.__struct_fields__
            if name != "as_of_ms" and getattr(said, name) != getattr(found, name)
        ]
    return msgspec.structs.replace(check, problems=tuple(problems), changed=changed)


# -- what is shown ----------------------------------------------------------------------------------------------------


def _bound(measure: Measure) -> str:
    return words.say(f"circle_{measure.bound.value}")


def _percent(ppm: int) -> str:
    """754321 -> ``75.43 %``, rounded down."""
    return f"{ppm // 10_000}.{ppm % 10_000 // 100:02d} %"


def _named(names: tuple[str, ...]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" … +{more}" if more > 0 else "")


def _times(known: Member | PointStanding) -> tuple[str, str]:
    """Both directions, with `~` where they are half of the round trip."""
    from tieline.model.quantity import show_duration

    if not known.p50_us:
        return "-", "-"
    mark = "~" if known.one_way == "half" else ""
    return mark + show_duration(known.there_us), mark + show_duration(known.back_us)


def _show_circle(found: Circle) -> None:
    from tieline.model.quantity import show_duration

    members = (*found.inside, *found.outside, *found.unknown)
    columns: tuple[str, ...] = ("site", "standing", "round_trip", "there", "back", "age", "evidence", "why")
    rows = [_member_row(each, found.as_of_ms) for each in members]
    if any(each.via for each in members):
        columns = (*columns, "via")
        rows = [(*row, each.via or "-") for row, each in zip(rows, members, strict=True)]
    table.show(columns, rows, right=(3, 4, 5))
    measure = found.measure
    counts = {
        "inside": len(found.inside), "outside": len(found.outside), "unknown": len(found.unknown),
    }  # fmt: skip
    within = show_duration(measure.within_us)
    note(
        words.say(
            "circle_sum",
            place=found.place,
            within=within,
            bound=_bound(measure),
            quantile=measure.quantile.value,
            **counts,
        )
    )
    estimates = sum(each.is_estimate for each in found.inside)
    if estimates:
        note("  " + words.say("circle_estimates", count=estimates))
    if any(each.one_way == "half" for each in members):
        note("  " + words.say("circle_half"))
    if found.measure_next:
        note("  " + words.say("circle_next", sites=_named(found.measure_next)))
    if any(each.evidence == "emulated" for each in members):
        note("  " + words.say("circle_emulated"))


def _member_row(member: Member, as_of_ms: int) -> tuple[str, ...]:
    from tieline.model.quantity import show_duration
    from tieline.model.reason import sentence

    trip, age = "-", "-"
    if member.readings:
        trip = " / ".join(show_duration(each) for each in (member.min_us, member.p50_us, member.p99_us))
        age = table.age(max(0, as_of_ms - min(each.ended_ms for each in member.readings)))
    standing = "estimated" if member.is_estimate else member.standing.value
    return (
        member.site,
        words.say(f"circle_is_{standing}"),
        trip,
        *_times(member),
        age,
        words.term("evidence", member.evidence.value),
        sentence(member.why, words.language()) if member.why is not None else "-",
    )


def _show_coverage(seen: CoverageView, *, is_every: bool) -> None:
    from tieline.model.quantity import show_duration

    if is_every:
        columns: tuple[str, ...] = ("point", "region", "weight", "standing", "site", "round_trip", "there", "back")
        table.show(columns, [_point_row(each) for each in seen.points], right=(2, 6, 7))
    else:
        columns = ("region", "points", "weight", "covered", "estimated", "outside", "unknown", "share")
        rows = [_region_row(each, each.region or "-") for each in seen.regions]
        if len(rows) > 1:
            rows.append(_region_row(seen.whole, words.say("circle_whole")))
        table.show(columns, rows, right=tuple(range(1, 8)))
    whole = seen.whole
    said = words.say(
        "circle_covered",
        share=_percent(whole.share_ppm),
        weight=f"{whole.weight:,}",
        within=show_duration(seen.measure.within_us),
        bound=_bound(seen.measure),
        target=_percent(seen.target_ppm),
        reached=words.say("circle_reached" if seen.is_reached else "circle_missed"),
    )
    note(said)
    if whole.estimated:
        part = _percent(whole.estimated * FULL_PPM // whole.weight)
        note("  " + words.say("circle_estimated_rest", estimated=part))
    if whole.unknown:
        note("  " + words.say("circle_unknown_rest", unknown=_percent(whole.unknown * FULL_PPM // whole.weight)))
    if seen.evidence == "emulated":
        note("  " + words.say("circle_emulated"))


def _region_row(each: Coverage, name: str) -> tuple[str, ...]:
    counts = (each.points, each.weight, each.covered, each.estimated, each.outside, each.unknown)
    return (name, *(f"{count:,}" for count in counts), _percent(each.share_ppm))


def _point_row(each: PointStanding) -> tuple[str, ...]:
    from tieline.model.quantity import show_duration

    standing = "estimated" if each.is_estimate else each.standing.value
    trip = f"{show_duration(each.p50_us)} / {show_duration(each.p99_us)}" if each.p50_us else "-"
    said = words.say(f"circle_is_{standing}")
    return (each.point, each.region or "-", f"{each.weight:,}", said, each.site or "-", trip, *_times(each))


def _map_words() -> dict[str, str]:
    """The words of a map in the reader's language."""
    from tieline.network.coveragemap import WORDS

    if words.language() != "zh":
        return {}
    chinese = {
        "title": "{within}（{bound}）内可达算力：{points} 个接入点按权重计 {share}，目标 {target}",
        "round_trip": "往返",
        "one_way": "单向",
        "inside": "圈内",
        "estimated": "估算圈内",
        "outside": "圈外",
        "unknown": "未知",
        "site": "有算力的节点",
        "unplaced": "无位置未绘出：{count}",
        "rest": "另有 {count} 个",
    }
    assert chinese.keys() == WORDS.keys()
    return chinese


def _show_plan(plan: Improvement) -> None:
    from tieline.model.quantity import show_money

    rows = [
        (each.name, words.word(each.kind.value), show_money(each.cost_micro_cny), f"{each.loses_weight:,}")
        for each in plan.chosen
    ]
    if rows:
        table.show(("candidate", "kind", "cost", "loses"), rows, right=(2, 3))
    before, after = _percent(plan.before.share_ppm), _percent(plan.expected_ppm)
    if not rows:
        note(words.say("circle_plan_none", before=before))
    else:
        counts = {"count": len(rows), "candidates": plan.candidates}
        note(words.say("circle_plan", cost=show_money(plan.cost_micro_cny), before=before, after=after, **counts))
        proven = "circle_plan_best" if plan.target_ppm is not None else "circle_plan_most"
        note("  " + (words.say("circle_plan_gap", gap=_percent(plan.gap_ppm)) if plan.gap_ppm else words.say(proven)))
        note("  " + words.say("circle_plan_expected"))
    if plan.measure_first:
        note("  " + words.say("circle_plan_first", points=_named(plan.measure_first)))


def _as_yaml(plan: Improvement) -> str:
    """The plan as a file to review: what it says in a sentence, then every field."""
    import msgspec
    import yaml

    from tieline.model.quantity import show_money

    head = (
        f"# {show_money(plan.cost_micro_cny)} CNY: {_percent(plan.before.share_ppm)} now, "
        f"{_percent(plan.expected_ppm)} expected; gap to the best at most {_percent(plan.gap_ppm)}.\n"
        "# What is expected was not measured: what is measured after building decides.\n"
    )
    tree = msgspec.json.decode(msgspec.json.encode(plan))
    return head + str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def _show_check(check: PlanCheck, *, as_json: bool) -> None:
    """What was found; a problem is a failure."""
    if as_json:
        show_json(check)
    else:
        for name in check.changed:
            note(words.say(f"circle_changed_{name}"))
        shares = {"measured": _percent(check.measured_ppm), "expected": _percent(check.expected_ppm)}
        note(words.say("circle_check", **shares))
        for problem in check.problems:
            note("  " + problem)
    if check.problems:
        raise as_tieline("check_failed", f"the plan does not hold: {len(check.problems)} problems")
    if not as_json:
        note(words.say("circle_check_same" if not check.changed else "circle_check_holds"))
