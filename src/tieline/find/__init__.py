"""Which offers fit: a columnar index of everything that is registered, and answers with counted reasons.

Decides: what matches a query, in which order, why each of the others does not, and which single change would help
most. Never: fetches a record, asks a site, reads a clock. Unknown never matches and is counted apart.

    index = Index()
    index.put_record("cn.demo.lab7/pool/npus", PoolSpec(...))       # from records
    index.set_free(["cn.demo.lab7/pool/npus"], free=[8])            # from heartbeats and bookings
    find(index, "npu >= 8 and price < 20")                          # -> model.plan.Answer
    prepare(index, "accelerator == a100 and free >= 8").ids(20)     # the hot path, without reasons
"""

from tieline.find.answer import MAX_LIMIT, find
from tieline.find.index import Index
from tieline.find.prepared import Prepared, prepare

__all__ = ["MAX_LIMIT", "Index", "Prepared", "find", "prepare"]
