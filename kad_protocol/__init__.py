"""KAD's protocol: what forums and programs need to exchange records, and to check everything that they get.

The parts, from the bottom up: ``names``, ``errors``; ``merkle``, ``note``, ``keys``, ``statement`` (formats and keys); ``entry``,
``content``, ``document``, ``vocabulary`` (what is said); ``store``, ``feed``, ``fold``, ``authority`` (what follows from it); ``exchange``,
``certificates``, ``channel``, ``client`` (how it travels). ``v1`` is generated from ``proto/kad/v1``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kad_protocol.client import Client, connect

__all__ = ["Client", "connect"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - see PEP 562
    # gRPC is loaded only by those who connect: reading a note or a bundle needs none of it.
    if name in __all__:
        from kad_protocol import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(name)
