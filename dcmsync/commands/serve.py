"""`dcmsync serve`: help, options, and the wiring of `node` (what is answered) with `net` (who is listened to)."""

from __future__ import annotations

import os
import signal
from argparse import Namespace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from dcmsync.commands.options import TIMEOUT, Command, Option, Streams, duration, positive
from dcmsync.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from dcmsync.node.node import Node


def _port(text: str) -> int:
    """A TCP port, or 0 for any that is free. Raises ValueError with words."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port: write 0 to 65535")
    return int(text)


def _title(text: str) -> str:
    """An AE title (PS3.5 §6.2). Raises ValueError with words."""
    title = text.strip(" ")
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(f"{text!r} is no AE title: 1 to 16 characters of ASCII, without backslash")
    return title


def _network(text: str) -> IPv4Network | IPv6Network:
    """An address or a network. Raises ValueError with words."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network: write 192.0.2.7 or 192.0.2.0/24") from None


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
        "Writes events to standard output, one JSON object a line: listening (with the port, once peers may connect); "
        "association: opened, closed and refused; move; commitment; rescan. SIGINT or SIGTERM stops it: it accepts no "
        "more, finishes what is in flight (for --timeout at most) and exits 0; a second one ends it at once."
    ),
    options=(
        Option(flags=("folder",), metavar="DIR", completion="directory", help="the folder to serve and to store in"),
        Option(flags=("--ae",), metavar="AET", parse=_title, default="DCMSYNC",
               help="our AE title, by which peers must call us; default DCMSYNC"),
        Option(flags=("--port",), metavar="N", parse=_port, default=11112,
               help="the TCP port, 0 for any free one; default 11112"),
        Option(flags=("--bind",), metavar="ADDRESS", default="127.0.0.1",
               help="the address to listen on; default 127.0.0.1, this machine alone"),
        Option(flags=("--allow",), metavar="AET", parse=_title, repeat=True,
               help="a calling AE title that may connect; default all, on this machine alone"),
        Option(flags=("--allow-from",), metavar="ADDRESS", parse=_network, repeat=True,
               help="an address, or a network such as 192.0.2.0/24, that may connect; default all"),
        Option(flags=("--allow-any",), help="let anyone connect, from other machines as well"),
        Option(flags=("--destination",), metavar="NODE", repeat=True, completion="endpoint",
               help="whom C-MOVE may send to, by its AE title: AET@host:port, or a name of the configuration; the "
                    "nodes of the configuration are known already"),
        Option(flags=("--tls",), help="speak TLS, and nothing else: certificate and key are those of [local] in the "
                                      "configuration, or named here"),
        Option(flags=("--certificate",), metavar="FILE", completion="file", help="with --tls: our certificate, PEM"),
        Option(flags=("--key",), metavar="FILE", completion="file",
               help="with --certificate: its key, PEM; default: in the same file"),
        Option(flags=("--ca",), metavar="FILE", completion="file",
               help="with --tls: only those may come for whom these authorities vouch, PEM"),
        Option(flags=("--require-identity",),
               help="only those may come who say which user they are; what they say is not checked against anything"),
        Option(flags=("--max-associations",), metavar="N", parse=positive, default=32,
               help="associations at a time; default 32"),
        Option(flags=("--rescan",), metavar="SECONDS", parse=duration,
               help="look this often for files that others put into DIR, changed or took away (30, 5m, 1h); default "
                    "never: what is gone then fails when it is asked for"),
        TIMEOUT,
    ),
    examples=(
        ("dcmsync serve ./archive", "a node for this machine, at DCMSYNC@localhost:11112"),
        ("dcmsync serve ./archive --bind 0.0.0.0 --allow MODALITY1 --allow PACS", "a node for two others"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Serves until a signal comes."""
    if not os.path.isdir(arguments.folder):
        raise UsageError(f"{arguments.folder}: no such folder", advice=f"Make it: mkdir -p {arguments.folder}")
    import anyio

    from dcmsync.commands.serving import settings
    from dcmsync.net.patience import Watch
    from dcmsync.node.node import Node
    from dcmsync.records.stream import Writer
    from dcmsync.transfer.lander import Lander

    queue = partial(Lander, gather_s=0)  # each peer waits for the verdict on what it sent
    say = Writer(streams.stdout).write
    with Watch() as watch:
        told = settings(arguments, watch, streams)
        with Node(told, watch, make_queue=queue, say=say, warn=streams.warn) as node:
            anyio.run(_serve, node, told.timeout_s, streams)
    return ExitStatus.DONE


async def _serve(node: Node, timeout_s: float, streams: Streams) -> None:
    """Runs the node under the eye of the signals."""
    import anyio

    async with anyio.create_task_group() as tasks:

        async def mind_signals() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    if node.is_stopping:
                        tasks.cancel_scope.cancel()
                        return
                    streams.say("stopping; once more to abort")
                    tasks.cancel_scope.deadline = anyio.current_time() + timeout_s
                    node.stop()

        tasks.start_soon(mind_signals)
        await node.run()
        tasks.cancel_scope.cancel()

