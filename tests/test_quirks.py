"""Quirks as data: what may be set, and what is known of servers."""

import msgspec
import pytest

from dcmsync.config import Endpoint
from dcmsync.errors import UsageError
from dcmsync.plan import levels
from dcmsync.quirks import FLAGS, PROFILES, Quirks, field_of, quirks_of, read


def endpoint(**said: object) -> Endpoint:
    return msgspec.convert({"locator": "A@h:1", **said}, Endpoint)


def test_nothing_said_is_no_quirk() -> None:
    assert read(endpoint()) == Quirks()
    assert quirks_of(object()) == Quirks()


def test_every_flag_sets_its_field() -> None:
    for flag in FLAGS:
        more = {"charset": "ISO_IR 100"} if flag == "wrong-charset" else {}
        assert getattr(read(endpoint(quirks=[flag], **more)), field_of(flag)) is True
    assert {field_of(flag) for flag in FLAGS} == {
        field.name for field in msgspec.structs.fields(Quirks) if field.type is bool}


def test_what_is_set_goes_over_the_profile() -> None:
    held = PROFILES["pynetdicom"].quirks
    said = read(endpoint(profile="pynetdicom", ignores_keys=["StudyID"], limit=50, quirks=["no-cget"]))
    assert said.no_counts and said.no_uid_lists and said.no_cget
    assert said.ignores_keys == (*held.ignores_keys, "StudyID") and said.limit == 50
    assert read(endpoint(profile="pynetdicom")) == held


@pytest.mark.parametrize("said, words", [
    ({"quirks": ["no-cuonts"]}, "no such quirk: no-cuonts. Did you mean no-counts?"),
    ({"profile": "zzz"}, "no such profile: zzz. There are orthanc, dcmtk"),
    ({"ignores_keys": ["SeriesInstanceUID"]}, "SeriesInstanceUID cannot be left out of a query"),
    ({"quirks": ["wrong-charset"]}, "says nothing without charset"),
])  # fmt: skip
def test_what_cannot_be_is_refused(said: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(endpoint(**said))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_how_it_is_known(name: str) -> None:
    profile = PROFILES[name]
    assert profile.source.startswith("tried: " if profile.is_verified else "reported: ")
    assert all(key in levels.STUDY_KEYS for key in profile.quirks.ignores_keys)
