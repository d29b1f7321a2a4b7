"""`dcmsync echo`: one C-ECHO, or one request by HTTP, and its verdict."""

from argparse import Namespace
from typing import Protocol, runtime_checkable

from dcmsync.commands.options import CALLING, TIMEOUT, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="echo",
    summary="see whether a node answers",
    description=(
        "Opens an association with the node, sends C-ECHO, and says how long the answer took. A place that speaks HTTP "
        "is sent the smallest request that it must know: DICOMweb and MINT are asked for one study, WADO-URI for an "
        "instance without a name, RAD-69 for no document. Exit status 0 when it answered with success, 1 when it "
        "answered with anything else, 5 when it cannot be reached, rejected or did not authorise us."
    ),
    options=(
        Option(flags=("endpoint",), metavar="ENDPOINT", completion="endpoint",
               help="the node, as AET@host:port, https://host/path or by name"),
        TIMEOUT,
        CALLING,
    ),
    examples=(
        ("dcmsync echo ORTHANC@localhost:4242", "ask a node by its address"),
        ("dcmsync echo https://pacs.example.org/dicom-web", "ask a DICOMweb service"),
        ("dcmsync echo pacs && dcmsync query pacs PatientID=P1", "query only when it answers"),
    ),
)


@runtime_checkable
class _Echoes(Protocol):
    """A place that can be asked whether it answers: 0, or the status that says it does not. Raises PeerError."""

    @property
    def name(self) -> str: ...

    async def echo(self) -> int: ...


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Asks once."""
    import anyio

    from dcmsync.commands.places import Places
    from dcmsync.locator import Http
    from dcmsync.net.patience import Watch
    from dcmsync.records.stream import Writer

    with Watch() as watch:
        places = Places(arguments, watch, streams)
        place = places.open(arguments.endpoint)
        if not isinstance(place, _Echoes):
            raise UsageError(f"{arguments.endpoint} is no remote place", advice="Name one, as in AET@host:port")
        node = place

        async def ask() -> tuple[int, float]:
            begun = anyio.current_time()
            return await node.echo(), anyio.current_time() - begun

        status, seconds = anyio.run(ask)
    is_http = isinstance(places.parse(arguments.endpoint), Http) and status
    Writer(streams.stdout).write({
        "type": "echo", "endpoint": node.name, "status": str(status) if is_http else f"0x{status:04X}",
        "seconds": round(seconds, 4),
    })  # fmt: skip
    return ExitStatus.DONE if status == 0 else ExitStatus.NO
