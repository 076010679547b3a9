"""What the store costs as it grows, in CPU time: looking entries up, listing, choosing and removing them.

    python tests/benchmarks/store.py [--entries 1000 10000 100000]

Made-up entries of 200 numbers and 50 epochs' losses. A line for each work: microseconds an entry (a lookup, for the first
two) at each size, and the last over the first, a ratio of one run: about 1 where the work is linear, or a lookup does not
feel the size. Files are made in TMPDIR: 100,000 entries are 800 MB on most disks.
"""

import argparse
import contextlib
import io
import json
import random
import tempfile
import time
from pathlib import Path

import torch

from mialib import housekeeping, store, uses
from mialib.store import Store

LOOKUPS = 500


def filled(root: Path, count: int) -> tuple[Store, list[str]]:
    """A store of many entries, written without waiting for the disk, and their keys."""
    cache = Store(root)
    draw = random.Random(0)
    keys = [f"{draw.getrandbits(160):040x}" for _ in range(count)]
    cache.put(
        keys[0], {"w": torch.ones(200)}, {"loss": [0.5] * 50}, kind="networks", words="made up: " + "x" * 80
    )
    first = [path.read_bytes() for path in cache._paths(keys[0])]
    for key in keys:
        for path, content in zip(cache._paths(key), first, strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    used = {"used": keys[: count // 2], "before": keys[count // 2 :]}
    about = {"notebook": "n", "run": "r", "place": "elsewhere", "finished": time.time_ns()}
    (root / uses.FOLDER).mkdir()
    (root / uses.FOLDER / "note.json").write_text(json.dumps(about | used))
    return cache, keys


def costs(count: int) -> dict[str, float]:
    """Microseconds of each work: a lookup, or an entry."""
    found = {}

    def timed(name, work, times):
        began = time.process_time()
        result = work()
        found[name] = (time.process_time() - began) / times * 1e6
        return result

    with tempfile.TemporaryDirectory() as folder:
        cache, keys = filled(Path(folder), count)
        asked = random.Random(1).sample(keys, min(LOOKUPS, count))
        timed("found (a lookup)", lambda: [cache.get(key) for key in asked], len(asked))
        timed("not found (a lookup)", lambda: [cache.get(key[::-1]) for key in asked], len(asked))
        timed("ready, the first time", cache.ready, count)
        timed("entries", cache.entries, count)
        kept = timed("kinds", lambda: housekeeping.described(cache, cache.scan()), count)
        timed("size, of that", lambda: housekeeping.sizes(kept), count)
        timed("list, of that", lambda: housekeeping.listed(kept), count)
        choice = timed("choose the unused", lambda: housekeeping.chosen(cache, unused=True), count)
        assert len(choice.entries) >= count // 2 - LOOKUPS
        with contextlib.redirect_stdout(io.StringIO()):
            gone = timed("remove all", lambda: cache.remove(cache.scan()), count)
        assert len(gone) == count
    store._used.clear()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    print(f"{'microseconds':24}" + "".join(f"{count:>10,}" for count in options.entries) + f"{'ratio':>8}")
    each = [costs(count) for count in options.entries]
    for name in each[0]:
        values = [one[name] for one in each]
        print(f"{name:24}" + "".join(f"{value:10.1f}" for value in values) + f"{values[-1] / values[0]:8.2f}")


if __name__ == "__main__":
    main()
