"""F84: who guesses tokens, or floods the platform's own pages, is slowed down; others are not."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from minimodal.config import load_config
from minimodal.gateway.limits import Limits
from minimodal.gateway.tokens import TokenFile
from minimodal.home import open_home
from minimodal.host import Host


def test_f84_token_guessing(home: Path) -> None:
    tokens = TokenFile(open_home().config / "tokens.json")
    right = tokens.create("ada", ("read",))
    assert right not in (open_home().config / "tokens.json").read_text()
    config = load_config({"backend": "process", "port": 0, "host": "0.0.0.0"})
    with Host(config) as host:
        host.open_gateway()
        url = f"http://127.0.0.1:{host.door.port}/api/v1/endpoints"
        with httpx.Client() as client:

            def status(token: str | None) -> int:
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                return client.get(url, headers=headers).status_code

            assert status(None) == 401
            assert status(right) == 200
            guesses = [right[:-1], right[:12], right + "x", "mm__", "x", "mm_00000000_x"]
            seen = {status(guess) for guess in guesses for _ in range(10)}
            assert seen == {401, 429}
            assert status(right) == 200
            write = url.replace("endpoints", "calls/fc-1/cancel")
            assert (
                client.post(write, headers={"Authorization": f"Bearer {right}"}).status_code == 403
            )
            tokens.revoke(right.split("_")[1])
            assert status(right) in (401, 429)


def test_f84_a_flood_of_requests_to_the_platform(home: Path) -> None:
    class Slow(Host):
        def _gateway_settings(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            slow = Limits(api_rate=5.0, api_burst=20)
            return replace(super()._gateway_settings(), limits=slow)

    with Slow(load_config({"backend": "process", "port": 0})) as host:
        with httpx.Client(base_url=host.open_gateway()) as client:
            answers = [client.get("/api/v1/engine") for _ in range(60)]
            assert {answer.status_code for answer in answers} == {200, 429}
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert refused.headers["content-type"] == "application/problem+json"
            time.sleep(float(refused.headers["retry-after"]))
            assert client.get("/api/v1/engine").status_code == 200
