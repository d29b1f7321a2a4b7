"""The configuration: one TOML file and the environment, read once, frozen.

Owns where the file is, what may stand in it, the words that explain each key, and the words about what may not stand.
Refuses to judge what the values mean: a locator is parsed by `locator.py`, a selector by `plan/expression.py`, quirks
by `plan/quirks.py`.

Which file: `--config FILE`, else DCMSYNC_CONFIG, else `config.toml` in the user's configuration folder for dcmsync.
A file that was named must be there; the default one may be missing. DCMSYNC_ENDPOINT_<NAME>_<KEY> and
DCMSYNC_LOCAL_<KEY> go before the file.

The fields below are the one source: what is said with each of them stands in the template, in dcmsync-locators(7), and
in complaints. A field without a description fails a test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from dcmsync import toml
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.keys import Key, complaint, faults, keys

DEFAULT_AE_TITLE = "DCMSYNC"
DEFAULT_PORT = 11112
FILE = "DCMSYNC_CONFIG"
_ENDPOINT, _LOCAL = "DCMSYNC_ENDPOINT_", "DCMSYNC_LOCAL_"


class Local(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This side."""

    ae_title: Annotated[str, Meta(
        description="our own AE title, where neither the command line nor the endpoint names another",
        examples=["RESEARCH1"])] = DEFAULT_AE_TITLE  # fmt: skip
    port: Annotated[int, Meta(
        ge=1, le=65535, description="where nodes send to that give by C-MOVE; they must know it", examples=[11113],
        )] = DEFAULT_PORT  # fmt: skip
    bind: Annotated[str, Meta(
        description="the address to listen on for what C-MOVE brings; all of this machine where it is not set",
        examples=["192.0.2.7"])] = ""  # fmt: skip
    tls: Annotated[bool, Meta(
        description="whether nodes must speak TLS, and nothing else, where they send to us: what C-MOVE brings, and "
        "reports of storage commitment", examples=[True])] = False  # fmt: skip
    certificate: Annotated[str, Meta(
        description="the certificate of a port of ours that speaks TLS (tls above, serve --tls, route --tls), with "
        "those that lead to its authority, a PEM file", examples=["/etc/ssl/archive.crt"])] | None = None  # fmt: skip
    key: Annotated[str, Meta(
        description="the key of that certificate, a PEM file; where it is not set, it stands in the same file",
        examples=["/etc/ssl/private/archive.key"])] | None = None
    key_password_file: Annotated[str, Meta(
        description="the file whose first line is the password of that key", examples=["~/.config/dcmsync/key"],
        )] | None = None  # fmt: skip
    key_password_command: Annotated[str, Meta(
        description="the command whose first line of output is the password of that key",
        examples=["pass show archive/key"])] | None = None
    ca: Annotated[str, Meta(
        description="the authorities that must vouch for whoever comes to that port, a PEM file; anybody may come, "
        "where it is not set", examples=["/etc/ssl/hospital-ca.pem"])] | None = None  # fmt: skip


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named place."""

    locator: Annotated[str, Meta(
        description="where it is: AET@host:port, a folder, an archive", examples=["ARCHIVE@pacs.example.org:11112"])]
    jobs: Annotated[int, Meta(
        ge=1, description="how many series to bring from there at a time", examples=[4])] | None = None
    calling: Annotated[str, Meta(
        description="our AE title there, where it is another", examples=["RESEARCH2"])] | None = None
    timeout: Annotated[float, Meta(
        gt=0, description="give up when it makes no progress for this many seconds", examples=[120.0])] | None = None
    via: Annotated[Literal["get", "move"], Meta(
        description="by which service it gives: get (C-GET) or move (C-MOVE to us); C-GET where it is offered, else "
        "C-MOVE, where it is not set", examples=["move"])] | None = None  # fmt: skip
    senders: Annotated[tuple[str, ...], Meta(
        description="other hosts than its own that it sends from, with C-MOVE", examples=[["192.0.2.8"]])] = ()
    profile: Annotated[str, Meta(
        description="quirks that are known of a kind of server; what stands below goes before it",
        examples=["orthanc"])] | None = None
    quirks: Annotated[tuple[str, ...], Meta(
        description="what it does otherwise than the standard says", examples=[["no-counts", "no-uid-lists"]])] = ()
    ignores_keys: Annotated[tuple[str, ...], Meta(
        description="keys that it does not match by: they are not sent as such, but matched here",
        examples=[["StudyDescription"]])] = ()
    limit: Annotated[int, Meta(
        ge=1, description="it lists no more than this many: a list that long is taken for cut, and asked for in parts",
        examples=[500])] | None = None
    charset: Annotated[str, Meta(
        description="the character set (PS3.3, C.12.1.1.2) where it names none, or one that cannot be right",
        examples=["ISO_IR 100"])] | None = None
    max_associations: Annotated[int, Meta(
        ge=1, description="how many associations it grants us at a time", examples=[2])] | None = None
    model: Annotated[Literal["study", "patient", "patient-study"], Meta(
        description="by which information model it is asked: study (Study Root), patient (Patient Root) or "
        "patient-study (Patient/Study Only: nothing below studies)", examples=["patient"])] = "study"  # fmt: skip
    relational: Annotated[bool, Meta(
        description="ask for relational queries: where it agrees, one query takes the place of a walk from studies "
        "down", examples=[True])] = False  # fmt: skip
    fuzzy: Annotated[bool, Meta(
        description="ask for fuzzy matching of person names", examples=[True])] = False
    timezone: Annotated[bool, Meta(
        description="ask for dates and times in our own time zone", examples=[True])] = False
    ca: Annotated[str, Meta(
        description="with dicoms:// and https://: the authorities that may vouch for it, a PEM file; the system's, "
        "where it is not set", examples=["/etc/ssl/hospital-ca.pem"])] | None = None  # fmt: skip
    server_name: Annotated[str, Meta(
        description="with dicoms:// and https://: whom its certificate must name, where that is not the host of the "
        "locator",
        examples=["pacs.example.org"])] | None = None  # fmt: skip
    certificate: Annotated[str, Meta(
        description="with dicoms:// and https://: our own certificate, with those that lead to its authority, a PEM "
        "file",
        examples=["/etc/ssl/research1.crt"])] | None = None  # fmt: skip
    key: Annotated[str, Meta(
        description="the key of our certificate, a PEM file; where it is not set, it stands in the same file",
        examples=["/etc/ssl/private/research1.key"])] | None = None
    key_password_file: Annotated[str, Meta(
        description="the file whose first line is the password of the key", examples=["~/.config/dcmsync/key"],
        )] | None = None  # fmt: skip
    key_password_command: Annotated[str, Meta(
        description="the command whose first line of output is the password of the key",
        examples=["pass show pacs/key"])] | None = None
    tls_profile: Annotated[Literal["bcp195", "modified"], Meta(
        description="with dicoms:// and https://: the profile of PS3.15: bcp195 (B.12), or modified (B.13), with "
        "keys of 256 bits alone", examples=["modified"])] = "bcp195"  # fmt: skip
    verify: Annotated[bool, Meta(
        description="with dicoms:// and https://: false lets anybody pass for it; each run warns of that",
        examples=[True])] = True  # fmt: skip
    user: Annotated[str, Meta(
        description="the user that we are there (user identity negotiation; with HTTP: Basic)",
        examples=["ada"])] | None = None
    password_file: Annotated[str, Meta(
        description="the file whose first line is the password of the user", examples=["~/.config/dcmsync/ada"],
        )] | None = None  # fmt: skip
    password_command: Annotated[str, Meta(
        description="the command whose first line of output is the password of the user",
        examples=["pass show pacs/ada"])] | None = None
    netrc: Annotated[bool, Meta(
        description="take user and password of its host from ~/.netrc, or the file that NETRC names",
        examples=[True])] = False
    token_file: Annotated[str, Meta(
        description="the file that holds the token of the user: a JSON web token, or an assertion; with HTTP: a bearer "
        "token",
        examples=["/run/user/1000/token"])] | None = None
    token_command: Annotated[str, Meta(
        description="the command that writes the token of the user; it is run for each association, with HTTP once and "
        "when the token is refused",
        examples=["get-token --audience pacs"])] | None = None
    identity: Annotated[Literal["user", "password", "jwt", "saml", "kerberos"], Meta(
        description="what kind of identity is given; where it is not set: password where there is one, jwt where "
        "there is a token, else user", examples=["saml"])] | None = None  # fmt: skip
    identity_required: Annotated[bool, Meta(
        description="leave it unless it answers that it accepts the identity", examples=[True])] = False
    token_url: Annotated[str, Meta(
        description="with HTTP: where a token is had by client_id and its secret (OAuth2 client credentials)",
        examples=["https://login.example.org/oauth2/token"])] | None = None  # fmt: skip
    client_id: Annotated[str, Meta(
        description="with token_url: the client that we are", examples=["dcmsync"])] | None = None
    client_secret_file: Annotated[str, Meta(
        description="with token_url: the file whose first line is the secret of the client",
        examples=["~/.config/dcmsync/client"])] | None = None  # fmt: skip
    client_secret_command: Annotated[str, Meta(
        description="with token_url: the command whose first line of output is the secret of the client",
        examples=["pass show pacs/client"])] | None = None  # fmt: skip
    scope: Annotated[str, Meta(
        description="with token_url: what the token is to allow", examples=["dicom.read"])] | None = None
    proxy: Annotated[str, Meta(
        description="with HTTP: the proxy that leads there, or none for a direct way; HTTPS_PROXY, HTTP_PROXY and "
        "NO_PROXY of the environment, where it is not set", examples=["http://proxy.example.org:3128"],
        )] | None = None  # fmt: skip
    retrieve: Annotated[str, Meta(
        description="the endpoint that gives what this one lists, by its name: it is asked, and the other fetched from",
        examples=["wado"])] | None = None  # fmt: skip
    login: Annotated[Literal["vitrea", "impax"], Meta(
        description="with HTTP: the login that leaves a cookie, as Vitrea Connection or IMPAX has it",
        examples=["vitrea"])] | None = None  # fmt: skip
    login_url: Annotated[str, Meta(
        description="with login: where to log in", examples=["https://pacs.example.org:8080/rest/api/login"],
        )] | None = None  # fmt: skip
    realm: Annotated[str, Meta(
        description="with login = vitrea: the realm of the user", examples=["DefaultSystemRealm"],
        )] = "DefaultSystemRealm"  # fmt: skip
    date_parameters: Annotated[Literal["camel", "snake"], Meta(
        description="with mint+https://: how it writes its parameters for dates: camel (minStudyDate) or snake "
        "(min_study_date)", examples=["snake"])] = "camel"  # fmt: skip
    repository: Annotated[str, Meta(
        description="with rad69+https://: the OID of the repository that documents are asked of",
        examples=["1.3.6.1.4.1.1000"])] = ""  # fmt: skip
    home_community: Annotated[str, Meta(
        description="with rad69+https://: the OID of the community, where a gateway wants to be told",
        examples=["urn:oid:1.3.6.1.4.1.2000"])] = ""  # fmt: skip
    ignore_errors: Annotated[tuple[str, ...], Meta(
        description="with rad69+https://: error codes that are nothing to complain about; what did not arrive is "
        "missing all the same", examples=[["XDSRepositoryError"]])] = ()  # fmt: skip

    region: Annotated[str, Meta(
        description="with ahi://, and DICOMweb of AWS: the region; that of the locator, the environment or the "
        "profile, where it is not set", examples=["us-east-1"])] | None = None  # fmt: skip
    aws_profile: Annotated[str, Meta(
        description="with ahi://, and DICOMweb of AWS: the profile of the AWS tools that says who we are; the "
        "environment, or the default profile, where it is not set", examples=["imaging"])] | None = None  # fmt: skip
    endpoint_url: Annotated[str, Meta(
        description="with ahi://: where to find it, in place of the hosts of AWS",
        examples=["https://vpce-1.medical-imaging.us-east-1.vpce.amazonaws.com"])] | None = None
    image_sets: Annotated[Literal["primary", "all"], Meta(
        description="with ahi://: primary leaves out image sets that contradict others, all has them too; where it is "
        "not set, a list that they belong to is incomplete", examples=["primary"])] | None = None  # fmt: skip
    retrieve_by: Annotated[Literal["instance", "frames"], Meta(
        description="with ahi://: instance fetches whole files; frames, for where those are not given, makes files of "
        "metadata and frames, which are not octet for octet what was imported", examples=["frames"]),
    ] | None = None  # fmt: skip


class Selector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named filter, for --where and filter as @NAME: lists of expressions, all three of which must hold."""

    all_of: Annotated[tuple[str, ...], Meta(
        description="expressions that must all be true", examples=[["Modality=CT", "SliceThickness<1.5"]])] = ()
    any_of: Annotated[tuple[str, ...], Meta(
        description="expressions of which one at least must be true", examples=[["StudyDescription~thorax"]])] = ()
    none_of: Annotated[tuple[str, ...], Meta(
        description="expressions that must all be false", examples=[["SeriesDescription~scout"]])] = ()

    def lists(self) -> Mapping[str, tuple[str, ...]]:
        """The lists by name."""
        return {"all_of": self.all_of, "any_of": self.any_of, "none_of": self.none_of}


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule of a route."""

    to: Annotated[tuple[str, ...], Meta(
        description="the places where what the rule is true of goes", examples=[["pacs2", "./archive"]])]
    when: Annotated[str | tuple[str, ...], Meta(
        description="the expression, or expressions that must all be true; without any, it is true of everything",
        examples=["Modality=CT,MR"])] = ()
    edits: Annotated[tuple[str, ...] | None, Meta(
        description="the edits on the way there, in place of those of the route",
        examples=[["PatientName=", "uid-remap"]])] = None


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where things go, for route, and for sync --route."""

    rules: Annotated[tuple[Rule, ...], Meta(description="the rules, in their order")] = ()
    match: Annotated[Literal["first", "all"], Meta(
        description="whether the first rule that is true counts, or all that are", examples=["all"])] = "first"
    per: Annotated[Literal["study", "series", "instance"], Meta(
        description="what is decided on: what holds for the first instance of it holds for the rest",
        examples=["series"])] = "study"
    default: Annotated[tuple[str, ...], Meta(
        description="the places where everything else goes", examples=[["pacs"]])] = ()
    exclude: Annotated[tuple[str, ...], Meta(
        description="expressions: what any of them is true of goes nowhere",
        examples=[["Modality=SR", "@scouts"]])] = ()
    edits: Annotated[tuple[str, ...], Meta(
        description="edits on the way: KEY=VALUE, KEY= to empty, KEY- to delete, uid-remap",
        examples=[["PatientID=X1", "OtherPatientIDs-"]])] = ()
    salt_file: Annotated[str | None, Meta(
        description="with uid-remap: the file with the secret on which the new UIDs depend",
        examples=["~/.config/dcmsync/salt"])] = None
    keep_originals: Annotated[bool, Meta(
        description="keep what edits replace in the Original Attributes Sequence of each instance",
        examples=[True])] = False


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that may be set."""

    local: Local = Local()
    endpoints: Mapping[str, Endpoint] = {}
    selectors: Mapping[str, Selector] = {}
    routes: Mapping[str, Route] = {}


class Reading(Struct, frozen=True, kw_only=True):
    """A configuration, and where it is from: the file that counts (which may be missing), its text, and by the path of
    a value the variable that set it.
    """

    config: Config
    file: Path
    text: str | None
    variables: Mapping[toml.Path, str] = {}


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration that counts; `path` is what --config says. Raises as `read` does."""
    return read(path, environ).config


def read(path: str | None, environ: Mapping[str, str]) -> Reading:
    """The configuration that counts, and where it is from; `path` is what --config says.

    Raises UsageError when a file that was named is missing or anything is wrong, LocalTrouble when it cannot be read.
    """
    file = which(path, environ)
    text = text_of(file)
    if text is None and (path or environ.get(FILE)):
        raise UsageError(f"{file}: there is no such configuration file", advice="Make one: dcmsync config edit")
    tables = _tables(text, str(file)) if text else {}
    variables = _override(tables, environ)
    return Reading(config=_converted(tables, str(file)), file=file, text=text, variables=variables)


def parse(text: str, place: str = "configuration") -> Config:
    """The configuration that `text` says; `place` names it in errors.

    Raises UsageError, with the nearest name where one is unknown.
    """
    return _converted(_tables(text, place), place)


def which(path: str | None, environ: Mapping[str, str]) -> Path:
    """The file that counts, whether or not it is there."""
    named = path or environ.get(FILE)
    return Path(named) if named else default_path()


def text_of(file: Path) -> str | None:
    """What stands in the file; None when there is none. Raises UsageError, LocalTrouble."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 (octet {error.start + 1})") from None
    except OSError as error:
        raise LocalTrouble(f"{file}: the configuration cannot be read: {error.strerror}") from error


def default_path() -> Path:
    """Where the file is when nobody says."""
    from platformdirs import user_config_path  # lazy: only who reads the default file pays for it

    return user_config_path("dcmsync", appauthor=False) / "config.toml"


def cache_folder() -> Path:
    """Where caches are kept when nobody says."""
    from platformdirs import user_cache_path  # lazy, as above

    return user_cache_path("dcmsync", appauthor=False)


def variable(path: toml.Path) -> str | None:
    """The environment variable that sets the value at a path; None where there is none."""
    words = [str(part).translate(_FOLDED).upper() for part in path]
    if path[0] == "endpoints" and len(path) == 3:
        return f"{_ENDPOINT}{words[1]}_{words[2]}"
    return f"{_LOCAL}{words[1]}" if path[0] == "local" and len(path) == 2 else None


_FOLDED = str.maketrans("-.", "__")


def _tables(text: str, place: str) -> dict[str, Any]:
    tables = toml.read(text, place)
    for fault in faults(Config, tables, place, text):
        raise fault
    return tables


def _converted(tables: Mapping[str, Any], place: str) -> Config:
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {str(error).replace('$.', '').replace('[...]', '.*')}") from None


def _override(tables: dict[str, Any], environ: Mapping[str, str]) -> dict[toml.Path, str]:
    """Puts what the environment says over what the file says. Gives the variable for each path. Raises UsageError."""
    said: dict[toml.Path, str] = {}
    for name in sorted(environ):
        if name.startswith((_ENDPOINT, _LOCAL)) and environ[name]:
            path, key = _meant(name, tables)
            table = tables
            for part in path[:-1]:
                table = table.setdefault(str(part), {})
            table[key.name] = _from_text(environ[name], key, name)
            said[path] = name
    for path, name in said.items():
        if path[0] == "endpoints" and "locator" not in tables["endpoints"][path[1]]:
            advice = f"Name an endpoint of the configuration, or set {variable((*path[:2], 'locator'))} too"
            raise UsageError(f"{name} in the environment: there is no endpoint {path[1]}", advice=advice)
    return said


def _meant(variable_name: str, tables: Mapping[str, Any]) -> tuple[toml.Path, Key]:
    """The path that a variable sets, and its key: of two that fit, the one of an endpoint that is configured."""
    if variable_name.startswith(_LOCAL):
        known = {variable(("local", key.name)): key for key in keys(Local)}
        if variable_name in known:
            return ("local", known[variable_name].name), known[variable_name]
    else:
        configured = tables.get("endpoints", {})
        rest = variable_name.removeprefix(_ENDPOINT)
        fitting = [key for key in keys(Endpoint) if rest.endswith(f"_{key.name.upper()}")]
        for key in sorted(fitting, key=lambda key: -len(key.name)):
            names = [name for name in configured if variable(("endpoints", name, key.name)) == variable_name]
            if len(names) > 1:
                raise UsageError(f"{variable_name} in the environment may mean {' or '.join(sorted(names))}")
            if names:
                return ("endpoints", names[0], key.name), key
        if fitting:
            key = max(fitting, key=lambda key: len(key.name))
            return ("endpoints", rest.removesuffix(f"_{key.name.upper()}").lower(), key.name), key
    raise UsageError(
        f"{variable_name} in the environment sets nothing that there is",
        advice=f"Write {_ENDPOINT}<NAME>_<KEY>, with a key of dcmsync-locators(7)",
    )


def _from_text(text: str, key: Key, name: str) -> object:
    """A value that stands in a variable; a list has commas between its items. Raises UsageError."""
    is_list = isinstance(key.default, tuple | list)
    given: object = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    try:
        return msgspec.to_builtins(msgspec.convert(given, key.annotation, strict=False))
    except msgspec.ValidationError as error:
        raise UsageError(f"{name} in the environment: {complaint(error)}") from None
