"""Every bound of the gateway in one place. Seconds and bytes."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    header_bytes: int = 64 * 1024  # request line and all headers; above: 431
    header_seconds: float = 10.0  # from the first byte, or the connection, to the last header
    body_bytes: int = 4 << 30  # of a request to an endpoint; above: 413
    api_body_bytes: int = 1 << 20  # of a request to the platform
    api_rate: float = 100.0  # requests to the platform in a second, of one address or token
    api_burst: int = 300  # that may come at once before the rate counts; above both: 429
    body_idle: float = 30.0  # between two parts of a request's body; above: 408
    write_idle: float = 30.0  # that a client may read nothing; above: it is cut off
    keep_alive: float = 15.0  # between two requests of a connection
    connections: int = 2048  # at one time; above: 503
    websocket_bytes: int = 16 << 20  # of one message
    buffered_body: int = 64 * 1024  # read whole before a container is asked: slow clients hold none
    disconnect_grace: float = 0.8  # that an app has to end by itself when its client has left
    drain: float = 5.0  # that requests have to end when the gateway stops
