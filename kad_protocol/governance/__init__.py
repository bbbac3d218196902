"""The affairs of a federation, folded in the order of its simpul's log: members, mandates, decisions, charter, what is final.

Order comes from the simpul's observations, never from clocks: what a member wrote counts from the place where that log first observes
it. So everybody who holds the same feeds gets the same state at the same place, and what was lawful there is never judged again.

``Governance`` is one federation at one place. Its state lies in ``Items``, a small map that a store keeps in the same transaction as the
feeds (a dict in tests). It decides and remembers; what follows for records, feeds and witnesses it hands out as ``effects``, which
``kad_protocol.order`` carries out.

The parts, each building on those before it: ``state`` (what is kept), ``submissions``, ``mandates``, ``decisions``, ``acts``, ``members``,
``finality``, and ``federation``, which takes entry by entry.
"""

from kad_protocol.governance.acts import question_of
from kad_protocol.governance.decisions import check_charter
from kad_protocol.governance.effects import Annulled, Effect, Pinned, Released, Standing, Superseded, Withdrawn
from kad_protocol.governance.federation import UNLAWFUL, Governance
from kad_protocol.governance.mandates import LONGEST_MANDATE_DAYS, check_mandate
from kad_protocol.governance.state import Items
from kad_protocol.governance.submissions import ReviewState, review_state
from kad_protocol.governance.words import FOUNDING_RULES, Refused

__all__ = [
    "FOUNDING_RULES",
    "LONGEST_MANDATE_DAYS",
    "UNLAWFUL",
    "Annulled",
    "Effect",
    "Governance",
    "Items",
    "Pinned",
    "Refused",
    "Released",
    "ReviewState",
    "Standing",
    "Superseded",
    "Withdrawn",
    "check_charter",
    "check_mandate",
    "question_of",
    "review_state",
]
