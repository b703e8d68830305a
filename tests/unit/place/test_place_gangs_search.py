"""The search for a gang against trying every set of sites: what it calls proven is proven, and its bound is one."""

from itertools import combinations

import numpy as np
from test_place_gangs import Hose, a_gang, asking, found, small

from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse
from tieline.place import DataFact
from tieline.place.gangs import Gang, NoGang

UNIT = 8 * 10**6  # micro-yuan of a node for an hour at price 1
SITES = "abcdefghi"
ENOUGH = 100_000  # looks: no part of the search is cut


class World:
    """Nine sites of a seed; some pairs apart, some that can be joined with few others."""

    def __init__(self, seed):
        dice = np.random.default_rng(seed)
        self.nodes = dice.integers(1, 7, len(SITES)).tolist()
        self.prices = dice.integers(10, 30, len(SITES)).tolist()
        self.way = int(dice.choice([0, 0, 7, 40]))
        self.most = int(dice.integers(2, 5))
        pairs = list(combinations(SITES, 2))
        self.apart = [pairs[at] for at in np.flatnonzero(dice.random(len(pairs)) < 0.2).tolist()]
        self.joins = {name: int(dice.integers(1, 4)) for name in SITES if dice.random() < 0.3}
        room = sum(sorted(self.nodes)[-self.most :])
        self.wanted = max(1, int(room * dice.uniform(0.4, 0.95)))

    @property
    def hose(self):
        return Hose(self.joins, self.apart)

    def best(self):
        """The least cost of any set, by trying all; None: there is none."""
        least = None
        apart = {frozenset(pair) for pair in self.apart}
        for size in range(1, self.most + 1):
            for chosen in combinations(range(len(SITES)), size):
                names = [SITES[at] for at in chosen]
                if any(frozenset(pair) in apart for pair in combinations(names, 2)):
                    continue
                if any(self.joins.get(name, 99) < size - 1 for name in names):
                    continue
                left, cost = self.wanted, self.way * size * (size - 1) // 2
                for price, nodes in sorted((self.prices[at], self.nodes[at]) for at in chosen):
                    cost += min(left, nodes) * price
                    left -= min(left, nodes)
                if not left and (least is None or cost < least):
                    least = cost
        return least

    def asked(self, looks):
        pools = [small(name, nodes, price) for name, nodes, price in zip(SITES, self.nodes, self.prices, strict=True)]
        more = {"most_looks": looks, "way_micro_cny": self.way * UNIT}
        return found(a_gang(nodes=self.wanted), pools, self.hose, asking(self.most), **more)


def test_what_is_called_proven_is_the_best_of_all_sets_and_a_search_that_is_cut_says_how_far_off_it_may_be():
    proven, cut, missed = 0, 0, 0
    for seed in range(80):
        world = World(seed)
        best = world.best()
        for looks in (1, 12, 800, ENOUGH):
            answer = world.asked(looks)
            if isinstance(answer, NoGang):
                assert best is None or looks < ENOUGH, seed
                continue
            assert best is not None, seed
            cost, bound = answer.cost_micro_cny_per_hour, answer.bound_micro_cny_per_hour
            assert bound <= best * UNIT <= cost, (seed, looks)
            assert answer.looks <= looks
            if looks == ENOUGH:
                assert cost == best * UNIT, seed
            proven += cost == bound
            cut += cost > bound
            missed += cost > best * UNIT
    assert min(proven, cut, missed) > 20  # each of them is held to something


def test_what_bringing_the_data_costs_is_part_of_the_cost():
    far = [small("far", 10, 4)]
    fact = DataFact(owner="cn.lab", spec=DatasetSpec(size_bytes=10**15, sites=("cn.lab/site/home",)))
    brought = a_gang(nodes=5, data=(DataUse(id="d"),), data_facts={"d": fact})
    plain, answer = found(a_gang(nodes=5), far), found(brought, far)
    assert isinstance(plain, Gang)
    assert isinstance(answer, Gang)
    assert plain.cost_micro_cny_per_hour == 5 * 4 * UNIT
    assert answer.cost_micro_cny_per_hour > 2 * plain.cost_micro_cny_per_hour
    assert answer.members[0].candidate.data_us > 0
