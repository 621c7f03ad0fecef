"""One user's waiting calls in one pool: by priority, then by age, with cheap discarding.

Owns the items' order inside a user; scheduler.py owns the order of the users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from .scheduler import FairQueue
    from .tenants import Account

T = TypeVar("T", bound=Hashable)

_SPARE_LANES = 8  # empty lanes that a line keeps before it drops them


class Line(Generic[T]):
    """One user's waiting calls in one queue: a lane for each priority."""

    __slots__ = ("account", "count", "keys", "lanes", "listed", "parked", "queue", "running", "tag")

    def __init__(self, queue: FairQueue[T], account: Account) -> None:
        self.queue = queue
        self.account = account
        self.tag = 0.0  # start tag of the next call
        self.count = 0
        self.running = 0
        self.listed = False  # in the queue's heap
        self.parked = False  # in the account's list instead: at its quota on running calls
        self.lanes: dict[int, Lane[T]] = {}  # by minus the priority
        self.keys: list[int] = []  # heap of the keys of `lanes`

    def lane(self, key: int) -> Lane[T]:
        lane = self.lanes.get(key)
        if lane is None:
            if len(self.lanes) > 2 * self.count + _SPARE_LANES:
                self.lanes = {key: lane for key, lane in self.lanes.items() if lane.items}
                self.keys = list(self.lanes)
                heapify(self.keys)
            lane = self.lanes[key] = Lane(self)
            heappush(self.keys, key)
        return lane

    def take(self) -> T:
        """The first item. There must be one."""
        self.count -= 1
        while True:
            key = self.keys[0]
            lane = self.lanes[key]
            items = lane.items
            while items:
                item = items.popleft()
                if not lane.buried or not lane.bury(item):
                    return item
            heappop(self.keys)
            del self.lanes[key]


class Lane(Generic[T]):
    """One user's waiting calls of one priority, with the discarded ones marked, not yet removed.

    An item may be discarded and queued again: of its occurrences the first `dead[item]` don't count.
    """

    __slots__ = ("buried", "dead", "items", "line")

    def __init__(self, line: Line[T]) -> None:
        self.line = line
        self.items: deque[T] = deque()
        self.dead: dict[T, int] = {}
        self.buried = 0  # sum of `dead`

    def __iter__(self) -> Iterator[T]:
        if not self.dead:
            yield from self.items
            return
        dead = dict(self.dead)
        for item in self.items:
            if dead.get(item):
                dead[item] -= 1
            else:
                yield item

    def bury(self, item: T) -> bool:
        """Whether this occurrence is a discarded one; if so it is counted off."""
        count = self.dead.get(item)
        if not count:
            return False
        self.buried -= 1
        if count == 1:
            del self.dead[item]
        else:
            self.dead[item] = count - 1
        return True

    def compact(self) -> None:
        self.items = deque(self)
        self.dead.clear()
        self.buried = 0
