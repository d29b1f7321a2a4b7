"""`dcmsync serve`: help, options, and the wiring of `node` (what is answered) with `net` (who is listened to)."""

from __future__ import annotations

import os
from argparse import Namespace
from functools import partial

from dcmsync.commands.listening import LISTENING, http, run_until_told
from dcmsync.commands.options import TIMEOUT, Command, Option, Streams, duration
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="serve",
    summary="be a small DICOM node over a folder",
    description=(
        "Answers C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE and storage commitment from the folder DIR, until it is told "
        "to stop. The whole folder is read at the start; files that are not whole are named and not served. What is "
        "stored lands as with pull: success is answered when an instance is durable, a UID that is there with other "
        "content is refused with 0x0111.\n\n"
        "C-FIND matches by the attributes that query returns for a folder; a key that is none of them is not matched, "
        "and each answer says so (0xFF01). C-MOVE sends to whom --destination or the configuration names, by AE "
        "title. Storage commitment is said of files that were read to their end just then, and told on the same "
        "association, or to who has left on one of ours, if C-MOVE could send there.\n\n"
        "Instances are sent as they are: one whose transfer syntax the peer does not take is a failed sub-operation, "
        "never transcoded.\n\n"
        "With --http the same folder is served by DICOMweb (QIDO-RS, WADO-RS with metadata and bulk data, STOW-RS: the "
        "base URL is http://HOST:PORT) and WADO-URI (http://HOST:PORT/wado), with TLS where --tls is given, to the "
        "addresses of --allow-from. HTTP has no AE titles and asks for no password. Who names no transfer syntax gets "
        "what is stored; who names others is answered 406; nothing is rendered.\n\n"
        "Writes events to standard output, one JSON object a line: listening (with the port, once peers may connect); "
        "association, and connection by HTTP: opened, closed and refused; move; commitment; rescan. SIGINT or SIGTERM "
        "stops it: it accepts no more, finishes what is in flight (for --timeout at most) and exits 0; a second one "
        "ends it at once."
    ),
    options=(
        Option(flags=("folder",), metavar="DIR", completion="directory", help="the folder to serve and to store in"),
        *LISTENING,
        Option(flags=("--destination",), metavar="NODE", repeat=True, completion="endpoint",
               help="whom C-MOVE may send to, by its AE title: AET@host:port, or a name of the configuration; the "
                    "nodes of the configuration are known already"),
        Option(flags=("--http",), metavar="[HOST:]PORT", parse=http,
               help="answer DICOMweb and WADO-URI too, on a port of its own, 0 for any free one; HOST is that of "
                    "--bind unless given"),
        Option(flags=("--rescan",), metavar="SECONDS", parse=duration,
               help="look this often for files that others put into DIR, changed or took away (30, 5m, 1h); default "
                    "never: what is gone then fails when it is asked for"),
        TIMEOUT,
    ),
    examples=(
        ("dcmsync serve ./archive", "a node for this machine, at DCMSYNC@localhost:11112"),
        ("dcmsync serve ./archive --http 8042", "and a DICOMweb server, at http://127.0.0.1:8042"),
        ("dcmsync serve ./archive --bind 0.0.0.0 --allow MODALITY1 --allow PACS", "a node for two others"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Serves until a signal comes."""
    if not os.path.isdir(arguments.folder):
        raise UsageError(f"{arguments.folder}: no such folder", advice=f"Make it: mkdir -p {arguments.folder}")
    import anyio

    from dcmsync.commands import serving
    from dcmsync.net.patience import Watch
    from dcmsync.node.node import Node
    from dcmsync.records.stream import Writer
    from dcmsync.transfer.lander import Lander

    queue = partial(Lander, gather_s=0)  # each peer waits for the verdict on what it sent
    say = Writer(streams.stdout).write
    with Watch() as watch:
        told = serving.settings(arguments, watch, streams)
        make_http = serving.http(arguments, told)
        with Node(told, watch, make_queue=queue, make_http=make_http, say=say, warn=streams.warn) as node:
            anyio.run(run_until_told, node, told.timeout_s, streams)
    return ExitStatus.DONE
