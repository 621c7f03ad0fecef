"""A real Chromium without a window, driven over its DevTools protocol: `with opened() as browser:`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 30.0
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0"
).split()
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"


def found() -> str | None:
    """The path of a browser, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. `problems`: errors in its console; `asked`: the URLs of all its requests."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.problems: list[str] = []
        self.asked: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> Any:
        """One command of the protocol and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message["method"], message["params"])

    def _note(self, event: str, said: Any) -> None:
        match event:
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning"):
                self.problems.append(json.dumps(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.problems.append(f"{said['entry']['text']} {said['entry'].get('url')}")
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])

    def go(self, url: str) -> None:
        self.do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        """What an expression gives; a promise is waited for."""
        answer = self.do(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression holds. The tab may be between two pages at first."""
        script = (
            "new Promise((done) => { const end = Date.now() + 20000; const look = () => "
            f"{{ if ({condition}) done(true); else if (Date.now() > end) done(false); "
            "else setTimeout(look, 25); }; look(); })"
        )
        until = time.monotonic() + PATIENCE
        while True:
            try:
                held = self.value(script)
                break
            except AssertionError:  # the page went away under it
                assert time.monotonic() < until, condition
        assert held, f"never: {condition}\n{self.value('document.body.innerText')}"

    def click(self, selector: str) -> None:
        """A real click of the mouse in the middle of an element."""
        chosen = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{chosen} !== null")
        x, y = self.value(
            f"(() => {{ const e = {chosen}; e.scrollIntoView({{block: 'center'}}); "
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.do("Input.dispatchMouseEvent", type=kind, **where)

    def press(self, key: str, code: int) -> None:
        """A key, such as Tab (9) or Enter (13)."""
        text = {"text": "\r"} if key == "Enter" else {}
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.do("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.do("Input.dispatchKeyEvent", type="keyUp", **named)

    def look(self, width: int, *, dark: bool = False) -> None:
        """Another width, and the system's light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.do("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        return base64.b64decode(self.do("Page.captureScreenshot")["data"])


@contextmanager
def opened(program: str) -> Iterator[Browser]:
    """A browser with nothing remembered, that reaches this machine alone; gone after the block."""
    profile = Path(tempfile.mkdtemp(prefix="browser-"))
    process = subprocess.Popen(
        [program, *OPTIONS, OFFLINE, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HOME": str(profile), "TMPDIR": str(profile)},
    )
    try:
        port = _port(profile / "DevToolsActivePort", process)
        tabs = httpx.get(f"http://127.0.0.1:{port}/json", timeout=PATIENCE).json()
        url = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
        with connect(url, max_size=None) as socket:
            yield Browser(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group that it leads: its own children alone
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _port(path: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and (text := path.read_text()):
            return int(text.split()[0])
        time.sleep(0.02)  # it tells of its port by this file alone
    raise AssertionError(f"{process.args!r} did not start: {process.poll()}")
