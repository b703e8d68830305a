"""Find against SQL: the same rows in SQLite, the query as a WHERE clause with NULL for unknown, the same answers."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from tieline.find import Index, find, prepare
from tieline.find.narrow import narrow
from tieline.find.posting import tie
from tieline.language import Context, compile_query
from tieline.language.tree import Among, AmongSet, And, Compare, Contains, Not, Or, Relate

COLUMNS = {
    "kind": "text",
    "owner": "text",
    "tier": "text",
    "accelerator": "text",
    "price": "integer",
    "free": "integer",
    "count": "integer",
    "memory": "integer",
    "size": "integer",
    "is_emulated": "integer",
    "tags": "text",
    "label": "text",
    "rtt": "integer",
    "tie": "integer",
}
SETS = {"partners": ["cn.a", "cn.b"], "nobody": []}
SITES = {"s1": 300, "s2": 900, "s3": 5_000, "s4": None}


@pytest.fixture(params=["small", "as if large"], autouse=True)
def size(request, monkeypatch):
    """Postings that merge, span and chunk as those of a million rows do, or that live in their tails."""
    if request.param == "as if large":
        for place, value in {
            "posting.MAX_TAIL": 20,
            "posting.MAX_PROJECTIONS": 8,
            "count.SMALL": 6,
            "count.CHUNK": 7,
            "prepared.CHUNK": 9,
            "prepared.LEAST_SPAN": 2,
            "prepared.KEPT_AFTER": 2,
            "order.SLACK": 0,
        }.items():
            monkeypatch.setattr(f"tieline.find.{place}", value)


def random_row(chance, number):
    """A pool or a dataset of which some values are not known."""

    def maybe(value, share=0.8):
        return value if chance.random() < share else None

    if chance.random() < 0.15:
        return {
            "id": f"cn.a/dataset/d{number}",
            "kind": "dataset",
            "owner": "cn.a",
            "size": maybe(chance.randrange(5) * 10**9),
            "tags": maybe(tuple(sorted(chance.sample(["green", "fast", "new"], chance.randrange(3))))),
        }
    return {
        "id": f"cn.a/pool/p{number}",
        "kind": "pool",
        "owner": maybe(chance.choice(["cn.a", "cn.b", "cn.c"]), 0.9),
        "site": maybe(chance.choice(list(SITES)), 0.9),
        "tier": maybe(chance.choice(["hub", "region", "edge"])),
        "accelerator": maybe(chance.choice(["a100", "h20", "ascend-910b"]), 0.9),
        "price": maybe(chance.randrange(6) * 5_000_000),
        "free": maybe(chance.randrange(9)),
        "count": maybe(chance.choice([4, 8]), 0.9),
        "memory": maybe(chance.randrange(4) * 10**9),
        "is_emulated": maybe(chance.random() < 0.3),
        "tags": maybe(tuple(sorted(chance.sample(["green", "fast", "new"], chance.randrange(3))))),
        "label": maybe({"rack": chance.choice(["r1", "r2"])} if chance.random() < 0.7 else {}),
    }


LEAVES = [
    "price < 15",
    "price >= 10",
    "price <= 15",
    "5 < price",
    "price in [5, 20]",
    "price != 10",
    "free >= 3",
    "free == count",
    "free < count",
    "memory > 1GB",
    "count == 8",
    "tier == hub",
    "tier != edge",
    "tier in [hub, region]",
    "tier not in [hub]",
    "accelerator == a100",
    "accelerator in [a100, h20]",
    "accelerator != h20",
    "owner in partners",
    "owner not in partners",
    "owner in nobody",
    "is_emulated",
    "is_emulated != true",
    "has(green)",
    "fast not in tags",
    "label(rack) == r1",
    "label(rack) != r1",
    "rtt(here) < 1ms",
    "rtt(here) > 0.5ms",
    "size > 1GB",
    "kind == pool",
    "kind in [pool, dataset]",
]


def random_query(chance, depth=2):
    """Some terms joined by and, each possibly a small tree."""

    def part(left):
        if left == 0 or chance.random() < 0.5:
            return chance.choice(LEAVES)
        if chance.random() < 0.3:
            return f"not ({part(left - 1)})"
        join = chance.choice([" and ", " or "])
        return "(" + join.join(part(left - 1) for _ in range(2)) + ")"

    return " and ".join(part(depth) for _ in range(chance.randrange(4)))


def to_sql(node):
    """The tree as SQL: NULL is unknown, and SQL's logic is Kleene's."""
    if isinstance(node, And):
        return "(" + " AND ".join(map(to_sql, node.items)) + ")" if node.items else "1"
    if isinstance(node, Or):
        return "(" + " OR ".join(map(to_sql, node.items)) + ")"
    if isinstance(node, Not):
        return f"(NOT {to_sql(node.item)})"
    if isinstance(node, Relate):
        return f"({column(node.left)} {node.op} {column(node.right)})"
    if isinstance(node, Contains):
        name = column(node.ref)
        inside = f"EXISTS (SELECT 1 FROM json_each({name}) WHERE value = {literal(node.word)})"
        return f"(CASE WHEN {name} IS NULL THEN NULL ELSE {inside} END)"
    if isinstance(node, Compare):
        return f"({column(node.ref)} {node.op} {literal(node.value)})"
    values = node.values if isinstance(node, Among) else SETS[node.name]
    assert isinstance(node, Among | AmongSet)
    if not values:  # SQLite finds false, without looking at the value
        return f"(CASE WHEN {column(node.ref)} IS NULL THEN NULL ELSE 0 END)"
    return f"({column(node.ref)} IN ({', '.join(map(literal, values))}))"


def column(ref):
    if ref.name == "label":
        return f"(label ->> '$.{ref.argument}')"
    return '"rtt"' if ref.name == "rtt" else f'"{ref.name}"'


def literal(value):
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def readings(function, point, sites):
    known = np.array([SITES.get(site) is not None for site in sites])
    return np.array([SITES.get(site) or 0 for site in sites]), known


def world(chance, count):
    """The same rows as an index and as a database. Some rows are changed and removed on the way to the index."""
    index, rows = Index(), [random_row(chance, number) for number in range(count)]
    for row in rows:
        if chance.random() < 0.3:
            index.put({**row, "price": 1, "accelerator": "t4"} if row["kind"] == "pool" else row)
        index.put(row)
        if chance.random() < 0.2:
            index.remove(row["id"])
            index.put(row)
    database = sqlite3.connect(":memory:")
    columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
    database.execute(f"CREATE TABLE offers (id text PRIMARY KEY, {columns})")
    for row in rows:
        store(database, row)
    return index, database, rows


def store(database, row):
    """Insert or replace one row."""
    values = {**row, "tie": tie(row["id"]), "rtt": SITES.get(row.get("site"))}
    for name in ("tags", "label"):
        values[name] = None if row.get(name) is None else json.dumps(row[name])
    database.execute(
        f"INSERT OR REPLACE INTO offers VALUES ({', '.join('?' * (len(COLUMNS) + 1))})",
        [row["id"], *(values.get(name) for name in COLUMNS)],
    )


def change(chance, index, database, rows):
    """Some rows get another number of free cards, another price, another everything, or go."""
    pools = [row for row in rows if row["kind"] == "pool"]
    what = chance.choice(["free", "free", "price", "all", "gone"])
    touched = chance.sample(pools, len(pools) // 6)
    if what == "free":
        for row in touched:
            row["free"] = chance.randrange(9)
        index.set_free([row["id"] for row in touched], free=[row["free"] for row in touched])
    for row in touched:
        if what == "price":
            row["price"] = chance.choice([None, 5_000_000, 12_000_000])
            index.update(row["id"], {"price": row["price"]})
        elif what == "all":
            another = random_row(chance, 0)
            row.update({name: another.get(name) for name in row if name not in ("id", "kind", "price")})
            index.put(row)
        elif what == "gone" and chance.random() < 0.3:
            index.remove(row["id"])
            database.execute("DELETE FROM offers WHERE id = ?", [row["id"]])
            rows.remove(row)
    for row in rows:
        store(database, row)


def in_sql(database, query):
    """Identifiers in the order of price, ties by hash."""
    kinds = ", ".join(map(literal, sorted(query.kinds))) or "''"
    where = f"kind IN ({kinds}) AND {to_sql(query.node)}"
    rows = database.execute(f"SELECT id FROM offers WHERE {where} ORDER BY price IS NULL, price, tie")
    return [row[0] for row in rows]


@pytest.mark.parametrize(("seed", "count"), [(0, 0), (1, 1), (2, 30), *((seed, 150) for seed in range(3, 10))])
def test_answers_counts_and_order_are_those_of_sql(seed, count):
    chance = random.Random(seed)
    context = Context(sets=SETS, readings=readings)
    index, database, rows = world(chance, count)
    kept = []
    with closing(database):
        for turn in range(100):
            if turn % 3 == 2:
                change(chance, index, database, rows)
            query = compile_query(random_query(chance))
            matching = in_sql(database, query)
            answer = find(index, query, limit=1_000, context=context)
            assert [offer.id for offer in answer.offers] == matching, query
            considered, counts = counted_by_sql(database, query)
            assert answer.considered == considered
            assert {
                (reason.code, reason.values["term"]): reason.count
                for reason in answer.reasons
                if reason.code != "query_no_kind"
            } == counts, query
            kept.append(prepare(index, query, context=context))
            for prepared in (kept[-1], chance.choice(kept)):  # old ones follow the changes
                expected = in_sql(database, prepared.expression)
                for wanted in (1, 5, 1_000):
                    assert prepared.ids(wanted) == expected[:wanted], prepared.expression


def counted_by_sql(database, query):
    """How many rows are considered, how many fail each term first, and how many stop at it as unknown."""
    kinds = ", ".join(map(literal, sorted(query.kinds))) or "''"
    terms = narrow(query).every
    false = " ".join(f"WHEN NOT {to_sql(term.node)} THEN {2 * at}" for at, term in enumerate(terms))
    unknown = " ".join(f"WHEN {to_sql(term.node)} IS NULL THEN {2 * at + 1}" for at, term in enumerate(terms))
    lost = f"CASE {false} {unknown} ELSE -1 END" if terms else "-1"
    rows = database.execute(
        f"SELECT {lost} AS lost, count(*) FROM offers WHERE kind IN ({kinds}) GROUP BY lost"
    ).fetchall()
    found = {}
    for at, number in rows:
        if at >= 0:
            key = "query_unknown" if at % 2 else "query_not_met", terms[at // 2].text
            found[key] = found.get(key, 0) + number
    return sum(number for _, number in rows), found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("order", "sql"),
    [
        ("free", "free IS NULL, -free, tie"),
        ("newest", "tie"),
        ("count + 0.5 * price", "count + 0.5 * price / 1e6 IS NULL, count + 0.5 * price / 1e6, tie"),
        ("price + 2 * rtt(here)", "price + rtt IS NULL, price / 1e6 + 2 * rtt / 1e3, tie"),
        ("memory - price", "memory - price IS NULL, memory / 1e9 - price / 1e6, tie"),
    ],
)
def test_every_order_is_that_of_sql(seed, order, sql):
    chance = random.Random(seed)
    context = Context(sets=SETS, readings=readings)
    index, database, _ = world(chance, 150)
    with closing(database):
        for text in ("", "kind == pool", "price < 20 and tier in [hub, edge]"):
            query = compile_query(text)
            matching = database.execute(f"SELECT id FROM offers WHERE {to_sql(query.node)} ORDER BY {sql}").fetchall()
            for limit in (3, 40, 1_000):
                answer = find(index, query, order=order, limit=limit, context=context)
                assert [offer.id for offer in answer.offers] == [row[0] for row in matching[:limit]]
