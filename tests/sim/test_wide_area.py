"""Wide areas are what their seed says, sound, and tell placing with the network from placing without it."""

import pytest
from bench.network_gain import Play

from tieline.network.survey import checked
from tieline.sim.wide_area import DATASETS, JOBS, SITES, wide_area


def test_a_seed_is_one_scenario() -> None:
    assert wide_area(7) == wide_area(7)
    assert wide_area(7) != wide_area(8)


@pytest.mark.parametrize("seed", [1, 2, 20])
def test_a_scenario_is_sound(seed: int) -> None:
    area = wide_area(seed)
    assert checked(area.topology) == area.topology
    assert (len(area.sites), len(area.datasets), len(area.jobs)) == (SITES, DATASETS, JOBS)
    sites = {site.id for site in area.sites}
    assert all(sites.issuperset(data.sites) for data in area.datasets)
    assert all(job.cards <= min(site.cards for site in area.sites) for job in area.jobs)
    assert [job.at_ms for job in area.jobs] == sorted(job.at_ms for job in area.jobs)


def test_every_job_ends_nothing_is_oversold_and_the_network_is_worth_knowing() -> None:
    area = wide_area(4)
    plays = [Play(area, is_constant=is_constant) for is_constant in (False, True)]
    network_s, constant_s = (play.run() for play in plays)
    for play in plays:
        calendar = play.view.network.calendar_at(play.clock.now_ms())
        assert calendar is not None
        assert calendar.is_kept()
        assert not play.view.runs
        assert not play.view.network.brings
    assert network_s < constant_s
