"""Who we are at AWS, and in which region: from the environment, the files of the AWS tools, a process, or botocore.

Owns which places are of AWS, and the order: the profile that the configuration names; else the variables of the
environment; else the profile of AWS_PROFILE, or `default`. What needs calls of its own (roles, web identities, SSO, the
metadata of an instance) is left to botocore, where it is installed. Refuses to say a secret: messages name the profile
and the file.
"""

import configparser
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module, util

from msgspec import Struct

from dcmsync.config import Endpoint
from dcmsync.endpoints import AwsAccess
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.locator import Ahi, Locator, Web
from dcmsync.wire.sigv4 import Credentials

PROCESS_TIMEOUT_S = 60.0
_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_CALLS = ("role_arn", "sso_session", "sso_start_url", "web_identity_token_file", "credential_source")
_INSTALL = "Install botocore beside dcmsync, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_SET = "Set aws_profile in the configuration, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

_DICOMWEB = re.compile(
    r"https://dicom-medical-imaging(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)(?:[:/]|$)"
)

Section = Mapping[str, str]


class Profile(Struct, frozen=True):
    """One profile of the AWS tools; `name` is "" where none is named and the default one counts."""

    name: str
    settings: Section

    @property
    def words(self) -> str:
        """How messages call it."""
        return f"the AWS profile {self.name}" if self.name else "the default AWS profile"


def aws_access(
    place: Locator, endpoint: Endpoint | None, *, name: str, environ: Mapping[str, str]
) -> AwsAccess | None:
    """How AWS lets us in; None for a place that is none of its. Raises UsageError. Nothing secret is read yet.

    A DICOMweb service is one of its by its host, or by an endpoint that says so, unless that has another identity.
    """
    said = (
        endpoint.region, endpoint.aws_profile, endpoint.endpoint_url, endpoint.image_sets, endpoint.retrieve_by,
    ) if endpoint else ()  # fmt: skip
    at_host = _DICOMWEB.match(place.url) if isinstance(place, Web) else None
    has_other = endpoint is not None and bool(
        endpoint.user or endpoint.netrc or endpoint.token_file or endpoint.token_command
    )
    is_web = isinstance(place, Web) and (at_host is not None or any(said)) and not has_other
    if not (is_web or isinstance(place, Ahi)):
        if any(said):
            advice = "Leave region, aws_profile, endpoint_url, image_sets and retrieve_by out"
            raise UsageError(f"{name}: what is set for AWS has no meaning with this locator or identity", advice=advice)
        return None
    from dcmsync.net.aws import SigV4  # lazy: aiohttp comes along

    of_place = place.region if isinstance(place, Ahi) else at_host["region"] if at_host else ""
    profile_name = (endpoint and endpoint.aws_profile) or ""
    where = region(of_place or (endpoint and endpoint.region) or "", profile_name, environ, name=name)
    return AwsAccess(
        region=where,
        signer=SigV4(credentials(profile_name, environ, name=name), where),
        endpoint_url=((endpoint and endpoint.endpoint_url) or "").rstrip("/"),
        image_sets=(endpoint and endpoint.image_sets) or "",
        retrieve_by=(endpoint and endpoint.retrieve_by) or "instance",
    )


def region(said: str, profile_name: str, environ: Mapping[str, str], *, name: str) -> str:
    """The region: what the locator or the configuration says, else the environment, else the profile.

    Raises UsageError.
    """
    found = said or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    found = found or profile(profile_name, environ).settings.get("region", "")
    if not found:
        advice = "Write ahi://DATASTORE?region=us-east-1, or set region in the configuration, or AWS_REGION"
        raise UsageError(f"{name}: no AWS region is known", advice=advice)
    if not found.replace("-", "").isalnum():
        raise UsageError(f"{name}: {found!r} is no AWS region", advice="Write one like us-east-1")
    return found


def credentials(profile_name: str, environ: Mapping[str, str], *, name: str) -> Callable[[], Credentials]:
    """What finds the credentials, each time anew. It raises UsageError and LocalTrouble."""

    def find() -> Credentials:
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if key and secret and not profile_name:
            return Credentials(
                access_key_id=key, secret_access_key=secret, session_token=environ.get("AWS_SESSION_TOKEN", "")
            )
        chosen = profile(profile_name, environ)
        settings = chosen.settings
        is_role = any(each in settings for each in _CALLS) or (
            not profile_name and bool(environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
        )
        if all(settings.get(each) for each in _KEYS) and not is_role:
            return Credentials(
                access_key_id=settings[_KEYS[0]],
                secret_access_key=settings[_KEYS[1]],
                session_token=settings.get("aws_session_token", ""),
            )
        if settings.get("credential_process") and not is_role:
            return _of_process(settings["credential_process"], chosen, name)
        return _of_botocore(chosen, name)

    return find


def profile(profile_name: str, environ: Mapping[str, str]) -> Profile:
    """A profile, of both files of the AWS tools; what the credentials file says goes first.

    Raises UsageError for one that is named and stands in neither, or for a file that is none; LocalTrouble.
    """
    named = profile_name or environ.get("AWS_PROFILE", "")
    shared = environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.expanduser("~/.aws/credentials")
    common = environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    wanted = named or "default"
    of_config = _section(common, wanted if wanted == "default" else f"profile {wanted}")
    of_shared = _section(shared, wanted)
    if named and of_config is None and of_shared is None:
        raise UsageError(f"there is no AWS profile {named}", advice=f"Write it in {shared} or {common}")
    return Profile(named, {**(of_config or {}), **(of_shared or {})})


def _section(path: str, section: str) -> Section | None:
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return None
    except (configparser.Error, UnicodeDecodeError):
        raise UsageError(f"{path}: this is no file of AWS profiles") from None
    except OSError as error:
        raise LocalTrouble(f"{path}: cannot be read: {error.strerror}") from None
    return dict(parser.items(section)) if parser.has_section(section) else None


def _of_process(command: str, chosen: Profile, name: str) -> Credentials:
    """What a credential_process writes, which is JSON of version 1."""
    what = f"{name}: credential_process of {chosen.words}"
    try:
        done = subprocess.run(
            shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=PROCESS_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LocalTrouble(f"{what}: it gave no answer within {PROCESS_TIMEOUT_S:g} s") from None
    except (OSError, ValueError):
        raise LocalTrouble(f"{what}: it cannot be run") from None
    if done.returncode:
        raise LocalTrouble(f"{what}: it ended with {done.returncode}")
    try:
        said = json.loads(done.stdout)
        expires = datetime.fromisoformat(said["Expiration"]).timestamp() if said.get("Expiration") else 0.0
        found = Credentials(
            access_key_id=str(said["AccessKeyId"]),
            secret_access_key=str(said["SecretAccessKey"]),
            session_token=str(said.get("SessionToken") or ""),
            expires=expires,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{what}: what it writes are no credentials") from None
    return found


def _of_botocore(chosen: Profile, name: str) -> Credentials:
    """What botocore finds for a profile, with the calls that it takes."""
    if util.find_spec("botocore") is None:
        known = next((each for each in _CALLS if each in chosen.settings), "")
        what = f"{chosen.words} needs {known}" if known else f"{chosen.words} has no access key"
        raise UsageError(f"{name}: no AWS credentials: {what}", advice=_INSTALL)
    session = import_module("botocore.session").Session(profile=chosen.name or None)
    exceptions = import_module("botocore.exceptions")
    try:
        held = session.get_credentials()
        frozen = held.get_frozen_credentials() if held is not None else None
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise LocalTrouble(f"{name}: botocore finds no credentials: {type(error).__name__}") from None
    if frozen is None:
        raise UsageError(f"{name}: no AWS credentials were found", advice=_SET)
    return Credentials(
        access_key_id=frozen.access_key, secret_access_key=frozen.secret_key, session_token=frozen.token or ""
    )
