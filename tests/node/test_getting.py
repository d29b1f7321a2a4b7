"""C-GET of more than the fields of a response can count."""

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from dcmsync.net.channel import Begun, Limits
from dcmsync.net.listener import Listener, Settings, Visit
from dcmsync.net.patience import Watch
from dcmsync.node.archive import Archive
from dcmsync.node.getting import Retrieval
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Image
from dcmsync.node.policy import Policy
from dcmsync.transfer.lander import Lander
from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from tests import samples
from tests.nodes import Caller
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

pytestmark = pytest.mark.slow

PLAIN = (EXPLICIT_LITTLE,)


def image(number: int) -> Image:
    return Image(uid=f"2.25.{number}", sop_class_uid="1.2.3", transfer_syntax_uid=EXPLICIT_LITTLE, path="", size=0,
                 mtime_ns=0, data_set_offset=0, values=())


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

    async def main() -> None:
        why: list[Exception | None] = []
        with Watch() as watch:
            settings = Settings(host="127.0.0.1", port=0, decide=Policy(ae_title="DCMSYNC").decide, serve=serve,
                                closed=lambda visit, trouble: why.append(trouble))
            listener = Listener(settings, Limits(), watch)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.run)
                await anyio.to_thread.run_sync(script, listener.port)
                listener.stop()
        assert why == [None]

    anyio.run(main)
    archive.close()
