"""How a node lets us in: what the configuration refers to is read, contradictions are named, secrets never shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcmsync import config, locator
from dcmsync.commands.credentials import access
from dcmsync.config import Endpoint
from dcmsync.endpoints import Access
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.locator import Folder, Node
from dcmsync.wire.upperlayer.identity import Kind

PLAIN = Node(host="pacs.example.org", port=104, ae="PACS")
TLS = Node(host="pacs.example.org", port=2762, ae="PACS", tls=True)


def let_in(
    node: Node = TLS,
    *,
    environ: dict[str, str] | None = None,
    warn: Callable[[str], None] = lambda text: None,
    **keys: Any,
) -> Access:
    return access(node, Endpoint(locator=str(node), **keys), name="pacs", environ=environ or {}, warn=warn)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that holds one, and another line."""
    path = tmp_path / "secret"
    path.write_text("open sesame\nsecond line\n")
    path.chmod(0o600)
    return path


def test_a_plain_locator_is_spoken_to_in_plain_and_a_dicoms_one_with_tls() -> None:
    assert access(PLAIN, None, name="x", environ={}, warn=print) == Access()
    found = access(TLS, None, name="x", environ={}, warn=print)
    assert found.terms is not None and found.terms.verify and found.identity is None
    assert access(Folder("./a"), Endpoint(locator="./a"), name="x", environ={}, warn=print) == Access()


@pytest.mark.parametrize(
    "keys",
    [{"ca": "a"}, {"certificate": "a"}, {"server_name": "x"}, {"key_password_file": "x"}, {"verify": False}],
)
def test_what_is_meant_for_tls_is_never_dropped_without_a_word(keys: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="without TLS"):
        let_in(PLAIN, **keys)


def test_not_to_verify_is_warned_of() -> None:
    said: list[str] = []
    terms = let_in(verify=False, warn=said.append).terms
    assert terms is not None and not terms.verify
    assert len(said) == 1 and "not verified" in said[0]
    with pytest.raises(UsageError, match="contradicts"):
        let_in(verify=False, ca="a.pem")


def test_a_user_name_alone_is_kind_1() -> None:
    identity = let_in(user="ada").identity
    assert identity is not None
    assert (identity().kind, identity().primary, identity().secondary) == (Kind.USER_NAME, b"ada", b"")


def test_a_password_is_the_first_line_of_a_file(secret: Path) -> None:
    identity = let_in(user="ada", password_file=str(secret), identity_required=True).identity
    assert identity is not None
    assert (identity().kind, identity().primary, identity().secondary) == (Kind.PASSWORD, b"ada", b"open sesame")
    assert identity().wants_response
    assert "sesame" not in repr(identity()) and "sesame" not in repr(Access(identity=identity))


def test_a_password_command_is_run_once(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    identity = let_in(user="ada", password_command=f"echo x >> {runs}; echo open sesame; echo more").identity
    assert identity is not None
    assert [identity().secondary, identity().secondary] == [b"open sesame"] * 2
    assert runs.read_text() == "x\n"


def test_a_token_command_is_run_each_time_since_tokens_expire(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    identity = let_in(token_command=f"echo x >> {runs}; wc -l < {runs}").identity
    assert identity is not None
    tokens = [identity().primary.strip() for _ in range(2)]
    assert tokens == [b"1", b"2"] and identity().kind == Kind.JWT


def test_an_assertion_may_have_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "saml"
    path.write_text("<Assertion>\n x\n</Assertion>\n")
    path.chmod(0o600)
    identity = let_in(token_file=str(path), identity="saml").identity
    assert identity is not None
    assert (identity().kind, identity().primary) == (Kind.SAML, b"<Assertion>\n x\n</Assertion>")


def test_netrc_knows_the_user_of_a_host(tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine pacs.example.org login ada password sesame\n")
    path.chmod(0o600)
    identity = let_in(netrc=True, environ={"NETRC": str(path)}).identity
    assert identity is not None
    assert (identity().kind, identity().primary, identity().secondary) == (Kind.PASSWORD, b"ada", b"sesame")
    elsewhere = let_in(Node(host="other", port=1, ae="A", tls=True), netrc=True, environ={"NETRC": str(path)}).identity
    assert elsewhere is not None
    with pytest.raises(UsageError, match="no login and password for other"):
        elsewhere()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"identity": "kerberos"}, "Kerberos tickets are not supported"),
        ({"identity_required": True}, "nothing says whose"),
        ({"identity": "jwt"}, "needs a token"),
        ({"identity": "saml", "user": "ada", "token_file": "x"}, "needs a token, and nothing else"),
        ({"identity": "password", "user": "ada"}, "belong together"),
        ({"password_file": "x"}, "belong together"),
        ({"user": "ada", "password_file": "x", "password_command": "y"}, "both password_file and password_command"),
        ({"user": "ada", "password_file": "x", "identity": "user"}, "has no password"),
        ({"user": "ada", "token_file": "x", "identity": "password"}, "has no token"),
        ({"netrc": True, "user": "ada"}, "netrc contradicts"),
        ({"key": "x"}, "without certificate"),
    ],
)
def test_keys_that_contradict_are_named_before_anything_is_read(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        let_in(**keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"password_file": "/gone"}, "cannot be read"),
        ({"password_command": "exit 3"}, "ended with 3"),
        ({"password_command": "true"}, "there is no secret"),
    ],
)
def test_a_secret_that_cannot_be_had_is_said_without_it(keys: dict[str, str], words: str) -> None:
    identity = let_in(user="ada", **keys).identity
    assert identity is not None
    with pytest.raises((UsageError, LocalTrouble), match=words):
        identity()


def test_a_file_that_others_may_read_is_warned_of(secret: Path) -> None:
    said: list[str] = []
    secret.chmod(0o644)
    identity = let_in(user="ada", password_file=str(secret), warn=said.append).identity
    assert identity is not None
    identity()
    assert len(said) == 1 and "chmod 600" in said[0] and "sesame" not in said[0]


def test_a_password_in_plain_text_is_warned_of(secret: Path) -> None:
    said: list[str] = []
    let_in(PLAIN, user="ada", password_file=str(secret), warn=said.append)
    assert len(said) == 1 and "plain text" in said[0]


def test_a_token_that_no_request_can_hold_is_named() -> None:
    identity = let_in(token_command="head -c 66000 /dev/zero | tr '\\0' x").identity
    assert identity is not None
    with pytest.raises(UsageError, match="longer than an association request"):
        identity()


def test_the_configuration_has_a_key_for_each_of_it() -> None:
    text = '[endpoints.pacs]\nlocator = "dicoms://ME:PACS@host:2762"\nca = "ca.pem"\nverify = true\nuser = "ada"\n'
    endpoint = config.parse(text).endpoints["pacs"]
    node = locator.parse(endpoint.locator)
    assert node == Node(host="host", port=2762, ae="PACS", calling_ae="ME", tls=True)
    assert str(node) == "dicoms://PACS@host:2762"
    with pytest.raises(UsageError, match="password"):
        config.parse('[endpoints.pacs]\nlocator = "A@b:1"\npassword = "sesame"\n')
