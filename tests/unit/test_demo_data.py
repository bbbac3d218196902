"""The demonstration's data: every document can be published as it stands, on any day."""

from __future__ import annotations

import datetime
import json
from zoneinfo import ZoneInfo

import pytest

from kad_protocol import content as contents
from kad_protocol import document
from kad_protocol.v1 import content_pb2
from kad_simpul import demo_data

TODAY = datetime.date(2027, 1, 4)
NOW = datetime.datetime(2027, 1, 4, tzinfo=datetime.UTC)
ALL = sorted(demo_data.forums())


def _contents(name, today=TODAY):
    return [document.from_document(document.load(json.dumps(data))).content for data in demo_data.records(name, today)]


@pytest.mark.parametrize("name", ALL)
def test_every_profile_can_be_published(name):
    profile = document.profile_from_document(document.load(json.dumps(demo_data.forum(name))))
    contents.check(profile)
    assert profile.name


@pytest.mark.parametrize("name", ALL)
def test_every_record_can_be_published_and_gives_no_warning(name):
    for content in _contents(name):
        contents.check(content)
        assert contents.warnings(content, NOW, demo_data.regions()) == []


def test_the_forums_that_take_part_have_something_of_each_kind():
    for name in demo_data.FORUMS:
        assert {content.WhichOneof("kind") for content in _contents(name)} == {"best_practice", "regulation", "agenda_item"}
    assert set(demo_data.FORUMS) < set(ALL)


def test_every_record_is_that_of_a_forum_and_there_is_no_other():
    assert sum(len(_contents(name)) for name in ALL) == 20
    with pytest.raises(KeyError):
        demo_data.forum("tidak-ada")
    assert demo_data.records("tidak-ada", TODAY) == []


@pytest.mark.parametrize("days", range(7))
@pytest.mark.parametrize("name", demo_data.FORUMS)
def test_meetings_are_in_the_weeks_to_come_at_office_hours_of_their_zone(name, days):
    today = TODAY + datetime.timedelta(days=days)
    meetings = [content.agenda_item for content in _contents(name, today) if content.WhichOneof("kind") == "agenda_item"]
    assert meetings
    for item in meetings:
        zone = ZoneInfo(item.time_zone)
        start, end = (time.ToDatetime(datetime.UTC).astimezone(zone) for time in (item.start_time, item.end_time))
        assert (start.hour, end.hour) == (9, 15)
        assert start.date() == end.date()
        assert start.weekday() < 5
        assert datetime.timedelta(0) < start.date() - today <= datetime.timedelta(weeks=6)
        assert item.status == content_pb2.AGENDA_STATUS_TENTATIVE
    assert demo_data.records(name, today) == demo_data.records(name, today)


def test_regions_have_one_name_each_and_none_is_listed_that_does_not_occur():
    named = {}
    for name in ALL:
        profile = document.profile_from_document(demo_data.forum(name))
        regions = [*profile.member_regions, *([profile.seat] if profile.HasField("seat") else [])]
        for content in _contents(name):
            regions.extend(content.regions)
        for region in regions:
            assert named.setdefault(region.code, region.name) == region.name
    assert named == demo_data.regions()
