"""Requests per second and latency through the gateway to a warm container, and the same app plain.

    python tests/benchmarks/bench_gateway.py [--backend process] [--rounds 5] [--seconds 2] [--clients 16]

Each server runs in a process of its own; the load comes from this one, over kept connections. The plain
app is served twice, as `pip install uvicorn` does it (h11) and as `uvicorn[standard]` does (httptools).
The servers take turns, so that other work on the machine meets all of them; medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from operator import truediv
from pathlib import Path

import minimodal

app = minimodal.App("bench-gateway")

BODY = b"x" * 100
PLAIN = ("h11", "httptools")


async def small(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


@app.function()
@minimodal.concurrent(max_inputs=100)
@minimodal.asgi_app(label="bench")
def bench():
    return small


async def one_client(port: int, path: str, until: float, times: list[float]) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(len(BODY))
        times.append(time.perf_counter() - started)
    writer.close()


async def load(port: int, path: str, clients: int, seconds: float) -> list[float]:
    """What each request took, sorted."""
    import anyio  # containers import this file too, and have it not

    times: list[float] = []
    until = time.perf_counter() + seconds
    async with anyio.create_task_group() as running:
        for _ in range(clients):
            running.start_soon(one_client, port, path, until, times)
    return sorted(times)


def serve_plain(port: int, http: str) -> None:
    import uvicorn

    uvicorn.run(
        small, host="127.0.0.1", port=port, log_level="error", http=http, access_log=False,
        lifespan="off",
    )  # fmt: skip


def serve_gateway(port: int, backend: str) -> None:
    from minimodal.config import load_config
    from minimodal.host import Host

    with Host(load_config({"backend": backend, "port": port, "strict_port": True})), app.run():
        sys.stdin.read()


class Server:
    """One of those that are compared."""

    def __init__(self, name: str, port: int, path: str) -> None:
        self.name, self.port, self.path = name, port, path
        self.rates: list[float] = []
        self.medians: list[float] = []
        self.tails: list[float] = []
        self.costs: list[float] = []  # seconds of its process's CPU for one request
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        wait_for(port, path)

    def round(self, clients: int, seconds: float) -> None:
        before, began = self.cpu(), time.perf_counter()
        times = asyncio.run(load(self.port, self.path, clients, seconds))
        self.rates.append(len(times) / (time.perf_counter() - began))
        self.medians.append(times[len(times) // 2])
        self.tails.append(times[int(len(times) * 0.99)])
        self.costs.append((self.cpu() - before) / len(times))

    def cpu(self) -> float:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def report(self, clients: int) -> None:
        rate, middle, tail, cost = (
            statistics.median(each) for each in (self.rates, self.medians, self.tails, self.costs)
        )
        print(
            f"{self.name:<10} {clients:>3} clients {rate:>8.0f} requests/s   median {middle * 1e3:6.2f} ms   "
            f"p99 {tail * 1e3:6.2f} ms   {cost * 1e6:4.0f} µs of CPU each"
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.name in PLAIN:
            self.process.terminate()
        self.process.wait(20)


def wait_for(port: int, path: str) -> None:
    import urllib.request

    until = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--serve", help="be one of the servers")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.serve in PLAIN:
        serve_plain(options.port, options.serve)
    elif options.serve:
        serve_gateway(options.port, options.serve)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        servers = []
        for number, name in enumerate((*PLAIN, options.backend)):
            path = "/" if name in PLAIN else "/bench/"
            servers.append(Server(name, 18871 + number, path))
            stack.callback(servers[-1].close)
            servers[-1].round(4, 0.5)  # it warms up
        for clients in (1, options.clients):
            for server in servers:
                server.rates, server.medians, server.tails, server.costs = [], [], [], []
            for _ in range(options.rounds):
                for server in servers:
                    server.round(clients, options.seconds)
            for server in servers:
                server.report(clients)
    *plain, ours = servers
    for server in plain:
        share = statistics.median(map(truediv, ours.rates, server.rates))
        costs = statistics.median(map(truediv, server.costs, ours.costs))
        print(
            f"the gateway does {share:.2f} of what plain uvicorn with {server.name} does; "
            f"by the CPU of the serving process, {costs:.2f}"
        )


if __name__ == "__main__":
    main()
