"""The users: weights, quotas, and how much of each is queued and running over all pools.

Owns the counts; the queues of scheduler.py change them. Knows nothing of the order of calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimodal.errors import InvalidError

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
        if not 0 < self.weight < float("inf"):
            raise InvalidError(f"weight must be a positive number, not {self.weight!r}")
        for name in ("max_running", "max_queued"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidError(f"{name} must not be negative, not {value!r}")


class Tenants:
    """Weights, quotas and counts of all users. One per engine, shared by all its queues."""

    def __init__(self, default: Quota | None = None) -> None:
        self._default = default or Quota()
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
