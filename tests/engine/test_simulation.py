"""The decisions together on a virtual clock: 200 seeds, and the shapes of load that matter."""

from __future__ import annotations

from collections import Counter

import pytest

from minimodal.engine.breaker import BreakerState
from minimodal.engine.placement import Node
from minimodal.engine.scheduler import Quota
from minimodal.types import Resources, RetryPolicy, Scaling

from .seeds import of_seed
from .simulated_pool import STOP_TIME, Setup
from .simulation import Simulation

EIGHT = [Node("host", 1.0, 4096)]  # room for eight containers of the default size


def test_200_seeds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        simulation = of_seed(seed)
        simulation.run(3600.0)
        assert not simulation.live, f"seed {seed}: calls that never end"
        assert all(call.outcome for call in simulation.calls)
        for pool in simulation.pools.values():
            assert len(pool.containers) <= pool.setup.scaling.min_containers, f"seed {seed}"
        seen.update(call.outcome for call in simulation.calls)
        seen["refused"] += simulation.refused
        seen["retired"] += sum(" retire " in line for line in simulation.trace)
        seen["retried"] += sum(call.retries for call in simulation.calls)
        seen["ticks"] += sum(len(pool.ticks) for pool in simulation.pools.values())
    rare = ["lost", "circuit open", "refused", "retired", "retried", "ticks", "cancelled", "error"]
    assert {kind for kind in rare if seen[kind] < 20} == set(), seen


def test_same_seed_same_trace() -> None:
    for seed in (1, 2, 3):
        first, second = of_seed(seed), of_seed(seed)
        first.run(3600.0)
        second.run(3600.0)
        assert first.trace == second.trace
        assert first.trace


def load(simulation: Simulation, moments: list[float], key: str = "a", user: str = "x") -> None:
    for moment in moments:
        simulation.at(moment, "submit", (key, user, 0))


def waits(simulation: Simulation) -> list[float]:
    return sorted((call.started or 1e9) - call.submitted for call in simulation.calls)


def live_containers(simulation: Simulation) -> int:
    return sum(len(pool.containers) for pool in simulation.pools.values())


def test_burst_uses_the_host_and_leaves_nothing() -> None:
    simulation = Simulation({"a": Setup(service=1.0)}, {}, EIGHT)
    load(simulation, [0.0] * 100)
    simulation.run(40.0)
    assert simulation.starts["a"] == 8  # none twice
    last = max(call.started or 0.0 for call in simulation.calls)
    assert last < 100 / 8 * 1.0 + 4 * 0.3, "all eight work nearly from the start"
    simulation.run(200.0)
    assert live_containers(simulation) == 0


def test_a_burst_of_short_calls_starts_few() -> None:
    simulation = Simulation({"a": Setup(service=0.005)}, {}, EIGHT)
    load(simulation, [0.0] * 100)
    simulation.run(40.0)
    assert simulation.starts["a"] <= 2
    assert waits(simulation)[-1] < 1.0


def test_ramp_grows_with_the_load_and_calls_hardly_wait() -> None:
    simulation = Simulation({"a": Setup(service=0.5)}, {}, EIGHT)
    moments, moment, rate = [], 0.0, 0.5
    while moment < 60.0:
        moments.append(moment)
        moment += 1 / rate
        rate = 0.5 + moment / 60 * 11  # at the end 11.5 calls/s of 0.5 s: 5.75 busy slots
    load(simulation, moments)
    simulation.run(70.0)
    assert 6 <= simulation.starts["a"] <= 8
    assert live_containers(simulation) == simulation.starts["a"], "none was stopped on the way"
    delays = waits(simulation)
    assert delays[len(delays) // 2] == 0.0
    assert delays[int(len(delays) * 0.95)] < 0.4
    simulation.run(300.0)
    assert live_containers(simulation) == 0


def test_sawtooth_within_the_window_does_not_flap() -> None:
    simulation = Simulation({"a": Setup(service=1.0)}, {}, EIGHT)
    load(simulation, [tooth * 30.0 + 0.01 * n for tooth in range(20) for n in range(6)])
    simulation.run(30.0)
    after_first = simulation.starts["a"]
    simulation.run(620.0)
    assert after_first >= 4
    assert simulation.starts["a"] <= 6, "later teeth find their containers warm"


def test_sawtooth_beyond_the_window_goes_to_zero_in_between() -> None:
    setup = Setup(service=1.0, scaling=Scaling(scaledown_window=5.0))
    simulation = Simulation({"a": setup}, {}, EIGHT)
    for tooth in range(5):
        load(simulation, [tooth * 60.0] * 6)
        simulation.run(tooth * 60.0 + 30.0)
        assert live_containers(simulation) == 0
    assert simulation.starts["a"] <= 5 * 6


def test_idle_keeps_one_container_for_calls_now_and_then() -> None:
    simulation = Simulation({"a": Setup(service=0.1)}, {}, EIGHT)
    load(simulation, [10.0 * n for n in range(50)])
    simulation.run(495.0)
    assert simulation.starts["a"] == 1
    assert waits(simulation)[-2] == 0.0
    assert simulation.plans <= 50 * 3, "an idle engine only waits for the window to end"


def test_min_and_buffer() -> None:
    scaling = Scaling(min_containers=2, buffer_containers=1, scaledown_window=5.0)
    simulation = Simulation({"a": Setup(service=3.0, scaling=scaling)}, {}, EIGHT)
    simulation.at(0.0, "look")
    simulation.run(1.0)
    assert live_containers(simulation) == 2
    load(simulation, [1.0, 1.0])
    simulation.run(2.0)
    assert live_containers(simulation) == 3, "a spare while it is active"
    simulation.run(60.0)
    assert live_containers(simulation) == 2
    assert waits(simulation) == [0.0, 0.0]


def test_a_flood_delays_another_pools_single_call_by_one_service_time() -> None:
    simulation = Simulation({"a": Setup(service=1.0), "b": Setup(service=0.1)}, {}, EIGHT)
    load(simulation, [0.0] * 400, user="flood")
    load(simulation, [10.0, 20.0, 30.0], "b", user="single")
    simulation.run(40.0)
    delays = [
        (call.started or 1e9) - call.submitted for call in simulation.calls if call.user == "single"
    ]
    assert len(delays) == 3
    assert max(delays) <= 1.1 + STOP_TIME + 1.2 * 0.3


def test_a_flood_delays_another_users_call_in_its_pool_by_one_service_time() -> None:
    simulation = Simulation({"a": Setup(service=1.0)}, {}, EIGHT)
    load(simulation, [0.0] * 400, user="flood")
    load(simulation, [10.0, 20.3, 30.6], user="single")
    simulation.run(40.0)
    singles = [call for call in simulation.calls if call.user == "single"]
    assert max((call.started or 1e9) - call.submitted for call in singles) <= 1.1


def test_one_users_two_pools_get_no_more_than_anothers_one() -> None:
    simulation = Simulation({key: Setup(service=1.0) for key in "abc"}, {}, EIGHT)
    load(simulation, [0.0] * 200, "a", user="two")
    load(simulation, [0.0] * 200, "b", user="two")
    load(simulation, [0.0] * 200, "c", user="one")
    simulation.run(40.0)
    ended = Counter(
        call.user for call in simulation.calls if call.outcome and (call.started or 0.0) > 10
    )
    assert ended["one"] == pytest.approx(ended["two"], rel=0.1)


def test_pools_that_each_need_the_whole_host_take_turns() -> None:
    whole = Resources(cpu=1.0, memory=128)
    setups = {key: Setup(service=0.2, resources=whole) for key in "ab"}
    simulation = Simulation(setups, {}, EIGHT)
    load(simulation, [0.0] * 400, "a")
    load(simulation, [0.0] * 400, "b")
    simulation.run(60.0)
    done = Counter(call.pool.key for call in simulation.calls if call.outcome)
    assert done["a"] == pytest.approx(done["b"], rel=0.3)
    assert sum(done.values()) > 60 / 0.2 * 0.6, "most of the time is work, not starts"
    assert sum(simulation.starts.values()) < 40


def test_f95_a_crash_loop_costs_five_starts_and_then_one_probe_at_a_time() -> None:
    setup = Setup(service=0.1, broken_until=100.0, scaling=Scaling(min_containers=1))
    simulation = Simulation({"a": setup}, {}, EIGHT)
    load(simulation, [0.0] * 1000)
    simulation.run(1.5)
    breaker = simulation.pools["a"].breaker
    assert simulation.starts["a"] <= 5
    assert breaker.state(simulation.now) is BreakerState.OPEN
    assert Counter(call.outcome for call in simulation.calls) == {"circuit open": 1000}
    simulation.run(99.0)
    assert simulation.starts["a"] <= 5 + 7, "each probe waits twice as long as the last"
    simulation.run(200.0)  # fixed at 100
    assert breaker.state(simulation.now) is BreakerState.CLOSED
    load(simulation, [200.0])
    simulation.run(210.0)
    assert simulation.calls[-1].outcome == "ok"


def test_a_call_that_kills_its_container_each_time_ends() -> None:
    simulation = Simulation({"a": Setup(kills=1.0, retries=RetryPolicy(5))}, {}, EIGHT)
    load(simulation, [0.0])
    simulation.run(60.0)
    assert simulation.calls[0].outcome == "lost"
    assert simulation.calls[0].attempts == 4


def test_a_quota_on_running_calls_does_not_start_containers_for_the_rest() -> None:
    simulation = Simulation({"a": Setup(service=5.0)}, {"x": Quota(max_running=2)}, EIGHT)
    load(simulation, [0.0] * 50)
    simulation.run(20.0)
    assert simulation.starts["a"] == 2
