"""What a run is told of the transfers that were booked for its data."""

from pathlib import Path

from tieline.drivers.siteprocess.launching import launches
from tieline.model.protocol import Member, Offer, Part
from tieline.model.task import Resources, Task
from tieline.model.transfer import Transfer, TransferOrder
from tieline.site import Held
from tieline.site.configuration import SiteLimits
from tieline.site.state import Phase


def told(folder: Path, *transfers: Transfer) -> dict[str, str]:
    task = Task(name="t", run="true", resources=(Resources(core_count=1),))
    offer = Offer(
        run="r",
        job="cn.a/job/j",
        epoch=1,
        pool="p",
        task=task,
        alternative=0,
        user="u",
        core_count=1,
        transfers=transfers,
    )
    held = Held(offer=offer, phase=next(iter(Phase)))
    (launch,) = launches(held, str(folder), None, SiteLimits(), {}, holds_memory=False)
    return dict(launch.envs)


def a_transfer(name: str, label: str) -> Transfer:
    return Transfer(id=name, order=TransferOrder(source="a", target="b", size_bytes=1, label=label), user="u", run="r")


def test_each_transfer_is_a_line_whatever_the_data_is_called(tmp_path: Path) -> None:
    envs = told(tmp_path, a_transfer("t-1", "cn.a/dataset/d"), a_transfer("t-2", "of two\nlines"))
    assert envs["TIELINE_TRANSFERS"] == "t-1 cn.a/dataset/d\nt-2 of two lines"


def test_without_one_nothing_is_said(tmp_path: Path) -> None:
    assert "TIELINE_TRANSFERS" not in told(tmp_path)


def test_a_node_of_a_gang_over_several_sites_is_told_of_the_whole_gang(tmp_path: Path) -> None:
    members = (
        Member(run="r", site="a", rank=0, nodes=2),
        Member(run="r.1", site="b", rank=2, nodes=2),
    )
    task = Task(name="t", run="true", nodes=2, resources=(Resources(core_count=1),))
    part = Part(member=1, members=members, number=225, ports=(7_000,), circuits=("c-1", "c-2"))
    offer = Offer(
        run="r.1", job="cn.a/job/j", epoch=1, pool="p", task=task, alternative=0, user="u", core_count=2, part=part
    )
    held = Held(offer=offer, phase=next(iter(Phase)))
    made = launches(held, str(tmp_path), None, SiteLimits(), {}, holds_memory=False)
    assert [each.node for each in made] == [0, 1]  # folders and logs count those here
    envs = [each.envs for each in made]
    for name in ("TIELINE_NODE_RANK", "SKYPILOT_NODE_RANK", "DSTACK_NODE_RANK", "RANK", "NODE_RANK"):
        assert [each[name] for each in envs] == ["2", "3"], name
    addresses = "127.17.0.1\n127.17.0.2\n127.17.0.3\n127.17.0.4"
    for name, value in (
        ("TIELINE_NODE_IPS", addresses), ("SKYPILOT_NODE_IPS", addresses), ("DSTACK_NODES_IPS", addresses),
        ("TIELINE_NUM_NODES", "4"), ("SKYPILOT_NUM_NODES", "4"), ("DSTACK_NODES_NUM", "4"), ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "127.17.0.1"), ("MASTER_PORT", "20225"), ("DSTACK_MASTER_NODE_IP", "127.17.0.1"),
        ("TIELINE_CIRCUITS", "c-1\nc-2"),
    ):  # fmt: skip
        assert [each[name] for each in envs] == [value] * 2, name
