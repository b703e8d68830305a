"""The expression language: `npu >= 8 and rtt(shanghai) < 1ms and price < 20 and owner in partners`.

Total, typed, without side effects. Units are part of the grammar; unknown never matches and is counted apart (Kleene).
One language serves queries (over `offer` attributes) and owners' policies (over `demand` and `user` attributes).
`table` and `vector` need numpy and are imported by those who evaluate over columns; a site decides on plain values.
"""

from tieline.language.context import NOWHERE, Context
from tieline.language.expression import Bound, Expression, Term, compile_policy, compile_query, is_query
from tieline.language.ranking import Ranking, compile_ranking

__all__ = [
    "NOWHERE",
    "Bound",
    "Context",
    "Expression",
    "Ranking",
    "Term",
    "compile_policy",
    "compile_query",
    "compile_ranking",
    "is_query",
]
