"""Every kind of place, and every verb: what works, and where it cannot, who says so, and what can instead.

The places that are not ours are fakes; DICOMweb, WADO-URI and the DIMSE node are one `serve --http`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests import nodes, samples
from tests.fakes import ahi
from tests.fakes.ahi import DataStore
from tests.fakes.mint import Mint
from tests.fakes.rad69 import Rad69
from tests.fakes.web import Seen, Web
from tests.fakes.xnat import Session, Xnat
from tests.samples import Sample
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow  # all of it together; each is one or two runs
KINDS = ("node", "dicomweb", "wado", "mint", "rad69", "xnat", "ahi", "pair", "folder", "zip")
VERBS = ("query", "diff", "diff with", "pull", "pull --metadata", "sync from", "verify", "verify --at", "doctor",
         "echo", "dump")  # fmt: skip
STORING = ("push", "sync to")

PAIR_IT = ('Set retrieve = "NAME"',)
NOT_ASKED = (5, "cannot be asked what there is", *PAIR_IT)
GIVES_NOTHING = (5, "gives no instances here", *PAIR_IT)
TAKES_NOTHING = (2, "takes nothing", "Name a DICOM node, a DICOMweb service")
NO_METADATA = (2, "does not tell metadata", "DICOMweb services do; of others, pull the instances")
ELSEWHERE = (2, "its instances cannot be opened here", "Pull them into one")
NOT_REMOTE = (2, "is on this machine")
CANNOT: dict[str, dict[str, tuple[int | str, ...]]] = {
    "node": {"pull --metadata": NO_METADATA, "dump": ELSEWHERE},
    "dicomweb": {"dump": ELSEWHERE},
    "wado": {
        **dict.fromkeys(("query", "diff", "diff with", "sync from", "verify", "verify --at"), NOT_ASKED),
        **dict.fromkeys(("push", "sync to"), (*TAKES_NOTHING, "WADO-URI only gives instances")),
        "doctor": (1, "cannot be asked what there is", "retrieve"),
        "pull --metadata": NO_METADATA, "dump": ELSEWHERE,
    },
    "mint": {
        **dict.fromkeys(("pull", "sync from"), GIVES_NOTHING),
        **dict.fromkeys(("push", "sync to"), (*TAKES_NOTHING, "MINT only tells what there is")),
        "doctor": (1, "gives no instances here", "retrieve"), "pull --metadata": NO_METADATA, "dump": ELSEWHERE,
    },
    "rad69": {
        **dict.fromkeys(("query", "diff", "diff with", "sync from", "verify", "verify --at"), NOT_ASKED),
        **dict.fromkeys(("push", "sync to"), (*TAKES_NOTHING, "RAD-69 only gives instances")),
        "doctor": (1, "cannot be asked what there is", "retrieve"),
        "pull --metadata": NO_METADATA, "dump": ELSEWHERE,
    },
    "xnat": {"pull --metadata": NO_METADATA, "dump": ELSEWHERE},
    "ahi": {
        **dict.fromkeys(("push", "sync to"), (*TAKES_NOTHING, "through the DICOMweb of the data store")),
        "pull --metadata": NO_METADATA, "dump": ELSEWHERE,
    },
    "pair": {
        **dict.fromkeys(("push", "sync to"), TAKES_NOTHING), "dump": ELSEWHERE,
        "pull --metadata": (2, "does not tell metadata, and who gives its instances does not either"),
    },
    "folder": {
        "push": (*NOT_REMOTE, "Use dcmsync pull or dcmsync sync"), "pull --metadata": NO_METADATA,
        "doctor": (*NOT_REMOTE, "Name a remote place"), "echo": (2, "is no remote place", "Name one"),
    },
    "zip": {
        "push": (*NOT_REMOTE, "Use dcmsync pull or dcmsync sync"), "pull --metadata": NO_METADATA,
        "doctor": (*NOT_REMOTE, "Name a remote place"), "echo": (2, "is no remote place", "Name one"),
    },
}  # fmt: skip
"""Kind -> verb -> the exit status, and what must be said where it does not work. All else works."""
TAKERS = ("node", "dicomweb", "xnat", "folder", "zip")
WHO = {"AWS_ACCESS_KEY_ID": ahi.KEY, "AWS_SECRET_ACCESS_KEY": ahi.SECRET}


@dataclass
class World:
    """All places, by name, and what they have been sent to be stored."""

    workdir: Workdir
    held: list[Sample]
    locators: dict[str, str]
    taken: dict[str, Callable[[], int]]
    _done: dict[str, dict[str, Done]] = field(default_factory=dict)

    def done(self, kind: str) -> dict[str, Done]:
        """What all verbs came to at a kind; those that store come after the others."""
        if kind not in self._done:
            before = self.taken[kind]()
            with ThreadPoolExecutor(4) as pool:  # most of a run is its start
                done = dict(zip(VERBS, pool.map(lambda verb: self.run(*self.line(kind, verb)), VERBS), strict=True))
            assert self.taken[kind]() == before, "something was sent to be stored"
            self._done[kind] = done | {verb: self.run(*self.line(kind, verb)) for verb in STORING}
            assert kind in TAKERS or self.taken[kind]() == before, "something was sent to be stored"
        return self._done[kind]

    def run(self, words: Sequence[str], stdin: list[dict[str, object]] | None = None) -> Done:
        """One run, which must end as runs do."""
        done = self.workdir.run(*words, stdin=stdin, env=WHO)
        assert done.status in range(8) and "Traceback" not in done.stderr and "Sample^" not in done.stderr, done
        return done

    def records(self, kind: str) -> list[dict[str, object]]:
        """What a query of a place says of its instances."""
        if kind in ("folder", "zip"):
            return self.run(("query", self.word(kind), "--level", "instance")).of_type("instance")
        return [{
            "type": "instance", "source": self.word(kind), "StudyInstanceUID": each.study_uid,
            "SeriesInstanceUID": each.series_uid, "SOPInstanceUID": each.sop_uid,
            "SOPClassUID": samples.CT_IMAGE_STORAGE,
        } for each in self.held]  # fmt: skip

    def word(self, kind: str) -> str:
        """How a place is named."""
        return {"folder": "./held", "zip": "./held.zip"}.get(kind, kind)

    def line(self, kind: str, verb: str) -> tuple[tuple[str, ...], list[dict[str, object]] | None]:
        """The words of a run, and what stands on its standard input."""
        word, key = self.word(kind), f"StudyInstanceUID={self.held[0].study_uid}"
        own = self.records(kind)
        dest = {"folder": "./copy", "zip": "./copy.zip"}.get(kind, word)
        return {
            "query": (("query", word, key, "--level", "instance"), None),
            "diff": (("diff", word, "./held", key), None),
            "diff with": (("diff", "./held", word), None),
            "pull": (("pull", f"./pulled/{kind}"), own),
            "pull --metadata": (("pull", "--metadata"), own),
            "push": (("push", dest, "./more"), None),
            "sync from": (("sync", word, f"./synced/{kind}", key), None),
            "sync to": (("sync", "./more", dest), None),
            "verify": (("verify",), own),
            "verify --at": (("verify", "--at", word), self.records("folder")),
            "doctor": (("doctor", word, key), None),
            "echo": (("echo", word), None),
            "dump": (("dump",), own),
        }[verb]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("kinds")
    held = samples.make_series(path / "held", instances=2, rows=8, columns=8)
    samples.make_series(path / "more", instances=2, rows=8, columns=8, seed=2)
    paths = [each.path for each in held]
    shutil.make_archive(str(path / "held"), "zip", path / "held")
    shutil.copytree(path / "held", path / "served")
    with ExitStack() as stack:
        node = stack.enter_context(nodes.serving(path / "served", "--http", "0"))
        mint, rad69 = stack.enter_context(Web(Mint(paths))), stack.enter_context(Web(Rad69(paths)))
        fake = archived(held)
        xnat = stack.enter_context(Web(fake))
        store = stack.enter_context(DataStore())
        store.add(paths)
        locators = {
            "node": node.locator, "dicomweb": node.http, "wado": f"wado-uri+{node.http}/wado",
            "mint": f"mint+{mint.url}", "rad69": f"rad69+{rad69.url}", "xnat": f"xnat+{xnat.url}/P",
            "ahi": f"ahi://{ahi.STORE_ID}?region={ahi.REGION}", "pair": f"mint+{mint.url}",
        }  # fmt: skip
        more = {"ahi": {"endpoint_url": store.url}, "pair": {"retrieve": "rad69"}}
        sections = {name: {"locator": locator, **more.get(name, {})} for name, locator in locators.items()}
        lines = [f"[endpoints.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                 for name, keys in sections.items()]  # fmt: skip
        (path / ".xdg" / "config" / "dcmsync").mkdir(parents=True)
        (path / ".xdg" / "config" / "dcmsync" / "config.toml").write_text("\n".join(lines))

        def sent(*requests: Sequence[Seen]) -> int:
            return sum(b"DICM" in seen.body for some in requests for seen in some)

        def served() -> int:
            return len(list((path / "served").rglob("*.dcm"))) - len(held)

        taken: dict[str, Callable[[], int]] = {
            "node": served, "dicomweb": served, "wado": served, "mint": lambda: sent(mint.seen),
            "rad69": lambda: sent(rad69.seen), "xnat": lambda: len(fake.uploads), "ahi": lambda: sent(store.seen),
            "pair": lambda: sent(mint.seen, rad69.seen), "folder": lambda: 0, "zip": lambda: 0,
        }  # fmt: skip
        yield World(Workdir(path), held, locators, taken)


def archived(held: list[Sample]) -> Xnat:
    """A project that has these in its archive."""
    xnat = Xnat("P", tells=("scans",))
    files = {each.sop_uid: each.path.read_bytes() for each in held}
    session = Session("20240102_100000000", "A1", "S1", held[0].study_uid, scans={"1": (held[0].series_uid, files)})
    xnat.sessions = [session]
    xnat.archive()
    return xnat


@pytest.mark.parametrize("verb", [*VERBS, *STORING])
@pytest.mark.parametrize("kind", KINDS)
def test_a_verb_works_or_says_who_cannot_what_and_what_can(kind: str, verb: str, world: World) -> None:
    done = world.done(kind)[verb]
    status, *told = CANNOT[kind].get(verb, (0,))
    assert done.status == status, done
    said = done.stderr + done.stdout.decode().replace('\\"', '"')
    assert all(str(each) in said for each in told), done
    if told:
        names = (world.word(kind), world.locators.get(kind, ""), "./copy")
        assert any(name in said for name in names if name), done
    if status == 5 and verb.startswith("verify"):
        assert {record["retry"] for record in done.of_type("outcome")} == {False}, "it is so of its kind"
    if verb in ("pull", "sync from"):
        came = list((world.workdir.path / ("pulled" if verb == "pull" else "synced") / kind).rglob("*.dcm"))
        assert len(came) == (0 if told else len(world.held)), came


@pytest.mark.parametrize("kind", ["node", "xnat"])
def test_what_is_pushed_arrives(kind: str, world: World) -> None:
    world.done(kind)
    assert world.taken[kind]() > 0


def test_every_kind_that_there_is_stands_in_the_table() -> None:
    from dcmsync.commands.diagnosing import KINDS as EXAMINED
    from dcmsync.endpoints import KINDS as OPENED
    from dcmsync.locator import Archive, Folder, Node

    assert set(EXAMINED) | {Node, Folder, Archive} == set(OPENED) and len(KINDS) == len(OPENED) + 1  # the pair
    assert set(CANNOT) == set(KINDS)
