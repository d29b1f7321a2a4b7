"""The table of places: which module opens which kind of locator. Modules are named by string, imported when needed."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from dcmsync.contract import Catalogue, Source
from dcmsync.locator import Archive, Folder, Locator, Node
from dcmsync.quirks import Quirks
from dcmsync.wire.upperlayer.extension import Wishes

if TYPE_CHECKING:
    from dcmsync.net.mailbox import Mailbox
    from dcmsync.net.patience import Watch
    from dcmsync.net.throttle import Throttle
    from dcmsync.net.tls import Terms
    from dcmsync.wire.upperlayer.identity import Identity

KINDS: dict[type, str] = {
    Node: "dcmsync.endpoints.dimse.place:open_node",
    Folder: "dcmsync.endpoints.folder.place:open_folder",
    Archive: "dcmsync.endpoints.zip.place:open_archive",
}


class Access(Struct, frozen=True, kw_only=True):
    """How a node lets us in. Without `terms` it is spoken to in plain; `identity` says who the user is."""

    terms: "Terms | None" = None
    identity: "Callable[[], Identity] | None" = None
    identity_required: bool = False


class Setting(Struct, frozen=True, kw_only=True):
    """What a place is opened with. Remote ones: who we are there, and how patient to be. Local ones: `catalogue`
    gives what is remembered of the place at a path, `skipped` hears the path and why of what is passed by, `warn` what
    may surprise. DIMSE nodes: `via` says by which service they give, None for what they offer; `mailbox` opens where
    the instances of a C-MOVE arrive, and `senders` are other hosts that they may come from; `quirks` are to be heeded;
    `access` says how we are let in, `model` and `wishes` how it is asked; `throttle` slows all traffic down.
    """

    calling_ae: str
    timeout_s: float
    watch: "Watch"
    catalogue: Callable[[str], Catalogue]
    skipped: Callable[[str, str], None]
    warn: Callable[[str], None]
    via: Literal["get", "move"] | None = None
    mailbox: "Callable[[], Mailbox] | None" = None
    senders: tuple[str, ...] = ()
    quirks: Quirks = Quirks()
    access: Access = Access()
    model: Literal["study", "patient", "patient-study"] = "study"
    wishes: Wishes = Wishes()
    throttle: "Throttle | None" = None


def open_place(locator: Locator, setting: Setting) -> Source:
    """The place that a locator names. Opens no connection, and reads nothing yet."""
    module, _, function = KINDS[type(locator)].partition(":")
    opened: Source = getattr(import_module(module), function)(locator, setting)
    return opened
