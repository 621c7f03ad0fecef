"""The screen: order, bounds, and what a real terminal gets to see."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from minimodal.cli import screen as screen_module
from minimodal.cli.screen import Screen
from minimodal.engine.events import Event
from tests.cli.conftest import environment


def log(text: str, function: str = "f", stream: str = "stdout") -> Event:
    return Event("log", function, time.time(), 0, {"text": text, "stream": stream})


@contextmanager
def streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """stdout and stderr as texts; not a fixture, because pytest sets its own for each phase."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        yield out, err
        assert (sys.stdout, sys.stderr) == (out, err)


def test_local_output_comes_after_the_remote_output_before_it() -> None:
    with streams() as (out, _), Screen(quiet=True) as screen:
        for number in range(200):
            screen.event(log(f"remote {number}"))
            print(f"local {number}")
    expected = [line for n in range(200) for line in (f"f | remote {n}", f"local {n}")]
    assert out.getvalue().splitlines() == expected


def test_streams_stay_apart_and_all_is_shown_at_the_end() -> None:
    with streams() as (out, err), Screen() as screen:
        screen.event(log("out"))
        screen.event(log("err", stream="stderr"))
        screen.say("Completed", "done")
    assert out.getvalue() == "f | out\n"
    assert err.getvalue() == "f | err\n✓ Completed\n"


def test_f16_behind_a_slow_reader_lines_are_dropped_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screen_module, "MAX_QUEUED_BYTES", 10_000)
    go_on = threading.Event()
    with streams() as (out, err):
        write = out.write
        monkeypatch.setattr(out, "write", lambda text: go_on.wait(10) and write(text))
        with Screen() as screen:
            for number in range(100):
                screen.event(log("x" * 1000 + str(number)))
            go_on.set()
    shown = len(out.getvalue().splitlines())
    assert 1 <= shown < 100
    dropped = re.search(r"✗ (\d+) lines are not shown", err.getvalue())
    assert dropped
    assert int(dropped.group(1)) == 100 - shown


SCRIPT = """
import sys, time
from minimodal.cli.screen import Screen
from minimodal.engine.events import Event
def event(kind, name, **fields):
    screen.event(Event(kind, name, time.time(), 0, fields))
with Screen() as screen:
    event("image.build", "0123456789abcdef", text="[bold]step[/bold] one")
    from minimodal import context
    bar = context.map_view("squares", 40)
    bar.update(10, 1)
    while screen._moving and screen._live is None:  # rich is imported now, which takes its time
        time.sleep(0.01)
    time.sleep(0.2)
    event("image.build", "0123456789abcdef", text="[bold]step[/bold] two")
    bar.close()
    print("local line")
    print("prompt> ", end="", flush=True)
    time.sleep(0.3)
    print("answered")
    event("log", "square", text="remote line", stream="stdout")
    event("image.built", "0123456789abcdef", seconds=1.0)
"""


def on_a_terminal(**environ: str) -> str:
    """What SCRIPT writes to a pseudo-terminal."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(Path(__file__).resolve().parents[2])
        changes = {"TERM": "xterm-256color"} | environ
        os.execve(sys.executable, [sys.executable, "-c", SCRIPT], environment(changes))
    chunks = []
    try:
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # Linux says EIO when the other end is closed
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return b"".join(chunks).decode()


def test_a_terminal_sees_a_live_tree_and_no_prompt_is_drawn_over() -> None:
    seen = on_a_terminal()
    assert "Working" in seen
    assert "[bold]step[/bold] one" in seen  # a build's output is not markup
    assert re.search(r"squares\S* .*━.* 10 of 40 done, 1 failed", seen)
    assert "squares: 10 done, 1 failed in" in seen
    assert "\x1b[36msquare |\x1b[0m remote line" in seen or "square |\x1b[0m remote line" in seen
    assert "prompt> answered" in seen
    assert "✓ \x1b[0mimage 0123456789ab built in 1.0 s" in seen
    assert seen.rstrip().rpartition("\x1b[?25")[2].startswith("h")  # the cursor is back


@pytest.mark.parametrize("variable", ["CI", "TERM"])
def test_no_motion_in_ci_or_on_a_dumb_terminal(variable: str) -> None:
    seen = on_a_terminal(**{variable: "dumb"})
    assert "Working" not in seen
    assert "image 0123456789ab: [bold]step[/bold] one" in seen


def test_no_color_means_no_colour() -> None:
    seen = on_a_terminal(NO_COLOR="1", CI="1")
    assert "\x1b[" not in seen
    assert "square | remote line" in seen
