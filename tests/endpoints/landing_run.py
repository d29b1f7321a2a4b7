"""A process that lands a few instances in a folder, for tests that trace it, kill it or starve it.

python -m tests.endpoints.landing_run DEST COUNT OCTETS MEMORY_OCTETS: lands COUNT instances of about OCTETS octets, in
batches of two, and prints one line for each that it reports.
"""

import sys

from xxhash import xxh3_128

from dcmsync.contract import Arrival
from dcmsync.endpoints.folder.arrivals import Job, Settings, Sink
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.errors import LocalTrouble
from dcmsync.wire.part10 import text
from dcmsync.wire.source import Values

EXPLICIT, SECONDARY = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.7"


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr == "OB":
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    value += b"\0" * (len(value) & 1)
    return head + len(value).to_bytes(2, "little") + value


def data_set(uid: str, *, octets: int = 100, series: str = "1.2.3", study: str = "1.2", fill: bytes = b"x") -> bytes:
    return b"".join(
        (
            element(0x00080016, "UI", SECONDARY.encode()),
            element(0x00080018, "UI", uid.encode()),
            element(0x0020000D, "UI", study.encode()),
            element(0x0020000E, "UI", series.encode()),
            element(0x7FE00010, "OB", fill * (octets // 2 * 2)),
        )
    )


def arrival(uid: str) -> Arrival:
    return Arrival(sop_class_uid=SECONDARY, sop_instance_uid=uid, transfer_syntax_uid=EXPLICIT)


def place(values: Values, arrived: Arrival) -> str:
    return f"{text(values[0x0020000E][1])}/{arrived.sop_instance_uid}.dcm"


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def main(dest: str, count: int, octets: int, memory_octets: int) -> int:
    jobs: list[Job] = []
    settings = Settings(
        place=place, wanted=frozenset(), hasher=xxh3_128, completed=jobs.append, memory_octets=memory_octets
    )
    trouble: LocalTrouble | None = None
    try:
        with Landing(dest, settings) as landing:
            for number in range(count):
                sink = landing.receive(arrival(f"1.2.3.{number}"))
                assert isinstance(sink, Sink)
                try:
                    sink.write([memoryview(data_set(f"1.2.3.{number}", octets=octets))])
                except LocalTrouble:
                    sink.discard("no room")
                    raise
                sink.finish()
                if len(jobs) == 2 or number == count - 1:
                    for landed in landing.land_many(jobs):
                        say(landed.outcome, landed.path, landed.message)
                        trouble = trouble or landed.trouble
                    jobs.clear()
    except LocalTrouble as error:
        trouble = error
    if trouble is not None:
        say("trouble", str(trouble))
    return trouble.exit_status if trouble is not None else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], *map(int, sys.argv[2:])))
