"""What `serve` is told: the settings of its node, from the options and the configuration.

Owns whom C-MOVE may send to. Refuses to listen.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from os import environ
from typing import TYPE_CHECKING

from msgspec import structs

from dcmsync import config, locator
from dcmsync.commands.listening import allowed_networks, allowed_titles, check_openness, is_loopback, security
from dcmsync.commands.options import DEFAULT_TIMEOUT_S, Streams
from dcmsync.commands.places import Places
from dcmsync.errors import DcmsyncError, UsageError

if TYPE_CHECKING:
    from dcmsync.net.patience import Watch
    from dcmsync.node.moving import Destination
    from dcmsync.node.node import MakeSide, Settings


def settings(arguments: Namespace, watch: Watch, streams: Streams) -> Settings:
    """What the node is told. Raises UsageError, LocalTrouble."""
    from dcmsync.node.node import Settings

    check_openness(arguments)
    local = config.load(arguments.config, environ).local
    return Settings(
        folder=arguments.folder,
        ae_title=arguments.ae,
        host=arguments.bind,
        port=arguments.port,
        calling_aes=allowed_titles(arguments),
        networks=allowed_networks(arguments),
        max_associations=arguments.max_associations,
        timeout_s=arguments.timeout or DEFAULT_TIMEOUT_S,
        secure=security(arguments, local, streams.warn),
        requires_identity=arguments.require_identity,
        rescan_s=arguments.rescan,
        destinations=_destinations(arguments, Places(arguments, watch, streams), streams),
    )


def http(arguments: Namespace, told: Settings) -> MakeSide | None:
    """What opens the HTTP side of the node; None where nobody asked for it. Raises UsageError."""
    if arguments.http is None:
        return None
    host, port = arguments.http
    host = host or arguments.bind
    if not (is_loopback(host) or arguments.allow_from or arguments.allow_any):
        raise UsageError(f"--http on {host} lets other machines connect, and nothing says which may",
                         advice="Name those that may by --allow-from ADDRESS, or give --allow-any: HTTP has no titles")
    if arguments.require_identity:
        raise UsageError("--require-identity is for DIMSE: nobody says who they are by --http",
                         advice="Leave one of the two out")
    from dcmsync.node.web.server import Settings as WebSettings
    from dcmsync.node.web.server import Web

    port_of_ours = WebSettings(host=host, port=port, secure=told.secure, max_requests=told.max_associations)
    return partial(Web, port_of_ours)


def _destinations(arguments: Namespace, places: Places, streams: Streams) -> dict[str, Destination]:
    """By AE title, whom C-MOVE may send to: those that options name go before those of the configuration."""
    configured = config.load(arguments.config, environ).endpoints
    named = list(arguments.destination or [])
    from dcmsync.node.moving import Destination

    found: dict[str, Destination] = {}
    for word in dict.fromkeys([*named, *configured]):
        try:
            place = places.parse(word)
            if not isinstance(place, locator.Node):
                if word in named:
                    raise UsageError(f"{word} is no DIMSE node", advice="Name one, as in AET@host:port")
                continue
            own = place.calling_ae or (configured[word].calling if word in configured else None) or arguments.ae
            peer = structs.replace(places.node(word).peer, calling_ae=own)
            granted = places.quirks(word).max_associations
        except DcmsyncError as trouble:
            if word in named:
                raise
            streams.warn(f"nothing can be sent to {word}: {trouble}")
            continue
        if peer.called_ae in found:
            streams.note(f"{peer.called_ae} is {found[peer.called_ae].peer.name}, not {peer.name}")
        found.setdefault(peer.called_ae, Destination(peer=peer, max_associations=granted))
    return found
