"""Progress in one line: what is kept, what passes by, and where."""

from __future__ import annotations

import io

import pytest

from minimodal.cli.one_line import OneLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_details_share_one_line_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("CI", raising=False)
    with OneLine() as line:
        line.say("debootstrap: about a minute")
        for number in range(300):
            line.detail(f"I: Unpacking package {number} with a name that is too long\x1b[2J")
        line.say("made it")
    pictures = terminal.getvalue().split("\r\x1b[2K")
    assert terminal.getvalue().count("\n") == 2
    assert "Unpacking package 299" in pictures[-2]
    assert all(len(picture) <= 39 and "\x1b" not in picture for picture in pictures[1:-1])
    assert pictures[-1] == "made it\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, ["one"]), ({"verbose": True}, ["one", "two"]), ({"quiet": True}, [])],
)
def test_elsewhere_details_are_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], options: dict[str, bool], shown: list[str]
) -> None:
    with OneLine(**options) as line:
        line.say("one")
        line.detail("two")
    assert capsys.readouterr().err.splitlines() == shown
