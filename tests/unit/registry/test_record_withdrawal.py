"""A withdrawal is final, and may be said again: else whoever believes its key no more would never hear of it."""

from __future__ import annotations

from test_record_trust import Story

from record_world import NOW_S, delegated


def test_a_withdrawal_is_signed_again_after_its_key_was_revoked() -> None:
    story = Story()
    old, new = delegated("cn.lab", "k1"), delegated("cn.lab", "k2")
    assert story.give("cn/owner/lab", old) == "stored"
    assert story.write("cn.lab/dataset/a") == "stored"
    assert story.write("cn.lab/dataset/a", status="withdrawn") == "stored"
    story.now_s += 60
    assert story.give("cn/owner/lab", old | {"revoked_from": NOW_S + 60}, new) == "stored"
    assert story.write("cn.lab/dataset/a", status="withdrawn") == "key_revoked"
    assert story.write("cn.lab/dataset/a", "k2", status="withdrawn") == "stored"
    assert story.standing("cn.lab/dataset/a") == "withdrawn"


def test_nothing_but_a_withdrawal_follows_a_withdrawal() -> None:
    story = Story()
    assert story.give("cn/owner/lab", delegated("cn.lab", "k1")) == "stored"
    assert story.write("cn.lab/dataset/a") == "stored"
    assert story.write("cn.lab/dataset/a", status="withdrawn") == "stored"
    assert story.write("cn.lab/dataset/a", status="active") == "withdrawn"
    assert story.write("cn.lab/dataset/a", status="draining") == "withdrawn"
