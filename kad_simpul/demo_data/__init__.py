"""Real forums and records, as documents: what the demonstration publishes.

The study that they come from gives no dates for meetings, so agenda items get some in the weeks after today, at office hours of their own
time zone; everything else stands in the files as it is.
"""

from __future__ import annotations

import datetime
import json
from importlib import resources
from typing import Any

__all__ = ["FORUMS", "forum", "forums", "records", "regions"]

#: The forums of the demonstration, in the order in which they join.
FORUMS = ("kartamantul", "barlingmascakeb", "javapromo", "komwil6")

_FIRST_DAY, _STEP_DAYS = 10, 5
_SATURDAY = 5


def _load(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((resources.files("kad_simpul.demo_data") / name).read_text(encoding="utf-8"))


def forums() -> dict[str, dict[str, Any]]:
    """The profiles of all forums that the study names, as documents, by id; ``FORUMS`` are those that take part."""
    return {entry["forum"]: {key: value for key, value in entry.items() if key != "forum"} for entry in _load("forums.json")["forums"]}


def forum(name: str) -> dict[str, Any]:
    """The profile of a forum, as a document.

    Raises:
        KeyError: the study names no such forum.
    """
    return forums()[name]


def regions() -> dict[str, str]:
    """Names of the regions that occur here, by code; not a list of all regions."""
    return dict(_load("regions.json")["regions"])


def records(name: str, today: datetime.date) -> list[dict[str, Any]]:
    """The records of a forum, as documents. The same day gives the same dates."""
    found: list[dict[str, Any]] = []
    for position, record in enumerate(_load("records.json")["records"]):
        if record["forum"] != name:
            continue
        document = {key: value for key, value in record.items() if key != "forum"}
        if document["kind"] == "agenda-item":
            day = today + datetime.timedelta(days=_FIRST_DAY + _STEP_DAYS * (position % 6))
            while day.weekday() >= _SATURDAY:
                day += datetime.timedelta(days=1)
            document |= {"start_time": f"{day} 09:00", "end_time": f"{day} 15:00"}
        found.append(document)
    return found
