"""Gather a population's models from the store and from training, while other processes do the same with the same store.

Each model is trained by whoever takes its turn (`turns`), a few ahead of the workers, so that processes that want the same
models share the work. Then each reads what the others trained. A process that died has no turns: its models are taken
over by the others.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from torch import Tensor

from mialib import progress, turns
from mialib.store import Store
from mialib.training import shares

Entry = tuple[dict[str, Tensor], dict]  # what the store keeps of a model: its tensors, and its record
PAUSE, LONGEST = 0.3, 5.0  # seconds between two looks at what others do: at first, and after a while


class Gathering:
    """The models of one population: those that are `done`, and those that are still to be trained, here or elsewhere.

    Args:
        keys: the store's key of each model.
        whole: the entry under a key if it holds all that is asked of it, else None.
    """

    def __init__(self, cache: Store, keys: Sequence[str], whole: Callable[[str], Entry | None]):
        self.cache, self.keys, self._whole = cache, keys, whole
        self.done: dict[int, Entry] = {}
        self.trained: set[int] = set()  # those that were trained for this very population
        self._seen: dict[int, int | None] = {}  # when the entry of a model that is not done was written
        self._held: set[str] = set()
        for i in range(len(keys)):
            self._look(i)
        self.missing = [i for i in range(len(keys)) if i not in self.done]
        self._share = shares.own() if self.missing else shares.WHOLE
        self._keeps = bool(self.missing) and cache.ready()  # before hours of work, not after them
        if self._share.of > 1 and not self._keeps:
            raise OSError(
                f"share {self._share} of the work hands its models on by the cache {cache.root}, which cannot be written to; "
                "set MIALIB_CACHE to a folder that all shares can write to"
            )

    def rounds(self, together: bool, seen: Callable[[int], None]) -> Iterator[Iterator[list[int]]]:
        """What is to be trained here, in shards (lists of models), round by round until all is done.

        A round takes a shard's turns when its next shard is asked for; to be `put` are all models of all shards.

        Args:
            together: a shard of all models instead of one for each.
            seen: told how many models others have trained since the last round.
        """
        try:
            while left := self._left():
                yield self._free(self._shards(left, together))
                self._give(*self._held)  # of what was not trained after all
                before = len(self.done)
                if self._left():
                    self._wait()
                seen(len(self.done) - before)
        finally:
            self._give(*self._held)

    def put(self, i: int, entry: Entry, kind: str, words: str) -> None:
        """Keep a model that was trained here."""
        self.done[i] = entry
        self.trained.add(i)
        if self._keeps:
            self.cache.put(self.keys[i], *entry, kind=kind, words=words)
            self._give(self.keys[i])

    def _left(self) -> list[int]:
        return [i for i in self.missing if i not in self.done]

    def _shards(self, left: list[int], together: bool) -> list[list[int]]:
        own = self._share
        if own.of > 1 and not turns.are_seen(self.cache):
            left = [i for i in left if own.has(i)]  # nobody could tell that somebody else has begun with one
        models = own.ordered(left)
        if not together:
            return [[i] for i in models]
        return [list(part) for _, part in groupby(models, own.distance)]

    def _free(self, shards: list[list[int]]) -> Iterator[list[int]]:
        for shard in shards:
            if mine := [i for i in shard if self._take(i)]:
                yield mine

    def _take(self, i: int) -> bool:
        """Whether the model is to be trained here, now."""
        if not self._keeps:
            return True
        key = self.keys[i]
        if not turns.take(self.cache, key):
            return False
        self._held.add(key)
        if self.cache.since(key) == self._seen[i]:
            return True
        self._give(key)  # somebody has trained it since we looked
        return False

    def _give(self, *keys: str) -> None:
        turns.give(self.cache, *keys)
        self._held.difference_update(keys)

    def _look(self, i: int) -> None:
        """See whether the store has a model by now."""
        key = self.keys[i]
        before = self.cache.since(key)
        if (entry := self._whole(key)) is not None:
            self.done[i] = entry
        else:  # one that was set aside has gone
            self._seen[i] = before if self.cache.since(key) is not None else None

    def _wait(self) -> None:
        """Until another process has trained a model that we lack, or has left one to us."""
        if self._has_changed():
            return
        pause = PAUSE
        with progress.bar(1, "waiting for other processes", "model"):
            while not self._has_changed():
                time.sleep(pause)
                pause = min(1.5 * pause, LONGEST)

    def _has_changed(self) -> bool:
        left = self._left()
        for i in left:
            self._look(i)
        if len(self._left()) < len(left):
            return True
        if not turns.are_seen(self.cache):
            return self._share.of == 1
        if (free := next((i for i in left if self._take(i)), None)) is not None:
            self._give(self.keys[free])
        return free is not None
