"""Telling systemd how we are (sd_notify(3)). Does nothing where no one listens."""

from __future__ import annotations

import os
import socket
import time

__all__ = ["notify", "watchdog_seconds"]


def notify(**state: str | int) -> None:
    """Send ``KEY=value`` lines, for example ``notify(READY=1, STATUS="3 forums connected")``.

    ``RELOADING=1`` gets the ``MONOTONIC_USEC`` that ``Type=notify-reload`` wants with it. A line break in a value becomes a space.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    if "RELOADING" in state:
        state["MONOTONIC_USEC"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    message = "\n".join(f"{key}={' '.join(str(value).splitlines())}" for key, value in state.items()).encode(errors="replace")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message, name)
        except OSError:
            return


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life, in seconds: half of what it allows; None if it wants none, or wants it of another process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        micros = int(os.environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return micros / 2_000_000 if micros > 0 else None
