"""Reasons are API: the Python words and the contract's are the same."""

from __future__ import annotations

from kad_protocol.errors import Reason
from kad_protocol.v1 import error_pb2


def test_reasons_are_those_of_the_contract() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    assert contract == {reason.value for reason in Reason}
    assert all(reason.name == reason.value for reason in Reason)
