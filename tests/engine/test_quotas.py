"""Quotas on record, and the bound on all that waits."""

from __future__ import annotations

from pathlib import Path

import pytest

import minimodal
from minimodal.config import load_config
from minimodal.errors import ResourceExhaustedError
from minimodal.host import Host
from tests.programming.conftest import wait_until
from tests.programming.users import hold, holding


def test_quotas_outlive_the_engine(scratch: Path) -> None:
    config = load_config({"backend": "process", "home": scratch / "quotas"})
    with Host(config):
        minimodal.set_quota("ada", weight=2, max_running=3)
    with Host(config) as host, Host(config) as other:
        for engine in (host.engine, other.engine):
            quota = engine.tenants.quota("ada")
            assert (quota.weight, quota.max_running, quota.max_queued) == (2, 3, None)
        minimodal.set_quota("ada", max_running=1)  # by `other`, and the first one follows
        wait_until(host, lambda: host.engine.tenants.quota("ada").max_running == 1)


def test_all_queued_calls_together_are_bounded(scratch: Path) -> None:
    settings = {"backend": "process", "home": scratch / "bound", "max_queued": 3}
    with Host(load_config(settings)) as host, holding.run():
        blocker = hold.spawn()
        wait_until(host, lambda: host.engine.calls[blocker.object_id].slot is not None)
        for user in "abc":
            with minimodal.as_user(user):
                hold.spawn()
        with (
            minimodal.as_user("d"),
            pytest.raises(ResourceExhaustedError, match=r"at most 3 may be .setting max_queued"),
        ):
            hold.remote()
        blocker.cancel()
