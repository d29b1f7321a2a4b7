"""C-GET of more than the fields of a response can count, and of files that change while they are sent."""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from dcmsync.net.channel import Begun, Limits
from dcmsync.net.listener import Listener, Settings, Visit
from dcmsync.net.patience import Watch
from dcmsync.node.archive import Archive, Opened
from dcmsync.node.getting import Retrieval
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Image
from dcmsync.node.policy import Policy
from dcmsync.transfer.lander import Lander
from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.upperlayer import framing
from tests import nodes, samples
from tests.nodes import Caller
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

pytestmark = pytest.mark.slow

PLAIN = (EXPLICIT_LITTLE,)


def image(number: int) -> Image:
    return Image(uid=f"2.25.{number}", sop_class_uid="1.2.3", transfer_syntax_uid=EXPLICIT_LITTLE, path="", size=0,
                 mtime_ns=0, data_set_offset=0, values=())


def listened(serve: Callable[[Visit], Awaitable[None]], script: Callable[[int], None]) -> list[Exception | None]:
    """Runs a script against a service; how its associations ended."""
    why: list[Exception | None] = []

    async def main() -> None:
        with Watch() as watch:
            settings = Settings(host="127.0.0.1", port=0, decide=Policy(ae_title="DCMSYNC").decide, serve=serve,
                                closed=lambda visit, trouble: why.append(trouble))
            listener = Listener(settings, Limits(), watch)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.run)
                await anyio.to_thread.run_sync(script, listener.port)
                listener.stop()

    anyio.run(main)
    return why


def test_more_failures_than_a_response_can_count_are_cut_to_what_it_can(tmp_path: Path) -> None:
    (sample,) = samples.make_series(tmp_path, instances=1)
    archive = Archive(str(tmp_path), make_queue=Lander, warn=lambda text: None)

    async def serve(visit: Visit) -> None:
        inbox = Inbox(visit.channel)
        begun = await inbox.next()
        assert isinstance(begun, Begun)
        await inbox.identifier(100)
        retrieval = Retrieval(visit, inbox, archive, begun.context_id, begun.command)
        real = archive.index.images[sample.sop_uid]
        assert await retrieval.run([real] * 51 + [image(number) for number in range(70_000)]) == 51

    def script(port: int) -> None:
        with Caller(port) as caller:
            caller.associate([(operations.STUDY_ROOT_GET, PLAIN), (CT_IMAGE_STORAGE, PLAIN)], takes=(CT_IMAGE_STORAGE,))
            caller.say(1, operations.get(5, operations.STUDY_ROOT_GET).request, b"")
            pending = 0
            final, octets = caller.hear()
            while final.field != commands.C_GET_RSP or final.status == 0xFF00:
                if final.field == commands.C_STORE_RQ:
                    caller.say(3, operations.respond(final, 0))
                else:
                    pending = final.remaining or 0
                final, octets = caller.hear()
        assert (pending, final.status, final.completed, final.failed) == (65535, 0xB000, 51, 65535)
        failed = dataset.decode_identifier(octets, EXPLICIT_LITTLE)["FailedSOPInstanceUIDList"]
        assert isinstance(failed, list)
        assert failed == [f"2.25.{number}" for number in range(len(failed))] and len(failed) > 5000

    assert listened(serve, script) == [None]
    archive.close()


def test_a_file_that_changes_while_it_is_sent_never_arrives_to_its_end(tmp_path: Path) -> None:
    (sample,) = samples.make_series(tmp_path / "served", instances=1, rows=4096, columns=4096)
    with nodes.serving(tmp_path / "served") as node, Caller(node.port) as caller:
        caller.associate([(operations.STUDY_ROOT_GET, PLAIN), (CT_IMAGE_STORAGE, PLAIN)], takes=(CT_IMAGE_STORAGE,))
        keys = dataset.encode_identifier({"StudyInstanceUID": sample.study_uid}, "STUDY", EXPLICIT_LITTLE)
        caller.say(1, operations.get(5, operations.STUDY_ROOT_GET).request, keys)
        assert caller.pdu()[11] == framing.IS_COMMAND | framing.IS_LAST
        os.utime(sample.path, ns=(1, 1))  # 32 MiB are more than the kernel holds between us
        controls = []
        while (pdu := caller.pdu())[:1] == b"\x04":
            controls.append(pdu[11])
        assert controls and set(controls) == {0}
        assert node.wait_for_event(event="closed")["reason"] == "local"


def test_a_file_that_changed_just_before_is_a_failure_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = samples.make_series(tmp_path, instances=2)
    archive = Archive(str(tmp_path), make_queue=Lander, warn=lambda text: None)
    real = archive.opened

    @contextmanager
    def opened(image: Image) -> Iterator[Opened | None]:
        with real(image) as found:
            if image.uid == made[0].sop_uid:
                os.utime(made[0].path, ns=(1, 1))
            yield found

    monkeypatch.setattr(archive, "opened", opened)

    async def serve(visit: Visit) -> None:
        inbox = Inbox(visit.channel)
        begun = await inbox.next()
        assert isinstance(begun, Begun)
        await inbox.identifier(100)
        retrieval = Retrieval(visit, inbox, archive, begun.context_id, begun.command)
        assert await retrieval.run([archive.index.images[sample.sop_uid] for sample in made]) == 1

    def script(port: int) -> None:
        with Caller(port) as caller:
            caller.associate([(operations.STUDY_ROOT_GET, PLAIN), (CT_IMAGE_STORAGE, PLAIN)], takes=(CT_IMAGE_STORAGE,))
            caller.say(1, operations.get(5, operations.STUDY_ROOT_GET).request, b"")
            store, _ = caller.hear()
            assert store.sop_instance_uid == made[1].sop_uid
            caller.say(3, operations.respond(store, 0))
            final, octets = caller.hear()
        assert (final.status, final.completed, final.failed) == (0xB000, 1, 1)
        failed = dataset.decode_identifier(octets, EXPLICIT_LITTLE)["FailedSOPInstanceUIDList"]
        assert failed == [made[0].sop_uid]

    assert listened(serve, script) == [None]
    archive.close()
