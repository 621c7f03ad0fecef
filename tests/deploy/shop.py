"""The script that is deployed; `edit` makes the next version of it."""

from __future__ import annotations

from pathlib import Path

SHOP = """
import os, time
import minimodal

app = minimodal.App("shop")
VERSION = 1

@app.function()
def version() -> int:
    return VERSION

@app.function(max_containers=4)
def slow(seconds: float) -> int:
    time.sleep(seconds)
    return VERSION

@app.function()
def fail() -> None:
    print("about to fail")
    raise ValueError("no money")

@app.function()
def meet(path: str) -> int:
    open(f"{path}.{VERSION}.ready", "w").close()
    while not os.path.exists(path):
        time.sleep(0.01)
    return VERSION

@app.web_endpoint("/version")
def page() -> dict[str, int]:
    time.sleep(0.01)
    return {"version": VERSION}

@app.cls()
class Till:
    drawer: str = minimodal.parameter()

    @minimodal.method()
    def look(self) -> str:
        return f"{self.drawer} {VERSION}"
"""


def edit(script: Path, version: int, more: str = "") -> Path:
    script.write_text(SHOP.replace("VERSION = 1", f"VERSION = {version}{more}"))
    return script
