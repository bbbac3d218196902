"""Configuration of ``kad-simpul``: that of a node, and what a simpul does besides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kad_node.config import Address, CommonConfig

__all__ = ["SimpulConfig"]


class SimpulConfig(CommonConfig):
    """``kad.toml`` of a simpul."""

    federation_name: str = Field("", description="Display name of the federation")
    mode: Literal["networking", "subsidiarity"] = Field(
        "networking", description="networking: the simpul mediates; subsidiarity: it also does what forums mandate it to do"
    )
    listen: Address = Field("0.0.0.0:7443", description="Where members exchange (mutual TLS)")
    advertise: Address = Field("localhost:7443", description="How members call that address")
    enrolment_listen: Address = Field("0.0.0.0:7444", description="Where invitations are redeemed and certificates renewed")
    enrolment_advertise: Address = Field("localhost:7444", description="How forums call that address; stands in invitations")
    witness_interval_seconds: float = Field(
        1, ge=0.1, le=3600, description="Pause between two checkpoints that are put to the members to confirm"
    )
    census_seconds: float = Field(3600, ge=1, le=86_400, description="Pause between two censuses: lists of everything that was observed")
    member_entries_per_day: int = Field(1_000_000, ge=1_000, description="Entries of one member that are relayed in a day, at most")
    member_bytes_per_day: int = Field(2 << 30, ge=4 << 20, description="Bytes of one member that are relayed in a day, at most")
