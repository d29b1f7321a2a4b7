"""A process that writes a cache until it is told to stop, or killed: `python -m tests.cache.writer PLACE CACHE SEED N`.

Does N rounds of remembering, forgetting and asking, then says `done` and how many warnings there were.
"""

import random
import sys
from pathlib import Path

from tests.cache.made_up import holding, opened


def main() -> None:
    place, cache, seed, rounds = sys.argv[1:]
    choose = random.Random(int(seed))
    said: list[str] = []
    store = opened(Path(place), Path(cache), said.append)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    truth = [holding(study, series, number) for study in (1, 2, 3) for series in (1, 2, 3) for number in range(1, 40)]
    for _ in range(int(rounds)):
        store.remember(choose.sample(truth, 30))
        passing = [holding(choose.randrange(1, 4), 1, choose.randrange(40, 60)) for _ in range(10)]
        store.remember(passing)
        store.forget(each.path for each in passing)
        for _ in store.stamps():
            pass
    store.remember(truth)
    known = {each.path: each for each in store.holdings()}
    store.close()
    sys.stdout.write(f"done {sum(known.get(each.path) == each for each in truth)} {len(said)}\n")


if __name__ == "__main__":
    main()
