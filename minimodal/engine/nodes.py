"""The machines that containers run on, as budgets of cpu and memory: today one.

Owns the arithmetic of room: what is free, what is promised, what can never fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minimodal.types import Resources

_EPSILON = 1e-9  # sums of cpu shares such as 0.1 are not exact


class Node(NamedTuple):
    """A machine's budget: cpus and MiB of memory that containers may ask for in all.

    `gpu`: whether who asks for one may run here.
    """

    name: str
    cpu: float
    memory: int
    gpu: bool = False


def never_fits(resources: Resources, nodes: Sequence[Node]) -> str | None:
    """Why no node could ever run such a container, or None if one could."""
    if any(Room(node).fits(resources) for node in nodes):
        return None
    if resources.gpu and not any(node.gpu for node in nodes):
        return (
            f"it asks for gpu={resources.gpu!r}, and this backend has no GPU to give. The docker "
            "backend has where NVIDIA's container toolkit is set up (`minimodal doctor` shows it); "
            "without gpu=, or with MINIMODAL_GPU=ignore, it runs on the CPU"
        )
    largest = " or ".join(f"{node.cpu:g} cpu and {node.memory} MiB ({node.name})" for node in nodes)
    asked = f"{resources.cpu:g} cpu and {resources.memory} MiB of memory"
    return f"it asks for {asked}, and containers may use at most {largest or 'nothing'}"


class Room:
    """What is left of a node: `cpu` and `memory` now, `later_*` once what ends has ended.

    A start needs both: what is free now may be promised to another pool already.
    """

    __slots__ = ("cpu", "later_cpu", "later_memory", "memory", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cpu = self.later_cpu = node.cpu
        self.memory = self.later_memory = node.memory

    def fits(self, need: Resources) -> bool:
        if need.gpu and not self.node.gpu:
            return False
        return need.cpu <= self.cpu + _EPSILON and need.memory <= self.memory

    def fits_later(self, need: Resources) -> bool:
        return need.cpu <= self.later_cpu + _EPSILON and need.memory <= self.later_memory

    def use(self, need: Resources) -> None:
        self.cpu -= need.cpu
        self.memory -= need.memory
        self.promise(need)

    def promise(self, need: Resources) -> None:
        self.later_cpu -= need.cpu
        self.later_memory -= need.memory

    def release_later(self, need: Resources) -> None:
        self.later_cpu += need.cpu
        self.later_memory += need.memory
