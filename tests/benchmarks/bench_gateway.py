"""Requests per second and latency through the gateway to a warm container, and the same app plain.

    python tests/benchmarks/bench_gateway.py [--backend process] [--seconds 4] [--clients 16]

Both servers run in a process of their own; the load comes from this one, over kept connections.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time

import minimodal

app = minimodal.App("bench-gateway")

BODY = b"x" * 100


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


async def load(port: int, path: str, clients: int, seconds: float) -> tuple[float, float, float]:
    """Requests per second, median and 99th percentile in milliseconds."""
    import anyio  # containers import this file too, and have it not

    async with anyio.create_task_group() as warming:
        for _ in range(4):
            warming.start_soon(one_client, port, path, time.perf_counter() + 0.5, [])
    times: list[float] = []
    started = time.perf_counter()
    until = started + seconds
    async with anyio.create_task_group() as running:
        for _ in range(clients):
            running.start_soon(one_client, port, path, until, times)
    elapsed = time.perf_counter() - started
    times.sort()
    return len(times) / elapsed, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000


def serve_plain(port: int) -> None:
    import uvicorn

    uvicorn.run(
        small, host="127.0.0.1", port=port, log_level="error", http="h11", access_log=False,
        lifespan="off",
    )  # fmt: skip


def serve_gateway(backend: str, port: int) -> None:
    from minimodal.config import load_config
    from minimodal.host import Host

    with Host(load_config({"backend": backend, "port": port, "strict_port": True})), app.run():
        print("ready", flush=True)
        sys.stdin.read()


def measured(command: list[str], port: int, path: str, options: argparse.Namespace) -> float:
    server = subprocess.Popen(
        [sys.executable, __file__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port, path)
        rate = 0.0
        for clients in (1, options.clients):
            rate, median, tail = asyncio.run(load(port, path, clients, options.seconds))
            print(
                f"{command[0]:<8} {clients:>3} clients {rate:>8.0f} requests/s   "
                f"median {median:6.2f} ms   p99 {tail:6.2f} ms"
            )
        return rate
    finally:
        assert server.stdin is not None
        server.stdin.close()
        if command[0] == "plain":
            server.terminate()
        server.wait(20)


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
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--serve", choices=["plain", "gateway"])
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.command[:1] == ["plain"]:
        serve_plain(int(options.command[1]))
    elif options.command[:1] == ["gateway"]:
        serve_gateway(options.command[1], int(options.command[2]))
    else:
        plain = measured(["plain", "18871"], 18871, "/", options)
        ours = measured(["gateway", options.backend, "18872"], 18872, "/bench/", options)
        print(f"the gateway does {ours / plain:.2f} of the plain server's requests")


if __name__ == "__main__":
    main()
