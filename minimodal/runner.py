"""Modal's module name: `run_app(app)` and `deploy_app(app)` are `app.run()` and `app.deploy()`."""

from __future__ import annotations

from typing import Any

from .app import App, AppRun


def run_app(app: App, *, client: Any = None, detach: bool = False, **ignored: Any) -> AppRun:
    """`app.run()`: the app runs for the length of the block. Raises InvalidError if it runs already.

    `detach` and what Modal has beside have no effect.
    """
    del client, detach, ignored
    return app.run()


def deploy_app(app: App, name: str | None = None, *, tag: str = "", **ignored: Any) -> App:
    """`app.deploy()`: record a version, with the note `tag`, and serve it.

    What Modal has beside has no effect. Raises InvalidError where it has no name.
    """
    del ignored
    return app.deploy(name=name, tag=tag)
