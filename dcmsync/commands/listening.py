"""A verb that listens for peers: as whom, where, who may come, how the port is secured, and how a signal ends it.

Owns the option rows of that, and what they mean. Refuses to listen, and to know what is done with who comes.
"""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Protocol

from dcmsync.commands.options import Option, Streams, positive
from dcmsync.errors import UsageError

if TYPE_CHECKING:
    from dcmsync.config import Local
    from dcmsync.net.tls import Secure

Network = IPv4Network | IPv6Network


def port(text: str) -> int:
    """A TCP port, or 0 for any that is free. Raises ValueError with words."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port: write 0 to 65535")
    return int(text)


def title(text: str) -> str:
    """An AE title (PS3.5 §6.2). Raises ValueError with words."""
    stripped = text.strip(" ")
    if not 0 < len(stripped) <= 16 or not stripped.isascii() or not stripped.isprintable() or "\\" in stripped:
        raise ValueError(f"{text!r} is no AE title: 1 to 16 characters of ASCII, without backslash")
    return stripped


def network(text: str) -> Network:
    """An address or a network. Raises ValueError with words."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network: write 192.0.2.7 or 192.0.2.0/24") from None


def http(text: str) -> tuple[str, int]:
    """A host, "" where none is named, and a TCP port: `8042`, `0.0.0.0:8042`, `[::1]:8042`. Raises ValueError."""
    host, _, number = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port(number)


LISTENING: tuple[Option, ...] = (
    Option(flags=("--ae",), metavar="AET", parse=title, default="DCMSYNC",
           help="our AE title, by which peers must call us; default DCMSYNC"),
    Option(flags=("--port",), metavar="N", parse=port, default=11112,
           help="the TCP port, 0 for any free one; default 11112"),
    Option(flags=("--bind",), metavar="ADDRESS", default="127.0.0.1",
           help="the address to listen on; default 127.0.0.1, this machine alone"),
    Option(flags=("--allow",), metavar="AET", parse=title, repeat=True,
           help="a calling AE title that may connect; default all, on this machine alone"),
    Option(flags=("--allow-from",), metavar="ADDRESS", parse=network, repeat=True,
           help="an address, or a network such as 192.0.2.0/24, that may connect; default all"),
    Option(flags=("--allow-any",), help="let anyone connect, from other machines as well"),
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
)


def is_loopback(address: str) -> bool:
    """Whether only this machine can come by an address."""
    return address in ("localhost", "::1") or address.startswith("127.")


def check_openness(arguments: Namespace) -> None:
    """Refuses to listen for other machines when nothing says which may come. Raises UsageError."""
    bind = arguments.bind
    if not (arguments.allow or arguments.allow_from or arguments.allow_any or is_loopback(bind)):
        raise UsageError(f"--bind {bind} lets other machines connect, and nothing says which may",
                         advice="Name those that may by --allow AET or --allow-from ADDRESS, or give --allow-any")


def allowed_titles(arguments: Namespace) -> frozenset[str] | None:
    """The calling AE titles that may come; None where all may."""
    return frozenset(arguments.allow) if arguments.allow and not arguments.allow_any else None


def allowed_networks(arguments: Namespace) -> tuple[Network, ...] | None:
    """The addresses that may come; None where all may."""
    return tuple(arguments.allow_from) if arguments.allow_from and not arguments.allow_any else None


def security(arguments: Namespace, local: Local, warn: Callable[[str], None]) -> Secure | None:
    """How the port is secured; None in plain. Raises UsageError, LocalTrouble."""
    from dcmsync.commands.credentials import listening
    from dcmsync.net import tls

    if not arguments.tls:
        if arguments.certificate or arguments.key or arguments.ca:
            raise UsageError("--certificate, --key and --ca are for a port that speaks TLS", advice="Give --tls too")
        return None
    return tls.server(listening(
        local, certificate=arguments.certificate, key=arguments.key, ca=arguments.ca, warn=warn
    ))  # fmt: skip


class Stoppable(Protocol):
    """What listens, until it is told to stop."""

    @property
    def is_stopping(self) -> bool:
        """Whether it accepts no more."""

    def stop(self) -> None:
        """Accepts no more; `run` returns when what is in flight is done."""

    async def run(self) -> None:
        """Listens."""


async def run_until_told(listener: Stoppable, timeout_s: float, streams: Streams) -> None:
    """Runs what listens. A first SIGINT or SIGTERM stops it, with `timeout_s` to finish; a second one aborts it."""
    import anyio

    async with anyio.create_task_group() as tasks:

        async def mind_signals() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    if listener.is_stopping:
                        tasks.cancel_scope.cancel()
                        return
                    streams.say("stopping; once more to abort")
                    tasks.cancel_scope.deadline = anyio.current_time() + timeout_s
                    listener.stop()

        tasks.start_soon(mind_signals)
        await listener.run()
        tasks.cancel_scope.cancel()
