"""What `serve` is told: the settings of its node, from the options and the configuration.

Owns who may come, whom C-MOVE may send to, and how the port is secured. Refuses to listen.
"""

from __future__ import annotations

from argparse import Namespace
from os import environ
from typing import TYPE_CHECKING

from msgspec import structs

from dcmsync import config, locator
from dcmsync.commands.options import DEFAULT_TIMEOUT_S, Streams
from dcmsync.commands.places import Places
from dcmsync.errors import DcmsyncError, UsageError

if TYPE_CHECKING:
    from dcmsync.net.association import Peer
    from dcmsync.net.patience import Watch
    from dcmsync.net.tls import Secure
    from dcmsync.node.node import Settings


def settings(arguments: Namespace, watch: Watch, streams: Streams) -> Settings:
    """What the node is told. Raises UsageError, LocalTrouble."""
    from dcmsync.node.node import Settings

    if not (arguments.allow or arguments.allow_from or arguments.allow_any or _is_loopback(arguments.bind)):
        raise UsageError(f"--bind {arguments.bind} lets other machines connect, and nothing says which may",
                         advice="Name those that may by --allow AET or --allow-from ADDRESS, or give --allow-any")
    local = config.load(arguments.config, environ).local
    is_open = arguments.allow_any
    return Settings(
        folder=arguments.folder,
        ae_title=arguments.ae,
        host=arguments.bind,
        port=arguments.port,
        calling_aes=frozenset(arguments.allow) if arguments.allow and not is_open else None,
        networks=tuple(arguments.allow_from) if arguments.allow_from and not is_open else None,
        max_associations=arguments.max_associations,
        timeout_s=arguments.timeout or DEFAULT_TIMEOUT_S,
        secure=_secure(arguments, local, streams),
        requires_identity=arguments.require_identity,
        rescan_s=arguments.rescan,
        destinations=_destinations(arguments, Places(arguments, watch, streams), streams),
    )


def _secure(arguments: Namespace, local: config.Local, streams: Streams) -> Secure | None:
    """How the port is secured; None in plain."""
    from dcmsync.commands.credentials import listening
    from dcmsync.net import tls

    if not arguments.tls:
        if arguments.certificate or arguments.key or arguments.ca:
            raise UsageError("--certificate, --key and --ca are for a port that speaks TLS", advice="Give --tls too")
        return None
    return tls.server(listening(
        local, certificate=arguments.certificate, key=arguments.key, ca=arguments.ca, warn=streams.warn
    ))  # fmt: skip


def _destinations(arguments: Namespace, places: Places, streams: Streams) -> dict[str, Peer]:
    """By AE title, whom C-MOVE may send to: those that options name go before those of the configuration."""
    configured = config.load(arguments.config, environ).endpoints
    named = list(arguments.destination or [])
    found: dict[str, Peer] = {}
    for word in dict.fromkeys([*named, *configured]):
        try:
            place = places.parse(word)
            if not isinstance(place, locator.Node):
                if word in named:
                    raise UsageError(f"{word} is no DIMSE node", advice="Name one, as in AET@host:port")
                continue
            own = place.calling_ae or (configured[word].calling if word in configured else None) or arguments.ae
            peer = structs.replace(places.node(word).peer, calling_ae=own)
        except DcmsyncError as trouble:
            if word in named:
                raise
            streams.warn(f"nothing can be sent to {word}: {trouble}")
            continue
        if peer.called_ae in found:
            streams.note(f"{peer.called_ae} is {found[peer.called_ae].name}, not {peer.name}")
        found.setdefault(peer.called_ae, peer)
    return found


def _is_loopback(address: str) -> bool:
    return address == "localhost" or address == "::1" or address.startswith("127.")
