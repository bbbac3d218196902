"""What people and programs are shown, whatever a member has written: no time and no number ends in a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kad_node import messages
from kad_node.cli import affairs, show
from kad_node.cli.common import as_json
from kad_protocol.v1 import directory_pb2, entry_pb2, governance_pb2, node_pb2, records_pb2

WHOLE_32 = st.integers(-(1 << 31), (1 << 31) - 1)
WHOLE_64 = st.integers(-(1 << 63), (1 << 63) - 1)
SECONDS = WHOLE_64 | st.sampled_from([0, -62_135_596_801, -62_135_596_800, 253_402_300_799, 253_402_300_800, 568_971_820_800])
NANOS = WHOLE_32 | st.sampled_from([0, -7, 999_999_999, 2_000_000_000])


def filled(draw: Any, message: Any, depth: int = 3) -> Any:
    """Any message, filled with anything that its fields can hold."""
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        if field.message_type is not None:
            if field.message_type.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
                times = [getattr(message, field.name)] if not field.is_repeated else [getattr(message, field.name).add()]
                for time in times:
                    time.seconds, time.nanos = draw(SECONDS), draw(NANOS)
            elif depth:
                filled(draw, getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name), depth - 1)
            continue
        value = draw(scalars(field))
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


_SCALARS = {
    1: WHOLE_32,
    2: WHOLE_64,
    3: st.integers(0, (1 << 32) - 1),
    4: st.integers(0, (1 << 64) - 1),
    7: st.booleans(),
    8: st.integers(0, 200),
    9: st.text(max_size=5),
}

SHOWN = (
    node_pb2.GetStatusResponse,
    node_pb2.ListProblemsResponse,
    directory_pb2.Forum,
    governance_pb2.Decision,
    governance_pb2.GrantedMandate,
    governance_pb2.PerformedAct,
    governance_pb2.Federation,
    governance_pb2.FederationMember,
)


def scalars(field: Any) -> Any:
    return st.binary(max_size=5) if field.type == field.TYPE_BYTES else _SCALARS[field.cpp_type]


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.DESCRIPTOR.name)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_message_becomes_json(kind: Any, data: Any) -> None:
    message = filled(data.draw, kind())
    text = json.dumps(as_json(message), ensure_ascii=False)
    assert isinstance(json.loads(text), dict)


@settings(deadline=None, max_examples=100)
@given(seconds=SECONDS, nanos=NANOS, zone=st.sampled_from(["", "Asia/Jakarta", "../x", "Nowhere/None"]))
def test_every_time_is_shown(seconds: int, nanos: int, zone: str) -> None:
    decision = governance_pb2.Decision()
    time = decision.proposal.deadline
    time.seconds, time.nanos = seconds, nanos
    assert show.moment(time, zone)
    affairs.show_decision(decision)


def test_an_impossible_time_is_shown_as_it_stands_and_the_rest_as_ever() -> None:
    mandate = governance_pb2.GrantedMandate(name="forums/satu/mandates/1", mandate=entry_pb2.Mandate(function="represent", kinds=[99]))
    mandate.mandate.not_after.seconds, mandate.mandate.not_after.nanos = 568_971_820_800, 5
    mandate.mandate.not_before.seconds = 1_790_000_000
    assert as_json(mandate) == {
        "name": "forums/satu/mandates/1",
        "mandate": {
            "function": "represent",
            "kinds": [99],
            "not_after": {"seconds": "568971820800", "nanos": 5},
            "not_before": "2026-09-21T14:13:20Z",
        },
    }
    assert "568971820800" in show.moment(mandate.mandate.not_after)
    assert affairs._scope(mandate.mandate)


@pytest.mark.parametrize(
    "spoken, done, waiting", [("id", "atas nama forum", "belum disaksikan"), ("en", "in the forum's name", "not witnessed yet")]
)
def test_what_the_simpul_published_is_shown_as_that(spoken: str, done: str, waiting: str) -> None:
    messages.set_language([f"--lang={spoken}"], {})
    try:
        record = records_pb2.Record(state=records_pb2.RECORD_STATE_PUBLISHED, published_by="uji.kad.internal/forums/simpul-x/e0")
        assert "simpul-x" in show.state_of(record)
        assert done in show.state_of(record)
        assert waiting in show.state_of(record)
        record.act_final = True
        assert done in show.state_of(record)
        assert waiting not in show.state_of(record)
    finally:
        messages.set_language([], {})


def test_what_signing_waits_for_is_said() -> None:
    state = node_pb2.GetStatusResponse(append_state=node_pb2.APPEND_STATE_FENCED)
    state.head_claims.add(forum="dua", size=1_000_000)
    state.head_claims.add(forum="tiga", size=12, proved=True)
    line = show.append_line(state)
    assert "dua" in line
    assert "1000000" in line
    assert "tiga" in line
    state.append_state = node_pb2.APPEND_STATE_OPEN
    assert "dua" not in show.append_line(state)
