"""Two signed heads of one log: what they prove alone, and what a proof between them shows."""

from __future__ import annotations

import msgspec
import pytest

from tieline.model.audit import LogHead
from tieline.model.error import TielineError
from tieline.registry import Key, merkle, sign_statement
from tieline.registry.heads import check_growth, checked_head, contradiction, head_view, sign_head

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
LEAVES = tuple(merkle.leaf_hash(bytes([at])) for at in range(200))


def root_of(size: int) -> bytes:
    frontier = merkle.Frontier()
    frontier.extend(LEAVES[:size])
    return frontier.root()


def hashes(level: int, place: int) -> bytes:
    return merkle.folded(LEAVES[place << level : place + 1 << level])


def head(size: int) -> LogHead:
    return LogHead(exchange="cn.a/exchange/main", size=size, root=root_of(size).hex(), head="ab" * 32, at_ms=size)


def proof(old: int, new: int) -> tuple[str, ...]:
    return tuple(each.hex() for each in merkle.consistency_proof(old, new, hashes))


def test_a_head_says_what_was_signed() -> None:
    statement = sign_head(head(7), KEY, "cn.a#exchange")
    assert checked_head(statement, KEY.public, "cn.a/exchange/main") == head(7)
    assert (head_view(statement).size, head_view(statement).statement) == (7, statement.decode())


@pytest.mark.parametrize("bit", range(0, 1600, 31))
def test_an_altered_head_is_not_believed(bit: int) -> None:
    statement = bytearray(sign_head(head(7), KEY, "cn.a#exchange"))
    statement[bit // 8 % len(statement)] ^= 1 << bit % 8
    with pytest.raises(TielineError):
        checked_head(bytes(statement), KEY.public)


def test_another_key_log_or_kind_of_statement_is_not_believed() -> None:
    statement = sign_head(head(7), KEY, "cn.a#exchange")
    for said, public, exchange in (
        (statement, OTHER.public, ""),
        (sign_head(head(7), OTHER, "cn.a#exchange"), KEY.public, ""),
        (statement, KEY.public, "cn.b/exchange/main"),
        (sign_statement(head(7), KEY, "cn.a#exchange", "log-tail"), KEY.public, ""),
        (sign_statement({"size": 7}, KEY, "cn.a#exchange", "log-head"), KEY.public, ""),
        (sign_head(msgspec.structs.replace(head(7), size=0), KEY, "cn.a#exchange"), KEY.public, ""),
    ):
        with pytest.raises(TielineError) as caught:
            checked_head(said, public, exchange)
        assert caught.value.code == "unauthenticated"


def test_a_log_that_grew_is_believed_with_its_proof() -> None:
    for old in (0, 1, 64, 100, 150):
        assert check_growth(head(old), head(150), proof(old, 150) if old else ()) is None


def test_a_log_that_shrank_or_was_rewritten_is_not() -> None:
    forged = msgspec.structs.replace(head(150), root="cd" * 32)
    said = check_growth(head(150), head(100), proof(100, 150))
    assert said is not None
    assert (said.code, said.values) == ("log_rolled_back", {"seen": 100, "known": 150})
    for old, new, path in (
        (head(100), forged, proof(100, 150)),
        (head(150), forged, ()),
        (head(100), head(150), ()),
        (head(100), head(150), proof(99, 150)),
        (head(100), head(150), ("zz",)),
        (head(100), head(150), ("ab",)),
        (head(0), head(150), proof(100, 150)),
    ):
        found = check_growth(old, new, path)
        assert found is not None
        assert found.code == "log_forked"


def test_a_head_that_is_played_again_is_a_log_that_shrank() -> None:
    assert contradiction(head(100), head(100)) is None
    found = contradiction(head(150), head(100))
    assert found is not None
    assert found.code == "log_rolled_back"
