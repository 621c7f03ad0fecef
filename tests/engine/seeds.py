"""Random engines under random load and faults, each wholly given by its seed.

`python -m tests.engine.seeds 10000` runs so many.
"""

from __future__ import annotations

import sys
from random import Random

from minimodal.engine.placement import Node
from minimodal.engine.scheduler import Quota
from minimodal.types import Resources, RetryPolicy, Scaling, ScheduleSpec

from .simulated_pool import Setup
from .simulation import Simulation


def of_seed(seed: int, calls: int = 40) -> Simulation:
    """A random engine with random load and faults in its first minute."""
    random = Random(seed)
    setups = {
        key: Setup(
            service=random.choice([0.001, 0.05, 0.5, 5.0]),
            cold_start=random.choice([0.03, 0.4, 3.0]),
            resources=Resources(random.choice([0.125, 0.5, 2.0]), random.choice([128, 1024])),
            scaling=Scaling(
                min_containers=random.choice([0, 0, 1]),
                max_containers=random.choice([None, 1, 3]),
                buffer_containers=random.choice([0, 0, 2]),
                scaledown_window=random.choice([2.0, 10.0]),
            ),
            retries=RetryPolicy(random.choice([0, 0, 2]), 2.0, 1.0, 5.0),
            max_inputs=random.choice([1, 1, 4]),
            raises=random.choice([0.0, 0.3]),
            kills=random.choice([0.0, 0.0, 0.1, 0.6]),
            broken_until=random.choice([0.0, 0.0, 0.0, 20.0]),
            schedule=random.choice([None, None, ScheduleSpec(cron="* * * * *")]),
        )
        for key in "abc"[: random.randint(1, 3)]
    }
    quotas = {
        user: Quota(
            random.choice([1.0, 2.0]), random.choice([None, 1, 3]), random.choice([None, 5])
        )
        for user in "xyz"
    }
    nodes = [Node("host", 2.0, 2048), Node("other", 2.0, 4096)][: random.choice([1, 1, 2])]
    simulation = Simulation(setups, quotas, nodes, seed)
    moment = 0.0
    for _ in range(calls):
        moment += random.choice([0.0, 0.0, 0.01, random.expovariate(1.0)])
        call = (random.choice(list(setups)), random.choice("xyz"), random.randint(-1, 1))
        simulation.at(moment, "submit", call)
    for kind, most in (("kill", 4), ("cancel", 6)):
        for _ in range(random.randint(0, most)):
            simulation.at(random.uniform(0, moment + 5), kind)
    for _ in range(random.randint(0, 2)):
        simulation.at(random.uniform(0, 60), "jump", random.choice([3600.0, -3600.0, 3e7, -3e7]))
    return simulation


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        simulated = of_seed(seed)
        simulated.run(3600.0)
        assert not simulated.live, seed
        if seed % 1000 == 999:
            print(f"{seed + 1} seeds", flush=True)
