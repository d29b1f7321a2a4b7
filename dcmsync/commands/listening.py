"""The option rows of a verb that listens for peers: as whom, where, and who may come."""

from __future__ import annotations

from argparse import Namespace

from dcmsync.commands.options import Option, positive
from dcmsync.errors import UsageError


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


LISTENING: tuple[Option, ...] = (
    Option(flags=("--ae",), metavar="AET", parse=title, default="DCMSYNC",
           help="our AE title, by which peers must call us; default DCMSYNC"),
    Option(flags=("--port",), metavar="N", parse=port, default=11112,
           help="the TCP port, 0 for any free one; default 11112"),
    Option(flags=("--bind",), metavar="ADDRESS", default="127.0.0.1",
           help="the address to listen on; default 127.0.0.1, this machine alone"),
    Option(flags=("--allow",), metavar="AET", parse=title, repeat=True,
           help="a calling AE title that may connect; default all, on this machine alone"),
    Option(flags=("--allow-any",), help="let anyone connect, from other machines as well"),
    Option(flags=("--max-associations",), metavar="N", parse=positive, default=32,
           help="associations at a time; default 32"),
)


def check_openness(arguments: Namespace) -> None:
    """Refuses to listen for other machines when nothing says which may come. Raises UsageError."""
    bind = arguments.bind
    is_loopback = bind in ("localhost", "::1") or bind.startswith("127.")
    if not (arguments.allow or arguments.allow_any or is_loopback):
        raise UsageError(f"--bind {bind} lets other machines connect, and nothing says which may",
                         advice="Name those that may by --allow AET, or give --allow-any")
