"""minimodal: a serverless platform for Python in one asyncio process.

The public names, loaded on first use: importing this package costs a few milliseconds and needs
only the standard library, because a user's script imports it inside its containers too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .agent.terminal import interact as interact
    from .app import App as App
    from .app import enable_output as enable_output
    from .call import FunctionCall as FunctionCall
    from .call import gather as gather
    from .cls import Cls as Cls
    from .cls import Obj as Obj
    from .context import current_function_call_id as current_function_call_id
    from .context import current_input_id as current_input_id
    from .context import is_local as is_local
    from .dead_letter import DeadLetter as DeadLetter
    from .endpoints import asgi_app as asgi_app
    from .endpoints import fastapi_endpoint as fastapi_endpoint
    from .endpoints import web_endpoint as web_endpoint
    from .endpoints import web_server as web_server
    from .endpoints import wsgi_app as wsgi_app
    from .errors import Error as Error
    from .function import Function as Function
    from .ignore import FilePatternMatcher as FilePatternMatcher
    from .image import Image as Image
    from .methods import enter as enter
    from .methods import exit as exit
    from .methods import method as method
    from .parameters import parameter as parameter
    from .policy import Cron as Cron
    from .policy import Period as Period
    from .policy import Retries as Retries
    from .policy import batched as batched
    from .policy import concurrent as concurrent
    from .sandbox import Sandbox as Sandbox
    from .sandbox_process import ContainerProcess as ContainerProcess
    from .sandbox_process import StreamType as StreamType
    from .sandbox_spec import Probe as Probe
    from .secret import Secret as Secret
    from .secret import secret_from_env as secret_from_env
    from .server import Server as Server
    from .shared import Dict as Dict
    from .shared_queue import Queue as Queue
    from .tunnel import Tunnel as Tunnel
    from .tunnel import forward as forward
    from .users import as_user as as_user
    from .users import set_quota as set_quota
    from .volume import Volume as Volume
    from .web_requests import WebRequest as WebRequest
    from .web_requests import WebResponse as WebResponse

_HOMES = {
    "App": "app",
    "Cls": "cls",
    "ContainerProcess": "sandbox_process",
    "Cron": "policy",
    "DeadLetter": "dead_letter",
    "Dict": "shared",
    "Error": "errors",
    "FilePatternMatcher": "ignore",
    "Function": "function",
    "FunctionCall": "call",
    "Image": "image",
    "Obj": "cls",
    "Period": "policy",
    "Probe": "sandbox_spec",
    "Queue": "shared_queue",
    "Retries": "policy",
    "Sandbox": "sandbox",
    "Secret": "secret",
    "Server": "server",
    "StreamType": "sandbox_process",
    "Tunnel": "tunnel",
    "Volume": "volume",
    "WebRequest": "web_requests",
    "WebResponse": "web_requests",
    "as_user": "users",
    "asgi_app": "endpoints",
    "batched": "policy",
    "concurrent": "policy",
    "current_function_call_id": "context",
    "current_input_id": "context",
    "enable_output": "app",
    "enter": "methods",
    "exit": "methods",
    "fastapi_endpoint": "endpoints",
    "forward": "tunnel",
    "gather": "call",
    "interact": "agent.terminal",
    "is_local": "context",
    "method": "methods",
    "parameter": "parameters",
    "secret_from_env": "secret",
    "set_quota": "users",
    "web_endpoint": "endpoints",
    "web_server": "endpoints",
    "wsgi_app": "endpoints",
}

# Modal's module names, used as `minimodal.exception.NotFoundError` without an import of their own.
_MODULES = frozenset(
    "app call_graph cls container_process dict exception experimental functions image io_streams "
    "queue retries runner sandbox schedule secret stream_type volume".split()
)

__all__ = [*sorted(_HOMES), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if name in _MODULES:
        return importlib.import_module(f"minimodal.{name}")
    if home is None:
        from .compat import absent

        return absent(name)
    value = getattr(importlib.import_module(f"minimodal.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
