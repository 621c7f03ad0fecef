"""Connecting to a Docker engine: transport, first answer, and what to do where none comes.

The only importer of aiodocker, and only when a connection is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio

from minimodal.errors import RuntimeUnavailable

from .docker_api import DockerApi
from .docker_host import DockerHost, find_docker_hosts
from .docker_requests import DockerFailure, Requests

PROBE_WITHIN = 3.0


@contextlib.asynccontextmanager
async def open_first(explicit: str | None) -> AsyncIterator[DockerApi]:
    """The engine that the docker CLI would use; `explicit` is its address, if one was given.

    Raises RuntimeUnavailable within three seconds.
    """
    hosts = find_docker_hosts(explicit, os.environ)
    if not hosts:
        raise RuntimeUnavailable(
            "no Docker engine was found: no DOCKER_HOST, no context, no socket at a known place. "
            "Start one (`sudo systemctl start docker`, or Docker Desktop), or use another backend."
        )
    reasons: list[RuntimeUnavailable] = []
    async with contextlib.AsyncExitStack() as stack:
        for host in hosts:
            try:
                api = await stack.enter_async_context(
                    open_api(host, within=PROBE_WITHIN / len(hosts))
                )
            except RuntimeUnavailable as error:
                reasons.append(error)
            else:
                yield api
                return
    raise RuntimeUnavailable("\n".join(str(reason) for reason in reasons)) from reasons[0]


@contextlib.asynccontextmanager
async def open_api(host: DockerHost, *, within: float) -> AsyncIterator[DockerApi]:
    """Connect and ask for `docker info` before `within`. Raises RuntimeUnavailable with the way out."""
    import aiodocker
    import aiohttp

    foreign = (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError)
    connector, url = _connector(host)
    client = aiodocker.Docker(url=url, connector=connector)
    try:
        requests = Requests(host, foreign)
        api = DockerApi(client, requests)
        try:
            api.info = dict(await requests.ask("info", client.system.info, within=within))
        except DockerFailure as error:
            raise _unavailable(host, error) from error
        yield api
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await client.close()
            await connector.close()


def _connector(host: DockerHost) -> tuple[Any, str]:
    """A connector without a limit (each container holds two connections) and the URL's front."""
    import aiohttp

    if host.socket is not None:
        return aiohttp.UnixConnector(host.socket, limit=0), "unix://localhost"
    scheme, _, address = host.url.partition("://")
    if scheme in ("tcp", "http", "https"):
        if host.tls is None and scheme != "https":
            return aiohttp.TCPConnector(limit=0), f"http://{address}"
        tls = host.tls.context() if host.tls else True
        return aiohttp.TCPConnector(ssl=tls, limit=0), f"https://{address}"
    raise RuntimeUnavailable(
        f"{host}: minimodal reaches Docker over unix:// and tcp:// only. Forward the socket, for "
        "example with `ssh -L /tmp/docker.sock:/var/run/docker.sock …`, and set DOCKER_HOST."
    )


def _unavailable(host: DockerHost, error: DockerFailure) -> RuntimeUnavailable:
    number = _errno(error)
    if number in (errno.EACCES, errno.EPERM):
        return RuntimeUnavailable(
            f"no permission for the Docker engine at {host}. Add yourself to its group "
            "(`sudo usermod -aG docker $USER`, then log in again), or use rootless Docker."
        )
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return RuntimeUnavailable(
            f"no Docker engine listens at {host}. Start one (`sudo systemctl start docker`, or "
            "Docker Desktop), or set DOCKER_HOST to the one that runs."
        )
    return RuntimeUnavailable(f"{error}. Is {host} a Docker engine, and is it the right one?")


def _errno(error: BaseException) -> int | None:
    """The system's error number, from however deep it lies."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__ or cause.__context__
    return None
