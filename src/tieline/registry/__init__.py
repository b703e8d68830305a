"""Registry: who said what. Signed records, the chain of trust behind them, and what is admitted. Pure, without I/O."""

from tieline.registry.admission import Admission, Head, Judged, Outcome, Proof
from tieline.registry.catalogue import Catalogue, Kept
from tieline.registry.chain import Step, Verified, verify_chain
from tieline.registry.envelope import Opened, open_statement, opened, sign, sign_statement, stated, verify_statement
from tieline.registry.intake import Intake
from tieline.registry.keys import Key, fingerprint, seal, sealing_public, unseal
from tieline.registry.projection import PROJECTIONS, Projection
from tieline.registry.resolution import Resolved
from tieline.registry.rules import RULES, SKEW_S
from tieline.registry.silence import Silence

__all__ = [
    "PROJECTIONS",
    "RULES",
    "SKEW_S",
    "Admission",
    "Catalogue",
    "Head",
    "Intake",
    "Judged",
    "Kept",
    "Key",
    "Opened",
    "Outcome",
    "Projection",
    "Proof",
    "Resolved",
    "Silence",
    "Step",
    "Verified",
    "fingerprint",
    "open_statement",
    "opened",
    "seal",
    "sealing_public",
    "sign",
    "sign_statement",
    "stated",
    "unseal",
    "verify_chain",
    "verify_statement",
]
