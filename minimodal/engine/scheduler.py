"""The order of waiting calls: which call of a pool runs next, fair over users.

Owns `FairQueue`, the queue of one pool, and `Tenants`, the users' weights, quotas and counts that all
queues share. Knows nothing of containers, tasks or time: whoever has a free slot calls `pop`, and
`finish` when the call has left the slot.

Inside a pool: start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996),
which is stride scheduling (Waldspurger, Weihl: MIT/LCS/TM-528, 1995) with a rule for newcomers. Each
user has a tag; the lowest tag goes next; a dispatch adds 1 / weight to it. A user that comes back
starts at the queue's virtual time, the tag of the last dispatch, so idling saves up no credit and a
flood of calls puts nobody else's single call behind it.

Over pools a user's share counts once: a dispatch is charged `running everywhere / running here`
times, at most `SPREAD_LIMIT` times. One global tag per user, the plain way, was rejected: it remembers.
A user that had a pool to itself for an hour would then be starved in another pool for an hour.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import islice
from typing import Any, Generic, TypeVar

from minimodal.errors import InvalidError

from .lanes import Lane, Line
from .tenants import Quota, Tenants

__all__ = ["SPREAD_LIMIT", "FairQueue", "Quota", "Tenants"]

T = TypeVar("T", bound=Hashable)

SPREAD_LIMIT = 16.0
"""How much slower than its weight a user may go in one pool because of what it runs in others."""

_SWEEP_SLACK = 64  # idle users' records that a queue keeps before it looks for ones to forget


class FairQueue(Generic[T]):
    """The waiting calls of one pool: fair over users, by priority and then by age inside a user.

    A popped item holds a place of its user's running quota until `finish(user)`. Items are hashable
    and wait at most once at a time. `push` and `pop` cost O(log users), O(1) with one user.
    """

    def __init__(self, tenants: Tenants, name: str = "") -> None:
        self.name = name
        self._tenants = tenants
        self._lines: dict[str, Line[T]] = {}
        self._lanes: dict[T, Lane[T]] = {}  # where each waiting item is
        self._heap: list[tuple[float, int, Line[T]]] = []  # lines by tag; may hold emptied ones
        self._sequence = 0  # breaks ties of tags: who was listed first
        self._virtual_time = 0.0
        self._last_tag = 0.0  # highest tag of a line that was emptied
        self._sweep_at = _SWEEP_SLACK

    def push(self, item: T, user: str, priority: int = 0, *, accepted: bool = False) -> None:
        """Queue a new call behind the user's others of its priority; a higher priority goes first.

        Raises ResourceExhaustedError at the user's `max_queued`, unless it was `accepted` before.
        """
        line = self._lines.get(user) or self._new_line(user)
        if not accepted:
            self._tenants.require_room(line.account)
        lane = line.lanes.get(-priority) or line.lane(-priority)
        self._place(item, line, lane)
        lane.items.append(item)

    def push_front(self, item: T, user: str, priority: int = 0) -> None:
        """Queue again a call that was accepted before: given back, or due for its retry.

        It goes ahead of the user's others of its priority. Never refused: the quota was passed once.
        """
        line = self._lines.get(user) or self._new_line(user)
        lane = line.lanes.get(-priority) or line.lane(-priority)
        self._place(item, line, lane)
        if item in lane.dead:  # its old place is behind the new one: the first found must be live
            lane.bury(item)
            lane.items.remove(item)
        lane.items.appendleft(item)

    def pop(self) -> T | None:
        """Take the next call and count it as running; None if none waits or quotas forbid all."""
        heap = self._heap
        while heap:
            tag, _, line = heap[0]
            account = line.account
            if not line.count or account.running >= account.max_running:
                heappop(heap)
                line.listed = False
                if line.count:  # at its quota: out of the heap until `finish` wakes it
                    line.parked = True
                    account.parked.append(line)
                continue
            item = line.take()
            del self._lanes[item]
            self._virtual_time = tag
            self._tenants.count(account, -1)
            account.running += 1
            line.running += 1
            charge = account.stride
            if account.running != line.running:
                charge *= min(SPREAD_LIMIT, account.running / line.running)
            line.tag = tag + charge
            if line.count:
                self._sequence += 1
                heapreplace(heap, (line.tag, self._sequence, line))
            else:
                heappop(heap)
                line.listed = False
                self._last_tag = max(self._last_tag, line.tag)
                if (
                    not heap
                ):  # nobody competes: a new round, in which nothing is held against anyone
                    self._virtual_time = self._last_tag
            return item
        return None

    def count_running(self, user: str) -> None:
        """A call of this user runs that has not waited here. Until `finish`, as for a popped one."""
        line = self._lines.get(user) or self._new_line(user)
        if not line.running and not line.count:
            line.account.pools += 1
        line.running += 1
        line.account.running += 1

    def finish(self, user: str) -> list[FairQueue[Any]]:
        """A popped call of this user has left its slot, however it ended.

        Returns the queues in which the user was held back by its quota: one more may be popped.
        """
        line = self._lines[user]
        account = line.account
        line.running -= 1
        account.running -= 1
        assert line.running >= 0, f"finish({user!r}) without a pop"
        if not line.running and not line.count:
            account.pools -= 1
        return account.wake() if account.parked else []

    def discard(self, item: T) -> bool:
        """Take a waiting call out, amortised O(1). False if it doesn't wait here."""
        lane = self._lanes.pop(item, None)
        if lane is None:
            return False
        line = lane.line
        lane.dead[item] = lane.dead.get(item, 0) + 1
        lane.buried += 1
        if lane.buried * 2 > len(lane.items):
            lane.compact()
        line.count -= 1
        self._tenants.count(line.account, -1)
        if not line.running and not line.count:
            line.account.pools -= 1
        return True

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, item: T) -> bool:
        return item in self._lanes

    def __iter__(self) -> Iterator[T]:
        """All waiting items, user by user, those who are next first. For listings."""
        for line in sorted(self._lines.values(), key=lambda line: line.tag):
            for key in sorted(line.lanes):
                yield from line.lanes[key]

    def heads(self) -> Iterator[T]:
        """The first waiting item of each user and priority: the one that waits longest is among them."""
        for line in self._lines.values():
            if line.count:
                for lane in line.lanes.values():
                    yield from islice(lane, 1)

    def users(self) -> dict[str, int]:
        """How many calls of each user wait."""
        return {user: line.count for user, line in self._lines.items() if line.count}

    def runnable(self) -> int:
        """How many of the waiting calls the quotas would let run now: what is worth scaling for.

        O(users) where any user has a quota on running calls, else O(1).
        """
        if not self._tenants.limits_running:
            return len(self._lanes)
        waiting = (line for line in self._lines.values() if line.count)
        return sum(min(line.count, line.account.room()) for line in waiting)

    def weight(self) -> float:
        """The weight of this pool against others: its users', each split over the pools it is in."""
        active = (line for line in self._lines.values() if line.count or line.running)
        return sum(1 / (line.account.stride * line.account.pools) for line in active)

    def _place(self, item: T, line: Line[T], lane: Lane[T]) -> None:
        """Everything about a new item but its position in the lane."""
        if item in self._lanes:
            raise InvalidError(f"{item!r} waits in this queue already")
        self._lanes[item] = lane
        account = line.account
        self._tenants.count(account, 1)
        line.count += 1
        if line.count == 1:
            if not line.running:
                account.pools += 1
            self._list(line)

    def _list(self, line: Line[T]) -> None:
        """Enter a line into the heap, at the virtual time if it is behind."""
        if line.listed or line.parked:
            return
        line.listed = True
        line.tag = max(line.tag, self._virtual_time)
        self._sequence += 1
        heappush(self._heap, (line.tag, self._sequence, line))

    def _new_line(self, user: str) -> Line[T]:
        if len(self._lines) >= self._sweep_at:
            self._forget_idle()
        line = self._lines[user] = Line(self, self._tenants.account(user))
        return line

    def _forget_idle(self) -> None:
        """Drop the records of users who would get the same place if they came as new ones."""
        for user, line in list(self._lines.items()):
            idle = not (line.count or line.running or line.listed or line.parked)
            if idle and line.tag <= self._virtual_time:
                del self._lines[user]
                self._tenants.leave(line.account)
        self._sweep_at = 2 * len(self._lines) + _SWEEP_SLACK
