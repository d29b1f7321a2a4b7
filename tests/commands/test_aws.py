"""Who we are at AWS: where credentials and region come from, in which order, and what is said when there are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dcmsync.commands import aws
from dcmsync.config import Endpoint
from dcmsync.errors import DcmsyncError, LocalTrouble, UsageError
from dcmsync.locator import Ahi, Folder, Node, Web
from dcmsync.wire.sigv4 import Credentials

SECRET = "Canary/secret+key"
SHARED = f"""
[default]
aws_access_key_id = OFDEFAULT
aws_secret_access_key = {SECRET}

[work]
aws_access_key_id = OFWORK
aws_secret_access_key = {SECRET}
aws_session_token = of-work
"""
COMMON = """
[default]
region = eu-west-1
[profile work]
region = eu-central-1
s3 =
    max_concurrent_requests = 20
[profile only-here]
aws_access_key_id = OFCONFIG
aws_secret_access_key = x%y
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = default
[profile empty]
region = us-west-2
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The files of the AWS tools, and nothing else."""
    (tmp_path / "credentials").write_text(SHARED)
    (tmp_path / "config").write_text(COMMON)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def no_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws.util, "find_spec", lambda name: None)


def found(profile_name: str, environ: dict[str, str]) -> Credentials:
    return aws.credentials(profile_name, environ, name="store")()


def with_process(environ: dict[str, str], tmp_path: Path, code: str) -> dict[str, str]:
    script = tmp_path / "it is a script.py"
    script.write_text(code)
    (tmp_path / "config").write_text(f'[profile p]\ncredential_process = "{sys.executable}" "{script}"\n')
    return environ


def test_the_environment_goes_before_files_and_a_profile_that_is_set_before_the_environment(
    environ: dict[str, str],
) -> None:
    said = {**environ, "AWS_ACCESS_KEY_ID": "OFENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert found("", said) == Credentials(access_key_id="OFENV", secret_access_key="s", session_token="t")
    assert found("work", said).access_key_id == "OFWORK"
    assert found("", {**said, "AWS_PROFILE": "work"}).access_key_id == "OFENV"  # as the AWS tools have it
    assert found("", {**environ, "AWS_ACCESS_KEY_ID": "alone"}).access_key_id == "OFDEFAULT"


def test_profiles_stand_in_either_file(environ: dict[str, str]) -> None:
    assert found("", environ).access_key_id == "OFDEFAULT"
    assert found("", {**environ, "AWS_PROFILE": "work"}).session_token == "of-work"
    assert found("only-here", environ) == Credentials(access_key_id="OFCONFIG", secret_access_key="x%y")


def test_a_process_gives_credentials_and_says_until_when(environ: dict[str, str], tmp_path: Path) -> None:
    said = {"Version": 1, "AccessKeyId": "P", "SecretAccessKey": SECRET, "SessionToken": "t",
            "Expiration": "2024-01-02T03:04:05Z"}  # fmt: skip
    with_process(environ, tmp_path, f"print({json.dumps(said)!r})")
    assert found("p", environ) == Credentials(
        access_key_id="P", secret_access_key=SECRET, session_token="t", expires=1704164645.0
    )


@pytest.mark.parametrize(
    "code, error, words",
    [
        ("raise SystemExit(3)", LocalTrouble, "ended with 3"),
        ("print('Canary/secret+key')", UsageError, "no credentials"),
        ("print('[]')", UsageError, "no credentials"),
        ("print('{}')", UsageError, "no credentials"),
        ("print('[' * 100000)", UsageError, "no credentials"),
        ("""print('{"AccessKeyId":"a","SecretAccessKey":"Canary","Expiration":"soon"}')""", UsageError, "no credent"),
        ("print('\\\\xff')", UsageError, "no credentials"),
    ],
)
def test_a_process_that_gives_none_is_said_without_its_words(
    environ: dict[str, str], tmp_path: Path, code: str, error: type[DcmsyncError], words: str
) -> None:
    with_process(environ, tmp_path, code)
    with pytest.raises(error, match=f"store: credential_process of the AWS profile p.*{words}") as raised:
        found("p", environ)
    assert "Canary" not in str(raised.value)


def test_a_process_that_cannot_be_run_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    for command in ("/nowhere/at-all", '"unbalanced'):
        (tmp_path / "config").write_text(f"[profile p]\ncredential_process = {command}\n")
        with pytest.raises(LocalTrouble, match="cannot be run"):
            found("p", environ)


@pytest.mark.parametrize(
    "profile_name, words",
    [
        ("role", "the AWS profile role needs role_arn. Install botocore"),
        ("empty", "the AWS profile empty has no access key"),
        ("nobody", "there is no AWS profile nobody. Write it in "),
    ],
)
def test_what_is_missing_is_said(environ: dict[str, str], profile_name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        found(profile_name, environ)


def test_a_role_goes_before_static_keys_and_needs_botocore(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Install botocore"):
        found("", {**environ, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"})


def test_a_file_that_is_no_file_of_profiles_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    for octets in (b"key = Canary\n", b"\xff\xfe"):
        (tmp_path / "credentials").write_bytes(octets)
        with pytest.raises(UsageError, match="this is no file of AWS profiles") as raised:
            found("", environ)
        assert "Canary" not in str(raised.value)


@pytest.mark.parametrize("error", ["", "ClientError", "BotoCoreError", "nothing"])
def test_botocore_is_asked_for_what_takes_calls(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    class Frozen:
        access_key, secret_key, token = "OFROLE", "s", None

    kinds = {name: type(name, (Exception,), {}) for name in ("ClientError", "BotoCoreError")}

    class Session:
        def __init__(self, profile: str | None) -> None:
            assert profile == "role"

        def get_credentials(self) -> Any:
            if error in kinds:
                raise kinds[error](SECRET)
            return None if error else self

        def get_frozen_credentials(self) -> Frozen:
            return Frozen()

    session, exceptions = ModuleType("botocore.session"), ModuleType("botocore.exceptions")
    monkeypatch.setattr(session, "Session", Session, raising=False)
    for name, kind in kinds.items():
        monkeypatch.setattr(exceptions, name, kind, raising=False)
    for module in (ModuleType("botocore"), session, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(aws.util, "find_spec", lambda name: object())
    if error:
        with pytest.raises(DcmsyncError, match=error if error in kinds else "no AWS credentials were found") as raised:
            found("role", environ)
        assert SECRET not in str(raised.value)
    else:
        assert found("role", environ) == Credentials(access_key_id="OFROLE", secret_access_key="s")


def test_the_region_is_that_of_who_says_it_first(environ: dict[str, str]) -> None:
    assert aws.region("us-east-1", "", environ, name="store") == "us-east-1"
    assert aws.region("", "", {**environ, "AWS_REGION": "r1", "AWS_DEFAULT_REGION": "r2"}, name="store") == "r1"
    assert aws.region("", "", {**environ, "AWS_DEFAULT_REGION": "r2"}, name="store") == "r2"
    assert aws.region("", "work", environ, name="store") == "eu-central-1"
    assert aws.region("", "", environ, name="store") == "eu-west-1"
    with pytest.raises(UsageError, match="store: no AWS region is known"):
        aws.region("", "", {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}, name="store")
    with pytest.raises(UsageError, match="is no AWS region"):
        aws.region("evil.example/", "", environ, name="store")


def access(place: Any, environ: dict[str, str], **said: Any) -> Any:
    endpoint = Endpoint(locator=str(place), **said) if said else None
    return aws.aws_access(place, endpoint, name="store", environ=environ)


def test_places_of_aws_are_known_by_their_locator_their_host_or_the_configuration(environ: dict[str, str]) -> None:
    at_aws = Web("https://dicom-medical-imaging.us-west-2.amazonaws.com/datastore/x")
    assert access(Ahi("a" * 32, "us-east-1"), environ).region == "us-east-1"
    assert access(Ahi("a" * 32), environ).region == "eu-west-1"
    assert access(Ahi("a" * 32), environ, region="ca-central-1").region == "ca-central-1"
    assert access(at_aws, environ).region == "us-west-2"
    assert access(at_aws, environ, token_file="/token") is None
    assert access(Web("https://gateway.example"), environ, aws_profile="work").region == "eu-central-1"
    assert access(Web("https://pacs.example/dicom-web"), environ) is None
    assert access(Web("https://dicom-medical-imaging.evil.example/"), environ) is None
    assert access(Folder("./x"), environ) is None
    given = access(Ahi("a" * 32), environ, endpoint_url="http://127.0.0.1:1/", image_sets="all")
    assert (given.endpoint_url, given.image_sets) == ("http://127.0.0.1:1", "all")
    assert given.retrieve_by == "instance"
    assert access(Ahi("a" * 32), environ, retrieve_by="frames").retrieve_by == "frames"


def test_keys_for_aws_at_another_place_are_an_error(environ: dict[str, str]) -> None:
    node = Node(host="h", port=104, ae="A")
    with pytest.raises(UsageError, match="store: what is set for AWS has no meaning"):
        access(node, environ, region="us-east-1")
    with pytest.raises(UsageError, match=r"Leave region.* and retrieve_by out"):
        access(node, environ, retrieve_by="frames")
    with pytest.raises(UsageError, match="no meaning with this locator or identity"):
        access(Web("https://gateway.example"), environ, region="us-east-1", token_file="/token")
