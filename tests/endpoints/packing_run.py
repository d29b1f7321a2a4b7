"""A process that packs a few instances into an archive, for tests that trace it, kill it or starve it.

python -m tests.endpoints.packing_run ARCHIVE FIRST COUNT OCTETS MEMORY_OCTETS: packs COUNT instances of about OCTETS
octets, numbered from FIRST, in batches of two, and prints one line for each once the archive is committed.
"""

import sys

from xxhash import xxh3_128

from dcmsync.cache.store import open_store
from dcmsync.contract import Catalogue, Landed
from dcmsync.endpoints.zip.arrivals import Job, Settings, Sink
from dcmsync.endpoints.zip.landing import Packing
from dcmsync.errors import LocalTrouble
from tests.endpoints.landing_run import arrival, data_set, place, say


def remembering(path: str) -> Catalogue:
    """A catalogue of an archive that ends with the test."""

    def warn(words: str) -> None:
        raise AssertionError(words)

    return open_store(path, named=None, folder=None, warn=warn)


def main(path: str, first: int, count: int, octets: int, memory_octets: int) -> int:
    jobs: list[Job] = []
    verdicts: list[Landed] = []
    try:
        settings = Settings(
            place=place, wanted=frozenset(), hasher=xxh3_128, completed=jobs.append, catalogue=remembering(path),
            memory_octets=memory_octets,
        )  # fmt: skip
        with Packing(path, settings) as packing:
            for number in range(first, first + count):
                sink = packing.receive(arrival(f"1.2.3.{number}"))
                assert isinstance(sink, Sink)
                try:
                    sink.write([memoryview(data_set(f"1.2.3.{number}", octets=octets))])
                except LocalTrouble:
                    sink.discard("no room")
                    raise
                sink.finish()
                if len(jobs) == 2 or number == first + count - 1:
                    verdicts += packing.land_many(jobs)
                    jobs.clear()
            for landed in verdicts:
                if landed.trouble is not None:
                    raise landed.trouble
            packing.commit()
        for landed in verdicts:
            say(landed.outcome, landed.path, landed.message)
    except LocalTrouble as trouble:
        say("trouble", str(trouble))
        return trouble.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], *map(int, sys.argv[2:])))
