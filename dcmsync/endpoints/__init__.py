"""The table of places: which module opens which kind of locator. Modules are named by string, imported when needed."""

from importlib import import_module
from typing import TYPE_CHECKING

from dcmsync.errors import UsageError
from dcmsync.locator import Folder, Locator, Node

if TYPE_CHECKING:
    from dcmsync.endpoints.dimse import DimseNode
    from dcmsync.net.patience import Watch

KINDS = {Node: "dcmsync.endpoints.dimse:open_node"}


def open_place(locator: Locator, *, calling_ae: str, timeout_s: float, watch: "Watch") -> "DimseNode":
    """The remote place that a locator names. Opens no connection yet. Raises UsageError for a local one."""
    if isinstance(locator, Folder):
        raise UsageError(f"{locator} is a folder, and folders cannot be asked yet", advice="Name a DIMSE node")
    module, _, function = KINDS[type(locator)].partition(":")
    opened: DimseNode = getattr(import_module(module), function)(
        locator, calling_ae=calling_ae, timeout_s=timeout_s, watch=watch
    )
    return opened
