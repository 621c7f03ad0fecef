"""The hint about a module that the image lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from minimodal import context
from minimodal.agent.target import explain_missing


@pytest.mark.parametrize("words", [(), ("No module named 'x'",)])
def test_the_hint_is_given_once(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setattr(context, "container", SimpleNamespace(function="app.f"))
    error = ModuleNotFoundError(*words, name="x")
    explain_missing(explain_missing(error))
    said = "\n".join([*getattr(error, "__notes__", ()), str(error)])
    assert said.count("is not in the image of app.f") == 1
