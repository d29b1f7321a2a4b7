"""`dcmsync echo`: one C-ECHO, and its verdict."""

from argparse import Namespace

from dcmsync.commands.options import CALLING, TIMEOUT, Command, Option, Streams
from dcmsync.errors import ExitStatus

COMMAND = Command(
    name="echo",
    summary="see whether a node answers",
    description=(
        "Opens an association with the node, sends C-ECHO, and says how long the answer took. Exit status 0 when it "
        "answered with success, 1 when it answered with anything else, 5 when it cannot be reached or rejected us."
    ),
    options=(
        Option(flags=("endpoint",), metavar="ENDPOINT", completion="endpoint",
               help="the node, as AET@host:port or by name"),
        TIMEOUT,
        CALLING,
    ),
    examples=(
        ("dcmsync echo ORTHANC@localhost:4242", "ask a node by its address"),
        ("dcmsync echo pacs && dcmsync query pacs PatientID=P1", "query only when it answers"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Asks once."""
    import anyio

    from dcmsync.commands.places import Places
    from dcmsync.net.patience import Watch
    from dcmsync.records.stream import Writer

    with Watch() as watch:
        node = Places(arguments, watch, streams).node(arguments.endpoint)

        async def ask() -> tuple[int, float]:
            begun = anyio.current_time()
            return await node.echo(), anyio.current_time() - begun

        status, seconds = anyio.run(ask)
    Writer(streams.stdout).write(
        {"type": "echo", "endpoint": node.name, "status": f"0x{status:04X}", "seconds": round(seconds, 4)}
    )
    return ExitStatus.DONE if status == 0 else ExitStatus.NO
