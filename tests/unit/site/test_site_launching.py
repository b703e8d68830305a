"""What a run is told of the transfers that were booked for its data."""

from pathlib import Path

from tieline.drivers.siteprocess.launching import launches
from tieline.model.protocol import Offer
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
