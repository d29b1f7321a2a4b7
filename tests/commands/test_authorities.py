"""How places that speak HTTP let us in: contradictions in the configuration, and whole commands against Orthanc."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.commands.authorities import web_access
from dcmsync.config import Endpoint
from dcmsync.endpoints import WebAccess
from dcmsync.errors import UsageError
from dcmsync.locator import Ahi, Locator, Node, Web
from dcmsync.net.authority import Basic, Bearer
from dcmsync.net.http import Request
from tests import certs, peers
from tests.conftest import Start
from tests.fakes.terminator import terminator
from tests.fakes.web import Reply
from tests.fakes.web import Web as Server
from tests.workdir import Workdir

PLAIN, SECURED, LOOPBACK = Web("http://pacs.example/d"), Web("https://pacs.example/d"), Web("http://127.0.0.1:8042/d")


def let_in(
    place: Locator = SECURED,
    *,
    environ: dict[str, str] | None = None,
    warn: Callable[[str], None] = lambda text: None,
    **keys: Any,
) -> WebAccess:
    def no_door(url: str, name: str, access: WebAccess) -> Any:
        return url, name, access

    endpoint = Endpoint(locator=str(place), **keys)
    return web_access(place, endpoint, name="pacs", environ=environ or {}, warn=warn, door=no_door)


def header(access: WebAccess) -> str:
    assert access.authority is not None
    return anyio.run(access.authority.headers, Request(method="GET", url="", headers={}))["Authorization"]


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("keys, words", [
    ({"user": "ada"}, "belong together"),
    ({"password_file": "x"}, "belong together"),
    ({"user": "ada", "password_file": "x", "password_command": "y"}, "both password_file and password_command"),
    ({"user": "ada", "password_file": "x", "token_file": "y"}, "contradicts"),
    ({"netrc": True, "user": "ada"}, "contradicts"),
    ({"token_url": "https://h/t"}, "belong together"),
    ({"client_id": "x", "client_secret_file": "y"}, "belong together"),
    ({"token_url": "./x", "client_id": "x", "client_secret_file": "y"}, "token_url is no URL"),
    ({"token_url": "https://a:b@h/t", "client_id": "x", "client_secret_file": "y"}, "do not belong"),
    ({"token_file": "x", "scope": "y"}, "contradicts"),
    ({"identity": "jwt", "token_file": "x"}, "for DIMSE nodes"),
    ({"identity_required": True}, "for DIMSE nodes"),
    ({"proxy": "http://ada:hunter2@h:1"}, "user or a password"),
    ({"proxy": "socks://h:1"}, "no HTTP proxy"),
    ({"login": "vitrea"}, "login needs a user"),
    ({"login": "impax", "user": "a", "password_file": "x"}, "login needs login_url"),
    ({"verify": False, "ca": "x"}, "contradicts"),
])  # fmt: skip
def test_keys_that_contradict_are_named(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        let_in(**keys)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["ca", "certificate", "server_name"])
def test_what_is_meant_for_tls_is_never_dropped_without_a_word(key: str) -> None:
    with pytest.raises(UsageError, match=r"without TLS.*https://"):
        let_in(PLAIN, **{key: "x"})


@pytest.mark.parametrize("key", ["proxy", "token_url", "scope"])
def test_what_is_meant_for_http_is_nothing_for_others(key: str) -> None:
    with pytest.raises(UsageError, match="speak HTTP"):
        let_in(Node(host="h", port=1, ae="A"), **{key: "x"})


def test_each_way_in_has_its_authority(secret: str, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine pacs.example login ada password hunter2\n")
    netrc.chmod(0o600)
    basic = f"Basic {base64.b64encode(b'ada:hunter2').decode()}"
    assert header(let_in(user="ada", password_file=secret)) == basic
    assert header(let_in(user="ada", password_command="echo hunter2")) == basic
    assert header(let_in(netrc=True, environ={"NETRC": str(netrc)})) == basic
    assert header(let_in(token_file=secret)) == "Bearer hunter2"
    assert isinstance(let_in(token_url="https://h/t", client_id="x", client_secret_file="y").authority, Bearer)
    assert isinstance(let_in(Ahi("0" * 32), token_file=secret).authority, Bearer)
    assert let_in().authority is None


def test_nothing_is_read_before_it_is_needed() -> None:
    assert isinstance(let_in(user="ada", password_file="/nowhere").authority, Basic)


@pytest.mark.parametrize("place, warned", [(PLAIN, 1), (SECURED, 0), (LOOPBACK, 0), (Web("http://[::1]:80"), 0)])
def test_a_password_in_plain_text_is_warned_of(place: Web, warned: int, secret: str) -> None:
    said: list[str] = []
    let_in(place, user="ada", password_file=secret, warn=said.append)
    assert len(said) == warned and all("plain text" in each for each in said)


def test_the_proxy_of_the_configuration_goes_before_the_environment() -> None:
    environ = {"HTTPS_PROXY": "http://ada:hunter2@e:1"}
    assert let_in(environ=environ).proxy == "http://ada:hunter2@e:1"
    assert let_in(environ=environ, proxy="p:3128").proxy == "http://p:3128"
    assert let_in(environ=environ, proxy="none").proxy == ""
    assert web_access(SECURED, None, name="x", environ=environ, warn=print, door=None).proxy  # type: ignore[arg-type]


# Whole commands


def configured(workdir: Workdir, locator: str, **keys: Any) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"locator": locator, **keys}.items()]
    (workdir.path / "config.toml").write_text("\n".join(["[endpoints.pacs]", *lines]) + "\n")


def echo(workdir: Workdir, *, status: int) -> str:
    done = workdir.run("echo", "pacs", "--config", "config.toml")
    assert done.status == status, done
    assert "hunter2" not in done.stderr and "s3cr3t" not in done.stderr
    return done.stderr


@pytest.mark.slow
def test_one_token_serves_all_of_a_run_and_is_never_shown(workdir: Workdir, secret: str) -> None:
    granted = Reply(body=b'{"access_token": "s3cr3t", "token_type": "bearer", "expires_in": 3600}')
    with Server(granted) as tokens, Server(Reply(body=b"[]"), Reply(401, body=b"s3cr3t is no good")) as web:
        configured(workdir, web.url, token_url=f"{tokens.url}/t", client_id="me", client_secret_file=secret)
        echo(workdir, status=0)
        assert "401" in echo(workdir, status=5)
    assert web.seen[0].headers["authorization"] == "Bearer s3cr3t"
    assert "client_secret=hunter2" in tokens.seen[0].body.decode()


@pytest.mark.slow
def test_a_password_in_a_locator_is_refused_and_not_repeated(workdir: Workdir) -> None:
    done = workdir.run("echo", "https://ada:hunter2@host/x")
    assert done.status == 2 and "hunter2" not in done.stderr and "password_file" in done.stderr


def test_orthanc_lets_in_who_has_the_password(workdir: Workdir, start: Start, secret: str) -> None:
    settings = {"AuthenticationEnabled": True, "RegisteredUsers": {"ada": "hunter2", "bob": "s3cr3t"}}
    base = f"{start(peers.orthanc, dicomweb=True, settings=settings).http}/dicom-web"
    configured(workdir, base, user="ada", password_file=secret)
    echo(workdir, status=0)
    configured(workdir, base, user="bob", password_file=secret)
    assert "401" in echo(workdir, status=5)
    configured(workdir, base)
    assert "Set user and password_file" in echo(workdir, status=5)


def test_orthanc_behind_tls_with_an_authority_of_our_own(workdir: Workdir, start: Start, tmp_path: Path) -> None:
    # Orthanc 1.10.1 of Debian 12 dies at the first TLS connection, so TLS ends before it, as behind a proxy
    authority = certs.Authority(tmp_path / "ca")
    peer = start(peers.orthanc, dicomweb=True)
    with terminator(int(peer.http.rpartition(":")[2]), authority.issue("127.0.0.1")) as port:
        base = f"https://127.0.0.1:{port}/dicom-web"
        configured(workdir, base, ca=str(authority.path))
        echo(workdir, status=0)
        configured(workdir, base)
        assert "ca = " in echo(workdir, status=5)
        configured(workdir, base.replace("https", "http"))
        echo(workdir, status=4)


def test_orthanc_lets_in_who_has_the_token(workdir: Workdir, start: Start, secret: str, tmp_path: Path) -> None:
    lua = tmp_path / "bearer.lua"
    lua.write_text("function IncomingHttpRequestFilter(method, uri, ip, username, headers)\n"
                   "  return uri == '/system' or headers['authorization'] == 'Bearer hunter2'\nend\n")
    base = f"{start(peers.orthanc, dicomweb=True, settings={'LuaScripts': [str(lua)]}).http}/dicom-web"
    configured(workdir, base, token_file=secret)
    echo(workdir, status=0)
    configured(workdir, base, token_command="echo other")
    assert "403" in echo(workdir, status=5)
