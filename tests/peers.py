"""Real DICOM nodes for tests and benchmarks: started on free ports of this machine, in folders of their own.

Each is a context manager that gives a `Peer`, ready to be spoken to, and stops just what it started. Nothing here
knows pytest: bench/ uses it too. A clash of ports is met by another try on other ports; readiness is polled, with a
deadline. Where the kernel can, a peer is told to die with us, so that a killed test run leaves nothing behind.

    with peers.orthanc(folder) as pacs:
        pacs.store(paths)
        ... pacs.ae, pacs.host, pacs.port, pacs.http, pacs.locator, pacs.log
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_TRIES = 5
_POLL_S = 0.01

Destinations = Mapping[str, tuple[str, int]]
"""AE title -> (host, port): whom a peer may send to by C-MOVE."""


class PeerMissing(Exception):
    """A program that a peer needs is not installed."""


class _PeerLost(Exception):
    """The peer ended before it was ready; another port may help."""


@dataclass
class Peer:
    """A running node. `http` is its REST base URL, for Orthanc only."""

    ae: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    host: str = HOST
    http: str = ""

    @property
    def locator(self) -> str:
        """AET@host:port."""
        return f"{self.ae}@{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What the peer has said so far."""
        return _log_path(self.folder).read_text(errors="replace")

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """One request to Orthanc's REST interface; bytes go as they are, other bodies as JSON. Returns the JSON answer.

        Raises RuntimeError when the answer is no success.
        """
        with self._connection() as connection:
            return _ask(connection, method, path, body)

    def store(self, paths: Iterable[Path]) -> None:
        """Puts files into Orthanc, four at a time."""
        work = list(paths)

        def store_some(start: int) -> None:
            with self._connection() as connection:
                for path in work[start::4]:
                    _ask(connection, "POST", "/instances", Path(path).read_bytes())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store_some, range(4)))

    def clear(self) -> None:
        """Takes everything out of Orthanc."""
        for patient in self.rest("GET", "/patients"):
            self.rest("DELETE", f"/patients/{patient}")

    def instances(self) -> int:
        """How many instances Orthanc holds."""
        return int(self.rest("GET", "/statistics")["CountInstances"])

    def know(self, ae: str, port: int, host: str = HOST) -> None:
        """Tells Orthanc of a node that it may send to, under its AE title."""
        self.rest("PUT", f"/modalities/{ae}", {"AET": ae, "Host": host, "Port": port})

    def _connection(self) -> closing[HTTPConnection]:
        return closing(HTTPConnection(self.http.removeprefix("http://"), timeout=30))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the peer, now; a test may do so in the middle of a transfer. Idempotent."""
        _stop(self.process, how)


@contextmanager
def orthanc(
    folder: Path,
    *,
    ae: str = "ORTHANC",
    nodelay: bool = False,
    overwrite: bool = True,
    destinations: Destinations | None = None,
    dicomweb: bool = False,
    settings: Mapping[str, object] | None = None,
) -> Iterator[Peer]:
    """Orthanc, as Debian ships it but for its folders, ports and permissions.

    `nodelay` gives it TCP_NODELAY=1 (DCMTK's variable), `settings` override its configuration, `dicomweb` loads the
    plugin, under /dicom-web/ of `http`.
    """
    program = find_program("Orthanc")

    def start(ports: Sequence[int]) -> tuple[list[str], Callable[[], bool]]:
        dicom, web = ports
        configuration: dict[str, object] = {
            "Name": ae,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(_dicomweb_plugin())] if dicomweb else [],
            "DicomServerEnabled": True,
            "DicomAet": ae,
            "DicomPort": dicom,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowFindWorklist": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": overwrite,
            "HttpServerEnabled": True,
            "HttpPort": web,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {name: [name, host, port] for name, (host, port) in (destinations or {}).items()},
            **(settings or {}),
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(configuration, indent=1))
        return [program, str(path)], lambda: _answers_http(web)

    with _running(folder, 2, start, nodelay=nodelay) as (process, ports):
        yield Peer(ae=ae, port=ports[0], folder=folder, process=process, http=f"http://{HOST}:{ports[1]}")


@contextmanager
def dcmqrscp(
    folder: Path, *options: str, ae: str = "QRSCP", nodelay: bool = False, destinations: Destinations | None = None
) -> Iterator[Peer]:
    """DCMTK's query/retrieve node, with one empty storage area. Fill it with `storescu`."""
    program = find_program("dcmqrscp")
    (folder / "database").mkdir(parents=True, exist_ok=True)
    # DCMTK wants host names in this table, not addresses.
    hosts = "".join(
        f"{name.lower()} = ({name}, {'localhost' if host == HOST else host}, {port})\n"
        for name, (host, port) in (destinations or {}).items()
    )

    def start(ports: Sequence[int]) -> tuple[list[str], Callable[[], bool]]:
        path = folder / "dcmqrscp.cfg"
        path.write_text(
            f"NetworkTCPPort = {ports[0]}\nMaxPDUSize = 131072\nMaxAssociations = 64\n"
            f"HostTable BEGIN\n{hosts}HostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae} {folder / 'database'} RW (10000, 4096mb) ANY\nAETable END\n"
        )
        return [program, "-v", "-c", str(path), *options], lambda: _answers_tcp(ports[0])

    with _running(folder, 1, start, nodelay=nodelay) as (process, ports):
        yield Peer(ae=ae, port=ports[0], folder=folder, process=process)


@contextmanager
def storescp(folder: Path, *options: str, ae: str = "STORESCP", nodelay: bool = False) -> Iterator[Peer]:
    """DCMTK's storage node: files arrive in `folder`/received. Options make it misbehave: --refuse, --abort-during …"""
    program = find_program("storescp")
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)

    def start(ports: Sequence[int]) -> tuple[list[str], Callable[[], bool]]:
        line = [program, "-aet", ae, "-od", str(received), *options, str(ports[0])]
        return line, lambda: _answers_tcp(ports[0])

    with _running(folder, 1, start, nodelay=nodelay) as (process, ports):
        yield Peer(ae=ae, port=ports[0], folder=folder, process=process)


@contextmanager
def pynetdicom_qrscp(
    folder: Path, *, ae: str = "PYQRSCP", destinations: Destinations | None = None
) -> Iterator[Peer]:
    """pynetdicom's query/retrieve node, with an empty database."""
    try:
        import sqlalchemy  # noqa: F401  # what the node needs, and pynetdicom does not
    except ImportError:
        raise PeerMissing("pynetdicom's qrscp needs the Python package sqlalchemy") from None
    folder.mkdir(parents=True, exist_ok=True)
    nodes = (destinations or {}).items()
    places = "".join(f"[{name}]\naddress: {host}\nport: {port}\n" for name, (host, port) in nodes)

    def start(ports: Sequence[int]) -> tuple[list[str], Callable[[], bool]]:
        path = folder / "qrscp.ini"
        path.write_text(
            f"[DEFAULT]\nae_title: {ae}\nport: {ports[0]}\nmax_pdu: 0\nacse_timeout: 30\ndimse_timeout: 30\n"
            f"network_timeout: 30\nbind_address: {HOST}\ninstance_location: {folder / 'instances'}\n"
            f"database_location: {folder / 'instances.sqlite'}\nlog_identifier: False\n{places}"
        )
        return [sys.executable, "-m", "pynetdicom", "qrscp", "-c", str(path)], lambda: _answers_tcp(ports[0])

    with _running(folder, 1, start, nodelay=False) as (process, ports):
        yield Peer(ae=ae, port=ports[0], folder=folder, process=process)


def find_program(name: str) -> str:
    """The path of a program. Raises PeerMissing, with the package that has it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        package = {"Orthanc": "orthanc", "xxhsum": "xxhash"}.get(name, "dcmtk")
        raise PeerMissing(f"{name} is not installed (Debian package {package})")
    return path


def dcmtk(
    tool: str, *arguments: str | Path, nodelay: bool = True, timeout: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs one of DCMTK's tools to its end. `nodelay=False` runs it as shipped, 40 ms slower an instance."""
    line = [find_program(tool), *map(str, arguments)]
    done = subprocess.run(
        line,
        check=False,
        env=environment(nodelay),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if check and done.returncode:
        raise RuntimeError(f"{tool} ended with {done.returncode}:\n{' '.join(line)}\n{done.stdout}{done.stderr}")
    return done


def storescu(peer: Peer, paths: Iterable[Path], *, calling: str = "STORESCU", nodelay: bool = True) -> None:
    """Sends files, or folders with all that is below them."""
    dcmtk("storescu", "-aet", calling, "-aec", peer.ae, "+sd", "+r", peer.host, str(peer.port), *paths, nodelay=nodelay)


def environment(nodelay: bool) -> dict[str, str]:
    """This process's environment, with or without DCMTK's TCP_NODELAY."""
    rest = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return {**rest, "TCP_NODELAY": "1"} if nodelay else rest


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different free ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(is_ready: Callable[[], bool], *, timeout: float = START_TIMEOUT_S, what: str = "it") -> None:
    """Returns as soon as `is_ready()` is true. Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while not is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} is not ready after {timeout:g} s")
        time.sleep(_POLL_S)


def _ask(connection: HTTPConnection, method: str, path: str, body: Any) -> Any:
    octets = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, octets)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
    return json.loads(text) if text.strip() else None


@contextmanager
def _running(
    folder: Path,
    port_count: int,
    start: Callable[[Sequence[int]], tuple[list[str], Callable[[], bool]]],
    *,
    nodelay: bool,
) -> Iterator[tuple[subprocess.Popen[bytes], Sequence[int]]]:
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        ports = free_ports(port_count)
        line, is_ready = start(ports)
        process = _spawn(line, folder, environment(nodelay))
        try:
            _wait_until_up(process, is_ready, line[0], folder)
        except _PeerLost as error:
            if attempt == _TRIES - 1:
                raise RuntimeError(str(error)) from None
            continue
        except BaseException:
            _stop(process)
            raise
        try:
            yield process, ports
        finally:
            _stop(process, signal.SIGKILL)  # nothing of it is worth saving, and Orthanc takes seconds to leave
        return


def _spawn(line: list[str], folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    keeper = shutil.which("setpriv")
    prefix = [keeper, "--pdeathsig", "TERM", "--"] if keeper else []
    with _log_path(folder).open("ab") as log:
        return subprocess.Popen(
            prefix + line, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait_until_up(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], name: str, folder: Path) -> None:
    def settled() -> bool:
        return process.poll() is not None or is_ready()

    wait_for(settled, what=name)
    if process.poll() is not None:
        raise _PeerLost(f"{name} ended with {process.returncode}:\n{_log_path(folder).read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """Signals the peer's own process group: dcmqrscp forks a child for each association."""
    for number in (how, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _log_path(folder: Path) -> Path:
    return folder / "peer.log"


def _dicomweb_plugin() -> Path:
    for place in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins"):
        for path in sorted(Path(place).glob("libOrthancDicomWeb.*")):
            return path
    raise PeerMissing("Orthanc's DICOMweb plugin is not installed (Debian package orthanc-dicomweb)")


def _answers_tcp(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _answers_http(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/system")
        return connection.getresponse().status in (200, 401)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
