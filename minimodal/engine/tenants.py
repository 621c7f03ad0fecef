"""The users: weights, quotas, and how much of each is queued and running over all pools.

Owns the counts; the queues of scheduler.py change them. Knows nothing of the order of calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimodal.errors import InvalidError, ResourceExhaustedError

if TYPE_CHECKING:
    from .lanes import Line
    from .scheduler import FairQueue

_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Quota:
    """One user's weight and limits, counted over all pools. None: unlimited."""

    weight: float = 1.0
    max_running: int | None = None
    max_queued: int | None = None

    def __post_init__(self) -> None:
        weight = self.weight
        if not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise InvalidError(f"weight must be a positive number, not {weight!r}")
        for name in ("max_running", "max_queued"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise InvalidError(
                    f"{name} must be a whole number that is not negative, not {value!r}"
                )


class Tenants:
    """Weights, quotas and counts of all users. One per engine, shared by all its queues.

    `max_queued`: calls of all users together that may wait at one time.
    """

    def __init__(self, default: Quota | None = None, max_queued: int | None = None) -> None:
        self._default = default or Quota()
        self.waiting = 0  # calls of all users that wait, or are about to
        self.max_waiting = _UNLIMITED if max_queued is None else max_queued
        self._quotas: dict[str, Quota] = {}
        self._accounts: dict[str, Account] = {}
        self.limits_running = self._default.max_running is not None

    def quota(self, user: str) -> Quota:
        return self._quotas.get(user, self._default)

    def set_quota(self, user: str, quota: Quota) -> list[FairQueue[Any]]:
        """Change a user's quota at any time. Returns the queues in which it may run again."""
        self._quotas[user] = quota
        self.limits_running |= quota.max_running is not None
        account = self._accounts.get(user)
        if account is None:
            return []
        account.apply(quota)
        return account.wake() if account.parked else []

    def set_all(self, quotas: dict[str, Quota]) -> list[FairQueue[Any]]:
        """Make these the only quotas that are set. Returns as `set_quota`."""
        changed = {user: self._default for user in self._quotas if user not in quotas}
        changed |= {user: q for user, q in quotas.items() if self._quotas.get(user) != q}
        woken = [queue for user, quota in changed.items() for queue in self.set_quota(user, quota)]
        self._quotas = dict(quotas)
        return woken

    @contextmanager
    def places(self, user: str, count: int) -> Iterator[None]:
        """Keep places among the user's waiting calls while so many are being recorded.

        Raises ResourceExhaustedError at a quota.
        """
        account = self.account(user)
        try:
            self.require_room(account, count)
            self.count(account, count)
            try:
                yield
            finally:
                self.count(account, -count)
        finally:
            self.leave(account)

    def require_room(self, account: Account, count: int = 1) -> None:
        """Raises ResourceExhaustedError if not so many more calls of this user may wait."""
        if account.queued + count > account.max_queued:
            raise ResourceExhaustedError(
                f"user {account.user!r} has {account.queued} calls queued and may have at most "
                f"{account.max_queued} (quota max_queued). Wait for some to finish, or raise it: "
                f"minimodal user set {account.user} --max-queued N"
            )
        if self.waiting + count > self.max_waiting:
            raise ResourceExhaustedError(
                f"{self.waiting} calls are queued in this engine, and at most {self.max_waiting} may "
                "be (setting max_queued). Wait for some to finish, or raise it"
            )

    def count(self, account: Account, change: int) -> None:
        """So many calls more of this user wait."""
        account.queued += change
        self.waiting += change

    def running(self, user: str) -> int:
        account = self._accounts.get(user)
        return account.running if account else 0

    def queued(self, user: str) -> int:
        account = self._accounts.get(user)
        return account.queued if account else 0

    def users(self) -> list[str]:
        """Users with a call queued or running, or one lately."""
        return list(self._accounts)

    def account(self, user: str) -> Account:
        """For a queue that meets the user; `leave` gives it back."""
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = Account(user, self.quota(user))
        account.lines += 1
        return account

    def leave(self, account: Account) -> None:
        account.lines -= 1
        if not account.lines:
            del self._accounts[account.user]


class Account:
    """One user over all queues."""

    __slots__ = (
        "lines",
        "max_queued",
        "max_running",
        "parked",
        "pools",
        "queued",
        "running",
        "stride",
        "user",
    )

    def __init__(self, user: str, quota: Quota) -> None:
        self.user = user
        self.running = 0
        self.queued = 0
        self.pools = 0  # in how many queues it has a call waiting or running
        self.lines = 0  # how many queues hold a record of it
        self.parked: list[Line[Any]] = []  # lines that wait for the quota on running calls
        self.apply(quota)

    def apply(self, quota: Quota) -> None:
        self.stride = 1.0 / quota.weight
        self.max_running = _UNLIMITED if quota.max_running is None else quota.max_running
        self.max_queued = _UNLIMITED if quota.max_queued is None else quota.max_queued

    def room(self) -> int:
        return max(0, self.max_running - self.running)

    def wake(self) -> list[FairQueue[Any]]:
        """List the parked lines again, in every queue: only its owner knows which has a free slot."""
        if self.running >= self.max_running:
            return []
        parked, self.parked = self.parked, []
        woken = []
        for line in parked:
            line.parked = False
            if line.count:
                line.queue._list(line)
                woken.append(line.queue)
        return woken
