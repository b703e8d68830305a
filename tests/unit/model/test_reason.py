"""Reasons are said with their figures, also those that somebody else gave."""

import pytest

from tieline.model.reason import Reason, sentence

QUOTA = {"exchange": "cn/exchange/main", "what": "cores", "limit": 1, "held": 0, "asked": 2}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"why": "peer_quota", "site": "cn.sh.lab/site/one", **QUOTA},
            "owner's site refused: the quota of cn/exchange/main for cores is 1; 0 are used, 2 more were asked",
        ),
        ({"why": "no thanks", "site": "cn.sh.lab/site/one"}, "owner's site refused: no thanks"),
        ({"why": "peer_quota"}, "owner's site refused: peer_quota"),
        ({"why": "refused_by_owner", "site": "cn.sh.lab/site/one"}, "owner's site refused: refused_by_owner"),
        ({}, "owner's site refused: -"),
    ],
)
def test_what_an_owner_gave_as_its_reason_is_said_with_its_figures(values, said):
    assert sentence(Reason(code="refused_by_owner", values=values)) == said
