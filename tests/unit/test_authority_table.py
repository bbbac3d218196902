"""Who may act in whose name, as a table that can be read without the code, and checked against it in every combination.

The first row that fits decides; ``*`` fits everything, ``a|b`` fits a and b. The table is data: no verdict in it is computed.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kad_protocol.authority import FUNCTIONS, Action, Question, policy
from kad_protocol.errors import Reason
from kad_protocol.governance import Governance, Refused, question_of
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2

SIMPUL = FeedId("uji.kad.internal", "simpul")
OWNER, OTHER, THIRD = (FeedId("uji.kad.internal", name) for name in ("forum-a", "forum-b", "forum-c"))
NOW, DAY = 1_800_000_000_000_000, 86_400_000_000
AGENDA, PRACTICE = content_pb2.RECORD_KIND_AGENDA_ITEM, content_pb2.RECORD_KIND_BEST_PRACTICE
HEALTH, EDUCATION = content_pb2.SECTOR_HEALTH, content_pb2.SECTOR_EDUCATION

MODES = ("networking", "subsidiarity")
ALONE = ("publish-on-behalf", "curate", "consolidate-agenda", "harmonise-regulation")
TOGETHER = ("represent", "admit-members")
#: The mandate that the simpul cites, of the forum in whose name it acts if nothing else is said.
MANDATES = {
    "none": "no mandate is cited",
    "unobserved": "the simpul's log has not observed it when the act is done",
    "exchanged": "at that place stands another mandate than the one that is meant",
    "live": "given, observed, running",
    "early": "its time has not come",
    "over": "its time has passed",
    "revoked": "taken back by its forum, as observed",
    "elsewhere": "for another function",
    "another's": "live, but given by a forum in whose name the act is not done",
}
#: Where the forum stands that gave it.
MEMBERS = ("full", "associate", "suspended", "left")
#: What the act is about, measured against what the mandate is about.
SCOPES = {
    "all": "the mandate is not limited",
    "in its affairs": "limited to health; the act names health",
    "beyond its affairs": "limited to health; the act names health and education",
    "no affairs": "limited to health; the act names nothing",
    "in its region": "limited to 34.04; the act names 34.04.07",
    "above its region": "limited to 34.04; the act names 34",
    "beside its region": "limited to 34.04; the act names 34.71",
    "no region": "limited to 34.04; the act names nothing",
}
KINDS = ("its kind", "another kind")
#: For what only enough of them can hand up together (here two of three full members): do others give a mandate, too?
OTHERS = ("nobody else", "one other")

TABLE = """
mode         | function                 | mandate              | giver     | scope                            | kind         | others      | verdict
networking   | *                        | *                    | *         | *                                | *            | *           | ACTING_FOR_OTHERS_NOT_POSSIBLE
subsidiarity | rule-everything          | *                    | *         | *                                | *            | *           | FUNCTION_UNKNOWN
subsidiarity | *                        | none                 | *         | *                                | *            | *           | NO_MANDATE
subsidiarity | *                        | unobserved|exchanged | *         | *                                | *            | *           | MANDATE_UNKNOWN
subsidiarity | *                        | revoked              | *         | *                                | *            | *           | MANDATE_REVOKED
subsidiarity | *                        | *                    | left      | *                                | *            | *           | MEMBER_LEFT
subsidiarity | *                        | *                    | suspended | *                                | *            | *           | MEMBER_SUSPENDED
subsidiarity | *                        | early                | *         | *                                | *            | *           | MANDATE_NOT_YET
subsidiarity | *                        | over                 | *         | *                                | *            | *           | MANDATE_EXPIRED
subsidiarity | *                        | elsewhere            | *         | *                                | *            | *           | MANDATE_SCOPE
subsidiarity | publish-on-behalf|curate | *                    | *         | *                                | another kind | *           | MANDATE_SCOPE
subsidiarity | *                        | *                    | *         | beyond its affairs|no affairs    | *            | *           | MANDATE_SCOPE
subsidiarity | *                        | *                    | *         | above its region|beside its region|no region | * | *          | MANDATE_SCOPE
subsidiarity | *                        | another's            | *         | *                                | *            | *           | NO_MANDATE
subsidiarity | represent|admit-members  | *                    | associate | *                                | *            | *           | MANDATES_TOO_FEW
subsidiarity | represent|admit-members  | *                    | *         | *                                | *            | nobody else | MANDATES_TOO_FEW
subsidiarity | *                        | live                 | full|associate | *                           | *            | *           | yes
"""  # noqa: E501 - a table

ROWS = [[cell.strip() for cell in line.split(" | ")] for line in TABLE.strip().splitlines()[1:]]


def expected(*case: str) -> tuple[int, str]:
    """The first row that fits."""
    for number, (*cells, verdict) in enumerate(ROWS):
        if all(cell == "*" or value in cell.split("|") for cell, value in zip(cells, case, strict=True)):
            return number, verdict
    raise AssertionError(f"the table says nothing of {case}")


class Shelf:
    """Items in memory."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], bytes] = {}

    def get(self, kind: str, key: str) -> bytes | None:
        return self._items.get((kind, key))

    def put(self, kind: str, key: str, value: bytes) -> None:
        self._items[kind, key] = value

    def delete(self, kind: str, key: str) -> None:
        self._items.pop((kind, key), None)

    def all(self, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        return sorted((key, value) for (one, key), value in self._items.items() if one == kind and key.startswith(prefix))


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({}, {"sectors": [EDUCATION], "regions": ("11",)}),
    "in its affairs": ({"sectors": [HEALTH]}, {"sectors": [HEALTH]}),
    "beyond its affairs": ({"sectors": [HEALTH]}, {"sectors": [HEALTH, EDUCATION]}),
    "no affairs": ({"sectors": [HEALTH]}, {}),
    "in its region": ({"regions": ["34.04"]}, {"regions": ("34.04.07",)}),
    "above its region": ({"regions": ["34.04"]}, {"regions": ("34",)}),
    "beside its region": ({"regions": ["34.04"]}, {"regions": ("34.71",)}),
    "no region": ({"regions": ["34.04"]}, {}),
}
STATES = {
    "full": (entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBER_CATEGORY_FULL),
    "associate": (entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBER_CATEGORY_ASSOCIATE),
    "suspended": (entry_pb2.MEMBERSHIP_STATE_SUSPENDED, entry_pb2.MEMBER_CATEGORY_FULL),
    "left": (entry_pb2.MEMBERSHIP_STATE_LEFT, entry_pb2.MEMBER_CATEGORY_FULL),
}


def granted(found: Governance, giver: FeedId, index: int, function: str, **more: Any) -> entry_pb2.MandateRef:
    """A mandate of a forum, as the federation knows it."""
    state = governance_pb2.GrantedMandate(end_position=more.pop("end_position", 0))
    begin, end = more.pop("begin", NOW - DAY), more.pop("end", NOW + DAY)
    kinds = [AGENDA] if FUNCTIONS[function].asks_kinds else []
    state.mandate.CopyFrom(entry_pb2.Mandate(id=new_record_id(), delegate=SIMPUL.origin, function=function, kinds=kinds, **more))
    state.mandate.not_before.FromMicroseconds(begin)
    state.mandate.not_after.FromMicroseconds(end)
    state.name = f"{found.name_of(giver)}/mandates/{state.mandate.id}"
    state.ref.feed, state.ref.index, state.ref.leaf_hash = giver.origin, index, bytes([index]) * 32
    found._keep_mandate(state)
    found._items.put("mandate-place", f"{giver.origin} {index}", f"{found.name_of(giver)}/{state.mandate.id}".encode())
    return state.ref


def ask(*case: str) -> str:
    """Make that case and ask about it."""
    mode, function, mandate, giver, scope, kind, others = case
    found = Governance(Shelf(), SIMPUL)
    found.head.mode = entry_pb2.MODE_SUBSIDIARITY if mode == "subsidiarity" else entry_pb2.MODE_NETWORKING
    found.charter.collective.add(function="represent", percent=60)
    found.charter.collective.add(function="admit-members", percent=60)
    source = OTHER if mandate == "another's" else OWNER
    for feed in (OWNER, OTHER, THIRD):
        state, category = STATES[giver if feed == source else "full"]
        found._keep_member(governance_pb2.FederationMember(name=found.name_of(feed), feed=feed.origin, state=state, category=category))
    limit, said = LIMITS[scope]
    known = function if function in FUNCTIONS else "represent"
    about = "represent" if mandate == "elsewhere" and known != "represent" else "admit-members" if mandate == "elsewhere" else known
    times = {"early": {"begin": NOW + 1, "end": NOW + DAY}, "over": {"begin": NOW - DAY, "end": NOW}}.get(mandate, {})
    ref = granted(found, source, 1, about, **limit, **times, end_position=7 if mandate == "revoked" else 0)
    cited = [] if mandate == "none" else [ref]
    if mandate == "unobserved":
        ref.index = 2
    if mandate == "exchanged":
        ref.leaf_hash = bytes(32)
    if others == "one other" and mandate != "none":
        cited.append(granted(found, THIRD, 3, known, **limit))
    question = Question(
        SIMPUL,
        entry_pb2.MEMBER_ROLE_SIMPUL,
        action=Action.ACT,
        owner=OWNER,
        function=function,
        members=(found.name_of(OWNER),),
        kind=AGENDA if kind == "its kind" else PRACTICE,
        sectors=frozenset(said.get("sectors", ())),
        regions=said.get("regions", ()),
        cited=tuple(cited),
        time=NOW,
    )
    verdict = found.may(question)
    assert verdict.allowed is (verdict.reason is None)
    return "yes" if verdict.allowed else str(verdict.reason.value if verdict.reason else "")


def cases(mode: str, function: str) -> list[tuple[str, ...]]:
    """Everything that can be combined: what cannot be limited has no limits, what has one kind has no other."""
    rule = FUNCTIONS.get(function)
    scopes = SCOPES if rule is not None and rule.may_limit else ("all",)
    kinds = KINDS if rule is not None and rule.asks_kinds else KINDS[:1]
    others = OTHERS if rule is not None and rule.collective else OTHERS[:1]
    return [(mode, function, *rest) for rest in itertools.product(MANDATES, MEMBERS, scopes, kinds, others)]


EVERYTHING = (*ALONE, *TOGETHER, "rule-everything")


@pytest.mark.parametrize("function", EVERYTHING)
@pytest.mark.parametrize("mode", MODES)
def test_every_case_is_decided_as_the_table_says(mode: str, function: str) -> None:
    wrong = [(case, said, verdict) for case in cases(mode, function) if (verdict := expected(*case)[1]) != (said := ask(*case))]
    assert wrong == []


def test_every_row_of_the_table_decides_something() -> None:
    used = {expected(*case)[0] for mode, function in itertools.product(MODES, EVERYTHING) for case in cases(mode, function)}
    assert used == set(range(len(ROWS)))
    assert set(FUNCTIONS) == {*ALONE, *TOGETHER}


@pytest.mark.parametrize("row", range(len(ROWS) - 1))
def test_without_a_row_the_table_and_the_code_differ(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Able to fail: each row but the last says something that follows from no other.
    kept = [*ROWS[:row], *ROWS[row + 1 :], ["*"] * 7 + ["yes"]]
    monkeypatch.setattr("tests.unit.test_authority_table.ROWS", kept)
    every = (case for mode, function in itertools.product(MODES, EVERYTHING) for case in cases(mode, function))
    assert any(expected(*case)[1] != ask(*case) for case in every)


#: Who asks, besides the simpul of the federation under a live mandate.
ACTORS = """
who               | mode         | action      | whose      | verdict
a forum           | *            | publish     | its own    | yes
a forum           | *            | retract     | its own    | yes
a forum           | *            | describe    | its own    | yes
a forum           | *            | rotate-keys | its own    | yes
a forum           | *            | observe     | *          | ROLE_INSUFFICIENT
a forum           | *            | admit       | *          | ROLE_INSUFFICIENT
a forum           | networking   | *           | another's  | ACTING_FOR_OTHERS_NOT_POSSIBLE
a forum           | subsidiarity | *           | another's  | NO_MANDATE
a forum           | networking   | act         | its own    | ACTING_FOR_OTHERS_NOT_POSSIBLE
a forum           | subsidiarity | act         | its own    | NO_MANDATE
the simpul        | *            | observe     | *          | yes
the simpul        | *            | admit       | *          | yes
the simpul        | networking   | *           | another's  | ACTING_FOR_OTHERS_NOT_POSSIBLE
the simpul        | subsidiarity | act         | another's  | yes
the simpul        | subsidiarity | *           | another's  | NO_MANDATE
another simpul    | networking   | act         | another's  | ACTING_FOR_OTHERS_NOT_POSSIBLE
another simpul    | subsidiarity | act         | another's  | NO_MANDATE
"""
ACTOR_ROWS = [[cell.strip() for cell in line.split("|")] for line in ACTORS.strip().splitlines()[1:]]
WHO = {
    "a forum": (OTHER, entry_pb2.MEMBER_ROLE_FORUM),
    "the simpul": (SIMPUL, entry_pb2.MEMBER_ROLE_SIMPUL),
    "another simpul": (FeedId("lain.kad.internal", "simpul"), entry_pb2.MEMBER_ROLE_SIMPUL),
}


@pytest.mark.parametrize("mode", MODES)
def test_who_may_do_what_at_all(mode: str) -> None:
    found = Governance(Shelf(), SIMPUL)
    found._keep_member(governance_pb2.FederationMember(name=found.name_of(OWNER), feed=OWNER.origin, state=1, category=1))
    ref = granted(found, OWNER, 1, "publish-on-behalf")
    for (who, (actor, role)), action, whose in itertools.product(WHO.items(), Action, ("its own", "another's")):
        if who == "another simpul" and (action is not Action.ACT or whose == "its own"):
            continue
        if who == "the simpul" and whose == "its own":
            continue
        case = (who, mode, action.value, whose)
        verdict = next(row[-1] for row in ACTOR_ROWS if all(c in ("*", v) for c, v in zip(row[:-1], case, strict=True)))
        question = Question(
            actor,
            role,
            action=action,
            owner=actor if whose == "its own" else OWNER,
            function="publish-on-behalf",
            members=(found.name_of(OWNER),),
            kind=AGENDA,
            cited=(ref,),
            time=NOW,
        )
        said = policy(mode).may(question, found)
        assert ("yes" if said.allowed else said.reason) == verdict, (who, mode, action, whose)


#: What is done under which function.
DEEDS = """
function             | publication | withdrawal | review | statement
publish-on-behalf    | yes         | yes        | no     | no
curate               | no          | no         | yes    | no
consolidate-agenda   | no          | no         | no     | yes
harmonise-regulation | no          | no         | no     | yes
represent            | no          | no         | no     | yes
admit-members        | no          | no         | no     | no
rule-everything      | no          | no         | no     | no
"""


def test_what_is_done_under_which_function() -> None:
    header, *rows = [[cell.strip() for cell in line.split("|")] for line in DEEDS.strip().splitlines()]
    found = Governance(Shelf(), SIMPUL)
    for function, *answers in rows:
        for deed, answer in zip(header[1:], answers, strict=True):
            act = entry_pb2.Act(function=function, on_behalf_of=OWNER.origin)
            getattr(act, deed).SetInParent()
            if deed == "statement":
                act.statement.id = new_record_id()
                act.statement.members.append(OWNER.origin)
            said = "yes"
            try:
                question_of(found, act, NOW)
            except Refused as refused:
                said = "no" if refused.reason is Reason.ACT_INVALID else refused.reason.value
            assert said == answer, (function, deed)
