"""Modal's module name: `from minimodal.container_process import ContainerProcess`."""

from .sandbox_process import ContainerProcess as ContainerProcess
