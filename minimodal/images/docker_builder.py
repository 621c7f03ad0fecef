"""Images of the Docker backend. So far those that the engine has: a base, and settings over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from minimodal.backends.docker_api import DockerApi
from minimodal.errors import BuildError
from minimodal.layers import Base, ImageSpec
from minimodal.protocols import Report
from minimodal.types import ImageRef

Secrets = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]


class DockerBuilder:
    """Finds images."""

    def __init__(self, api: DockerApi) -> None:
        self._api = api

    async def build(self, image: ImageSpec, report: Report) -> ImageRef:
        """Raises BuildError for what is not there and would have to be built."""
        base = image.layers[0]
        if len(image.layers) > 1 or not isinstance(base, Base):
            raise BuildError("the docker backend cannot build layers yet")
        if await self._api.image(base.tag) is None:
            raise BuildError(
                f"no image {base.tag}: `docker pull` it, or `minimodal image bootstrap`"
            )
        return ImageRef(digest=image.digest, name=base.tag)
