"""Which keys of an endpoint mean something for which kind of place.

Owns the table: what would be read and ignored is refused. What else is wrong with a key is said by who uses it.
"""

from collections.abc import Mapping

from msgspec.structs import fields

from dcmsync.config import Endpoint
from dcmsync.errors import UsageError
from dcmsync.locator import Ahi, Locator, Mint, Node, Rad69, WadoUri, Web, Xnat

Kinds = tuple[type, ...]

_REMOTE: Kinds = (Node, Web, WadoUri, Mint, Rad69, Xnat, Ahi)
_MEANT: Mapping[str, tuple[tuple[str, ...], Kinds]] = {
    "DIMSE nodes": (("calling", "via", "senders", "model", "timezone"), (Node,)),
    "DIMSE nodes and DICOMweb": (("relational", "fuzzy"), (Node, Web)),
    "places on another machine": (
        ("ca", "server_name", "certificate", "key", "key_password_file", "key_password_command", "verify", "user",
         "password_file", "password_command", "netrc", "token_file", "token_command", "identity", "identity_required"),
        _REMOTE,
    ),
    "DICOMweb, WADO-URI, MINT and RAD-69": (("login", "login_url", "realm"), (Web, WadoUri, Mint, Rad69)),
    "MINT": (("date_parameters",), (Mint,)),
    "RAD-69": (("repository", "home_community", "ignore_errors"), (Rad69,)),
    "AWS HealthImaging (ahi://)": (("image_sets", "retrieve_by"), (Ahi,)),
}  # fmt: skip
_DEFAULTS = {field.name: field.default for field in fields(Endpoint)}


def check(place: Locator, endpoint: Endpoint, name: str) -> None:
    """Raises UsageError when a key is set that says nothing to such a place; `name` is how messages call it."""
    for whom, (keys, kinds) in _MEANT.items():
        said = [key for key in keys if getattr(endpoint, key) != _DEFAULTS[key]]
        if said and not isinstance(place, kinds):
            raise UsageError(f"{name}: {said[0]} is for {whom}", advice="Leave it out")
    if endpoint.login is None and (endpoint.login_url or endpoint.realm != _DEFAULTS["realm"]):
        raise UsageError(f"{name}: login_url and realm say nothing without login",
                         advice="Set login, or leave them out")  # fmt: skip
