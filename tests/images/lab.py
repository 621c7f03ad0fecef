"""`Lab`: a platform on one backend, in which functions look around in images."""

from __future__ import annotations

import secrets as random
import sys
from typing import Any

import minimodal
from minimodal.host import Host
from minimodal.image import Image
from tests.images import surface

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Lab:
    """A platform on one backend, and a base image that no earlier run has built upon."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.backend = backend
        self.unique = random.token_hex(8)
        self.base = Image.debian_slim(VERSION).env(LAB=self.unique)
        self.lines: list[str] = []
        host.subscribe(lambda e: self.lines.append(str(e.fields.get("text"))))

    def see(self, image: Image, code: str, function: Any = surface.look, **options: Any) -> Any:
        """What `code` leaves in `seen` when a function runs it in the image."""
        app = minimodal.App()
        looking = app.function(image=image, **options)(function)
        with app.run():
            return looking.remote(code) if function is surface.look else looking.remote()
