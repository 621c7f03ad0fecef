"""How each request to a Docker engine is made: a deadline, bounded repetition, one kind of failure.

Knows the exceptions of aiodocker by `foreign` only, so that nothing here imports it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import anyio

from minimodal.errors import Error

from .docker_host import DockerHost

T = TypeVar("T")

ANSWER_WITHIN = 30.0  # seconds for a request that only looks something up
RETRY_DELAYS = (0.1, 0.4, 1.6)


class DockerFailure(Error):
    """The engine refused (`status` is HTTP's) or did not answer (`status` 0)."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code  # of a command that failed in a build


class Requests:
    """Makes requests to one engine. `foreign` are the exceptions that its client raises."""

    def __init__(self, host: DockerHost, foreign: tuple[type[Exception], ...]) -> None:
        self.host = host
        self.foreign = foreign

    async def ask(
        self,
        doing: str,
        request: Callable[[], Awaitable[T]],
        *,
        within: float | None = ANSWER_WITHIN,
        again: bool = False,
    ) -> T:
        delays = iter(RETRY_DELAYS if again else ())
        with self._failures(doing, within), anyio.fail_after(within):
            while True:
                try:
                    return await request()
                except self.foreign as error:
                    delay = next(delays, None)
                    if delay is None or not _worth_repeating(error):
                        raise
                    await anyio.sleep(delay)

    async def records(self, doing: str, records: Any) -> AsyncIterator[dict[str, Any]]:
        with self._failures(doing, None):
            async for record in records:
                yield record

    @contextlib.asynccontextmanager
    async def streaming(self, stream: Any) -> AsyncIterator[Stream]:
        await self.ask("attach", stream.__aenter__)
        try:
            yield Stream(stream, self.foreign)
        finally:
            with contextlib.suppress(AssertionError, *self.foreign):
                await stream.close()  # asserts on its connection where the engine closed it first

    @contextlib.contextmanager
    def _failures(self, doing: str, within: float | None) -> Iterator[None]:
        """Foreign errors become DockerFailure here, and only here."""
        try:
            yield
        except TimeoutError as error:
            raise DockerFailure(
                0, f"the Docker engine at {self.host} did not answer within {within} s ({doing})"
            ) from error
        except self.foreign as error:
            detail = getattr(error, "error_detail", None)
            if detail is not None:  # a failure in the middle of a stream that began with 200
                raise DockerFailure(500, str(error.message), detail.get("code")) from error  # type: ignore[attr-defined]  # aiodocker's
            status = getattr(error, "status", 0)
            words = str(getattr(error, "message", "") or error or type(error).__name__)
            if status in (0, 900) and not words.startswith("Cannot connect"):
                words = f"the connection to the Docker engine at {self.host} broke: {words}"
            raise DockerFailure(0 if status == 900 else status, words) from error


class Stream:
    """The output and input of an attached container or process."""

    def __init__(self, stream: Any, foreign: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._foreign = foreign

    async def read(self) -> tuple[int, bytes] | None:
        """(1, bytes) of stdout or (2, bytes) of stderr; None at the end, or if the engine went away."""
        try:
            message = await self._stream.read_out()
        except self._foreign:
            return None
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        gone: tuple[type[Exception], ...] = (RuntimeError, AssertionError, *self._foreign)
        try:
            await self._stream.write_in(data)
        except gone as error:
            raise anyio.BrokenResourceError from error

    def write_eof(self) -> None:
        connection = self._stream._resp.connection if self._stream._resp else None
        if connection is not None and connection.transport is not None:
            connection.transport.write_eof()


@contextlib.contextmanager
def tolerating(*statuses: int) -> Iterator[None]:
    """Let these answers of the engine pass."""
    try:
        yield
    except DockerFailure as error:
        if error.status not in statuses:
            raise


def _worth_repeating(error: Exception) -> bool:
    """A cut connection or an answer that is no JSON; a real refusal will not change."""
    status = getattr(error, "status", 900)
    return status in (900, 502, 503, 504)
