"""The table of places: which module opens which kind of locator. Modules are named by string, imported when needed."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from dcmsync.contract import Catalogue, Source
from dcmsync.locator import Ahi, Archive, Folder, Locator, Mint, Node, Rad69, WadoUri, Web, Xnat
from dcmsync.quirks import Quirks
from dcmsync.wire.digests import Digests
from dcmsync.wire.upperlayer.extension import Wishes

if TYPE_CHECKING:
    from dcmsync.net.http import Authority, Door
    from dcmsync.net.mailbox import Mailbox
    from dcmsync.net.patience import Watch
    from dcmsync.net.throttle import Throttle
    from dcmsync.net.tls import Spoken, Terms
    from dcmsync.wire.upperlayer.identity import Identity

KINDS: dict[type, str] = {
    Node: "dcmsync.endpoints.dimse.place:open_node",
    Folder: "dcmsync.endpoints.folder.place:open_folder",
    Archive: "dcmsync.endpoints.zip.place:open_archive",
    Web: "dcmsync.endpoints.dicomweb.place:open_dicomweb",
    WadoUri: "dcmsync.endpoints.wado.place:open_wado",
    Mint: "dcmsync.endpoints.mint.place:open_mint",
    Rad69: "dcmsync.endpoints.rad69.place:open_rad69",
    Xnat: "dcmsync.endpoints.xnat.place:open_xnat",
    Ahi: "dcmsync.endpoints.ahi.place:open_ahi",
}


class Access(Struct, frozen=True, kw_only=True):
    """How a node lets us in. Without `terms` it is spoken to in plain; `identity` says who the user is."""

    terms: "Terms | None" = None
    identity: "Callable[[], Identity] | None" = None
    identity_required: bool = False


class WebAccess(Struct, frozen=True, kw_only=True):
    """How a place that speaks HTTP lets us in. `terms` are those of TLS, `authority` shows who we are, `proxy` is the
    URL of one, `headers` go with each request.
    """

    terms: "Terms | None" = None
    authority: "Authority | None" = None
    proxy: str = ""
    headers: Mapping[str, str] = {}


class Dialect(Struct, frozen=True, kw_only=True):
    """How a place that speaks HTTP is spoken to. `date_parameters`: how a MINT search writes them. `repository` and
    `home_community` are OIDs that an Imaging Document Source is to be told, `ignored_errors` codes of its that are
    nothing to complain about.
    """

    date_parameters: Literal["camel", "snake"] = "camel"
    repository: str = ""
    home_community: str = ""
    ignored_errors: tuple[str, ...] = ()


class AwsAccess(Struct, frozen=True, kw_only=True):
    """How AWS lets us in: `signer` signs requests for `region`. `endpoint_url` is where its hosts are to be found
    instead; `image_sets`: which ones of HealthImaging count, "" for undecided; `retrieve_by`: what it is asked for.
    """

    region: str
    signer: "Authority"
    endpoint_url: str = ""
    image_sets: Literal["", "primary", "all"] = ""
    retrieve_by: Literal["instance", "frames"] = "instance"


class Setting(Struct, frozen=True, kw_only=True):
    """What a place is opened with. Remote ones: who we are there, and how patient to be. Local ones: `catalogue`
    gives what is remembered of the place at a path, `skipped` hears the path and why of what is passed by, `warn` what
    may surprise. DIMSE nodes: `via` says by which service they give, None for what they offer; `mailbox` opens where
    the instances of a C-MOVE arrive, and `senders` are other hosts that they may come from; `quirks` are to be heeded;
    `access` says how we are let in, `model` and `wishes` how it is asked. Places that speak HTTP: `web` says how we are
    let in, `dialect` how they are spoken to, `spoken` hears what TLS came to. `throttle` slows all traffic down.
    `digests`: how those of the members of an archive are computed.
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
    web: WebAccess = WebAccess()
    aws: AwsAccess | None = None
    dialect: Dialect = Dialect()
    spoken: "Callable[[Spoken], None] | None" = None
    digests: Digests | None = None

    def door(self, base: str, name: str) -> "Door":
        """HTTP to a base URL, for a place that messages call `name`. Opens no connection."""
        from dcmsync.net import tls  # lazy: only who speaks HTTP pays for it
        from dcmsync.net.channel import Limits
        from dcmsync.net.http import Door
        from dcmsync.net.tls import Terms

        return Door(
            base,
            name=name,
            limits=Limits(timeout_s=self.timeout_s, throttle=self.throttle),
            secure=tls.client(self.web.terms or Terms()) if base.startswith("https:") else None,
            authority=self.web.authority or (self.aws.signer if self.aws else None),
            proxy=self.web.proxy,
            headers=self.web.headers,
            strict=self.aws is not None,  # a signature is of the query in strict encoding
            spoken=self.spoken,
            warn=self.warn,
        )


def open_place(locator: Locator, setting: Setting) -> Source:
    """The place that a locator names. Opens no connection, and reads nothing yet."""
    name, _, function = KINDS[type(locator)].partition(":")
    opened: Source = getattr(import_module(name), function)(locator, setting)
    return opened
