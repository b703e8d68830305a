"""The attack corpus on pages of logs: what a hostile peer serves, and what must come of it, by name.

A region follows a hub that holds the records of two labs. Every attack ends with a verdict, one word and a reason; and
whatever it was, afterwards the region still holds exactly what the labs signed (`honest`), and nothing else.
"""

from __future__ import annotations

import msgspec
from checkpoint_attacks import (
    checkpoint_of_neighbour,
    checkpoint_of_what_one_did_not_write,
    checkpoint_over_others,
    forged_checkpoint,
    good_checkpoint,
    old_checkpoint,
    page_out_of_range,
    swapped_page,
    withdrawn_checkpoint,
)
from follower_attacks import (
    bad_buckets,
    bad_digest,
    endless_buckets,
    ever_new_sessions,
    followed,
    foreign_in_log,
    grown,
    lying_snapshot,
    many_logs,
    on_digests,
    on_pages,
    paged,
    rolled_back_head,
    rolled_back_log,
    seen,
    stalled,
    with_body,
)
from page_attacks import (
    by_a_liar,
    by_a_stranger,
    bytes_changed,
    equivocated,
    equivocated_in_one_page,
    expired,
    flooded,
    foreign,
    foreign_below,
    garbage,
    key_of_neighbour,
    kid_of_neighbour,
    long_line,
    old_after_new,
    own_prefix_forged,
    own_prefix_older,
    payload_changed,
    reordered,
    repeated,
    replayed,
    resurrected,
    resurrected_by_age,
    statement_as_record,
    tombstone_hidden,
    too_big,
    too_many,
    unknown_delegation,
    unknown_root,
    widened,
)
from page_world import (
    NEIGHBOUR,
    Attack,
    PageWorld,
)

replace = msgspec.structs.replace


ATTACKS = (
    Attack("a page is replayed", "stored=0", replayed),
    Attack("a page is turned round", "stored=26", reordered),
    Attack("every record comes twice", "stored=26", repeated),
    Attack("old revisions follow new ones", "stored=26", old_after_new),
    Attack("a flood over the quota", "stored=14 quota_full=86", flooded),
    Attack("another owner's records in a log", "stored=0 log_foreign=8", foreign),
    Attack("records from below in a log", "stored=0 log_foreign=3", foreign_below),
    Attack("a signature was changed", "stored=25 signature_wrong=1", bytes_changed),
    Attack("forged with a key of one's own", "stored=0 signature_wrong=1", payload_changed),
    Attack("signed by the neighbour", "stored=0 signature_wrong=1", key_of_neighbour),
    Attack("signed in the neighbour's name", "stored=0 kid_prefix=1", kid_of_neighbour),
    Attack("a tombstone is outbid", "stored=0 withdrawn=1", resurrected),
    Attack("a tombstone is replaced by what it ended", "stored=0", resurrected_by_age),
    Attack("a tombstone whose lease is over is hidden", "stored=1", tombstone_hidden),
    Attack("what expired is served", "stored=1 lease_ended=4", expired),
    Attack("two payloads of one revision", "stored=0 proof=1; stored=0 proof=1; kept=1", equivocated),
    Attack("two payloads of one revision in one page", "stored=1 proof=1", equivocated_in_one_page),
    Attack("lines of garbage", "stored=1", garbage),
    Attack("a line beyond all bounds", "stored=1 envelope_size=1", long_line),
    Attack("a statement as a record", "stored=0 header_type=1", statement_as_record),
    Attack("a delegation that widens", "stored=0 delegation_quota=1", widened),
    Attack("a prefix that nobody gave", "stored=0 parked", unknown_delegation),
    Attack("a prefix without a root", "stored=0 root_unknown=1 parked", unknown_root),
    Attack("our own prefix, forged", "stored=0 signature_wrong=1", own_prefix_forged),
    Attack("our own prefix, older", "stored=0", own_prefix_older),
    Attack("a page of too many records", "page_records", too_many),
    Attack("a page of too many bytes", "page_size", too_big),
    Attack("a page of a stranger", "not_found", by_a_stranger),
    Attack("a page of a peer that lied", "peer_rolled_back", by_a_liar),
    Attack("a checkpoint that is good", "stored=26 proved", good_checkpoint),
    Attack("a checkpoint replayed", "stored=26", old_checkpoint),
    Attack("a checkpoint that was withdrawn", "stored=26", withdrawn_checkpoint),
    Attack("a checkpoint forged", "stored=0 signature_wrong=26", forged_checkpoint),
    Attack("a checkpoint by another owner", "stored=0 signature_wrong=26", checkpoint_of_neighbour),
    Attack("a page in the place of another", "stored=0 signature_wrong=10", swapped_page),
    Attack("a page that the checkpoint does not have", "stored=26", page_out_of_range),
    Attack("a checkpoint over others' records", "stored=0 log_foreign=8 proved", checkpoint_over_others),
    Attack("a checkpoint of what one did not write", "signature_wrong", checkpoint_of_what_one_did_not_write),
    Attack("a page cut in a line", "paused page_cut", paged(lambda reply: replace(reply, body=reply.body[:-20]))),
    Attack(
        "a page cut between lines",
        "paused page_count",
        paged(lambda reply: replace(reply, body=b"\n".join(reply.body.split(b"\n")[:-3]) + b"\n")),
    ),
    Attack("a line exchanged on the way", "paused page_digest", paged(lambda reply: replace(reply, sha256="0" * 64))),
    Attack("an endless line", "paused page_size", paged(grown)),
    Attack("more lines than a page", "paused page_records", paged(lambda reply: replace(reply, count=10**9))),
    Attack("another log's page", "paused page_other", paged(lambda reply: replace(reply, prefix=NEIGHBOUR))),
    Attack(
        "a page that never ends",
        "paused page_order",
        paged(lambda reply: with_body(reply, b"", count=0, serial=0, is_last=False)),
    ),
    Attack(
        "a follower is fed another owner's records",
        "blamed peer_foreign",
        lambda world: seen(followed(world, on_pages(foreign_in_log))),
    ),
    Attack("a log that was rolled back", "blamed peer_rolled_back", rolled_back_log),
    Attack("an event log that was rolled back", "blamed peer_rolled_back", rolled_back_head),
    Attack("a new session with every answer", "bounded", ever_new_sessions),
    Attack("logs without end", "bounded", many_logs),
    Attack("a peer that takes questions and says nothing", "paused peer_stalled", stalled),
    Attack("a digest that was cut", "paused page_form", on_digests(bad_digest)),
    Attack("buckets of garbage", "paused page_form", on_digests(bad_buckets)),
    Attack("buckets without end", "paused page_order", on_digests(endless_buckets)),
    Attack("a snapshot that lies about its pages", "paused page_order", lying_snapshot),
)


def outcome(attack: Attack) -> str:
    """What came of it; a world that does not hold what the owners signed is a verdict of its own."""
    world = PageWorld()
    verdict = attack.run(world)
    return world.honest() or verdict
