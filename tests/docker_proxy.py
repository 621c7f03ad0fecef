"""A Unix socket in front of the Docker engine that misbehaves on chosen requests."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import ByteStream

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
REQUEST = re.compile(rb"^(GET|POST|DELETE|PUT|HEAD) (\S+) HTTP/1.1\r\n")


@dataclass(frozen=True)
class Hold:
    """Pass the request on when `until` is set, whether or not the client still waits."""

    until: anyio.Event
    arrived: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True)
class Answer:
    """Answer instead of the engine; an empty text cuts the connection."""

    text: bytes


Rule = Callable[[str], Hold | Answer | None]


def refusal(status: int, message: str) -> Answer:
    body = b'{"message": "%s"}' % message.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return Answer(head.encode() + body)


def once(pattern: str, action: Hold | Answer, times: int = 1) -> Rule:
    """Apply `action` to the first `times` requests ("POST /v1.41/…") that match."""
    left = [times]

    def rule(request: str) -> Hold | Answer | None:
        if left[0] and re.search(pattern, request):
            left[0] -= 1
            return action
        return None

    return rule


@contextlib.asynccontextmanager
async def misbehaving_engine(path: Path, rule: Rule) -> AsyncIterator[str]:
    """Serve at `path`; gives the address for DOCKER_HOST."""

    async def serve(client: ByteStream) -> None:
        async with client, await anyio.connect_unix(ENGINE) as engine:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(back, engine, client)
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    async for chunk in client:
                        found = REQUEST.match(chunk)
                        action = rule(f"{found[1].decode()} {found[2].decode()}") if found else None
                        if isinstance(action, Answer):
                            if action.text:
                                await client.send(action.text)
                                continue
                            break
                        if action:
                            action.arrived.set()
                            await action.until.wait()
                        await engine.send(chunk)
                    else:
                        # Its client is gone, but the engine is not told: it finishes what it does.
                        await anyio.sleep_forever()
                tasks.cancel_scope.cancel()

    async def back(engine: ByteStream, client: ByteStream) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for chunk in engine:
                await client.send(chunk)
            await client.aclose()

    async with (
        await anyio.create_unix_listener(path) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield f"unix://{path}"
        tasks.cancel_scope.cancel()
