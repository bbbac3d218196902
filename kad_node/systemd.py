"""Telling systemd how we are (sd_notify(3)). Does nothing where no one listens."""

from __future__ import annotations

import os
import socket

__all__ = ["notify", "watchdog_seconds"]


def notify(**state: str | int) -> None:
    """Send ``KEY=value`` lines, for example ``notify(READY=1, STATUS="3 forums connected")``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{key}={value}" for key, value in state.items()).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message, name)
        except OSError:
            return


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life: half of what it allows; None if it does not."""
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None
