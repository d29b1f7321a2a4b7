"""From words to places: configuration, command line, and what wins."""

from argparse import Namespace
from io import BytesIO
from pathlib import Path

import pytest

from dcmsync.commands.options import Streams, hush
from dcmsync.commands.places import DEFAULT_JOBS, Places
from dcmsync.errors import UsageError
from dcmsync.net.patience import Watch

SILENT = Streams(
    stdin=BytesIO(), stdout=BytesIO(), say=hush, note=hush, stdin_is_pipe=False, is_terminal=False,
    stderr_is_terminal=False,
)  # fmt: skip

CONFIG = """
[local]
ae_title = "RESEARCH1"

[endpoints.few]
locator = "FEW@127.0.0.1:104"
max_associations = 3

[endpoints.one]
locator = "ONE@127.0.0.1:104"
max_associations = 1

[endpoints.pacs]
locator = "ARCHIVE@127.0.0.1:104"
jobs = 7
calling = "NIGHT"
timeout = 5

[endpoints.asked]
locator = "ASKED@127.0.0.1:104"
retrieve = "between"

[endpoints.between]
locator = "BETWEEN@127.0.0.1:104"
retrieve = "few"
"""


def places(folder: Path, **given: object) -> Places:
    path = folder / "config.toml"
    path.write_text(CONFIG)
    arguments = {"config": str(path), "timeout": None, "calling": None, "jobs": None, **given}
    return Places(Namespace(**arguments), Watch(), SILENT)


def test_a_name_stands_for_its_locator_and_its_identity(tmp_path: Path) -> None:
    node = places(tmp_path).node("pacs")
    assert (node.peer.name, node.peer.calling_ae) == ("ARCHIVE@127.0.0.1:104", "NIGHT")


def test_a_locator_goes_by_the_local_title(tmp_path: Path) -> None:
    assert places(tmp_path).node("X@127.0.0.1:105").peer.calling_ae == "RESEARCH1"


def test_the_command_line_wins(tmp_path: Path) -> None:
    made = places(tmp_path, calling="DAY", jobs=3)
    assert made.node("pacs").peer.calling_ae == "DAY"
    assert (made.jobs("pacs"), made.most_jobs) == (3, 3)


def test_each_place_has_its_own_number_of_jobs(tmp_path: Path) -> None:
    made = places(tmp_path)
    assert (made.jobs("pacs"), made.jobs("X@127.0.0.1:105"), made.most_jobs) == (7, DEFAULT_JOBS, DEFAULT_JOBS)


def test_of_few_associations_one_is_left_for_queries(tmp_path: Path) -> None:
    made = places(tmp_path)
    assert (made.jobs("few"), made.jobs("one")) == (2, 1)
    assert places(tmp_path, jobs=9).jobs("few") == 2


def test_a_word_that_is_no_place_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean pacs"):
        places(tmp_path).open("pasc")


def test_of_two_places_that_are_one_the_fewer_associations_count(tmp_path: Path) -> None:
    assert places(tmp_path).jobs("asked") == places(tmp_path).jobs("few") == 2
    assert places(tmp_path, jobs=1).jobs("asked") == 1


def test_who_gives_is_at_the_end_of_the_chain(tmp_path: Path) -> None:
    assert [places(tmp_path).giver(word) for word in ("asked", "between", "few")] == ["few", "few", None]


def test_a_key_that_says_nothing_to_a_place_of_that_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[endpoints.archive]\nlocator = "./archive"\nvia = "get"\n')
    made = Places(Namespace(config=str(path), timeout=None, calling=None, jobs=None), Watch(), SILENT)
    with pytest.raises(UsageError, match="archive: via is for DIMSE nodes"):
        made.open("archive")
