"""What runs in the containers of test_leases.py."""

from __future__ import annotations

import os
import time
from typing import Any

import minimodal

app = minimodal.App("leased")


@app.function(max_containers=1, timeout=1, startup_timeout=60)
def do(deed: str, *args: Any) -> Any:
    match deed:
        case "echo":
            return args[0]
        case "sleep":
            time.sleep(args[0])
        case "print":
            print(args[0])
        case "raise":
            raise ValueError(args[0])
        case "exit":
            os._exit(4)
        case "nest":
            depth = args[0]
            return [depth, *do.remote("nest", depth - 1)] if depth else [depth]
        case "who":
            return minimodal.current_function_call_id()
        case "garbage":
            _executors_socket().sendall(b"\xff" * 64)
            time.sleep(5)
        case "answer for another":
            from minimodal.wire import Kind, encode

            _executors_socket().sendall(encode(Kind.RESULT, 7, "0.0")[0])
            time.sleep(5)
    return deed


def _executors_socket() -> Any:
    import gc

    from minimodal.agent.executor import SerialExecutor

    [executor] = [each for each in gc.get_objects() if isinstance(each, SerialExecutor)]
    return executor._link.sock
