"""From events to lines: pure."""

from __future__ import annotations

import pytest

from minimodal.cli.progress import Line, Progress, shown_seconds


def apply(
    progress: Progress, kind: str, name: str, at: float = 0.0, **fields: object
) -> list[Line]:
    return progress.apply(kind, name, at, fields)


def test_a_log_line_keeps_its_stream_and_its_function() -> None:
    progress = Progress(quiet=True)
    assert apply(progress, "log", "f", text="hi", stream="stdout") == [Line("stdout", "hi", "f")]
    assert apply(progress, "log", "f", text="no", stream="stderr") == [Line("stderr", "no", "f")]


@pytest.mark.parametrize(
    ("text", "shown"), [("10%\r20%\r", "20%"), ("a\rb", "b"), ("dos\r", "dos"), ("", "")]
)
def test_of_a_progress_bar_the_last_state_is_shown(text: str, shown: str) -> None:
    assert apply(Progress(), "log", "f", text=text)[0].text == shown


def test_a_build_is_announced_followed_and_finished() -> None:
    progress = Progress(verbose=True)
    digest = "0123456789abcdef"
    first = apply(progress, "image.build", digest, at=10.0, text="step one")
    assert [line.text for line in first] == [
        "image 0123456789ab is being built",
        "image 0123456789ab: step one",
    ]
    assert len(apply(progress, "image.build", digest, text="step two")) == 1
    assert progress.building[digest].last == "step two"
    assert progress.pending_since == 10.0
    (done,) = apply(progress, "image.built", digest, seconds=3.21)
    assert (done.text, done.mark) == ("image 0123456789ab built in 3.2 s", "done")
    assert progress.pending_since is None


def test_an_image_that_was_there_is_not_worth_a_line() -> None:
    assert apply(Progress(verbose=True), "image.built", "abc", seconds=0.001) == []


def test_only_the_first_ready_container_of_a_function_is_worth_a_line() -> None:
    progress = Progress()
    for container in ("a", "b"):
        assert apply(progress, "container.starting", "f", at=1.0, container=container) == []
    assert progress.starting == {"f": {"a": 1.0, "b": 1.0}}
    ready = [
        apply(progress, "container.ready", "f", container=each, seconds=0.04) for each in ("b", "a")
    ]
    assert [len(lines) for lines in ready] == [1, 0]
    assert ready[0][0].text == "f: first container ready in 40 ms"
    assert progress.pending_since is None


def test_a_container_that_stops_before_it_is_ready_is_worth_a_line() -> None:
    progress = Progress()
    apply(progress, "container.starting", "f", container="a")
    (line,) = apply(
        progress, "container.stopped", "f", container="a", reason="it exited with code 1"
    )
    assert line.mark == "failed"
    assert "it exited with code 1" in line.text
    assert apply(progress, "container.stopped", "f", container="a", reason="stopped") == []


def test_what_was_deployed_is_said_and_what_is_unknown_is_not() -> None:
    progress = Progress()
    (line,) = apply(progress, "app.opened", "shop", deployed=True, functions=["pay", "ship"])
    assert line.text == "deployed shop: pay, ship"
    assert apply(progress, "app.opened", "shop", deployed=False) == []
    assert apply(progress, "something.new", "x") == []


def test_quiet_hides_the_platform_alone() -> None:
    progress = Progress(quiet=True, verbose=True)
    assert apply(progress, "image.build", "abc", text="x") == []
    assert apply(progress, "notice", "", text="x") == []
    assert len(apply(progress, "log", "f", text="x")) == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0432, "43 ms"), (0.9999, "1.0 s"), (59.94, "59.9 s"), (125, "2 min 5 s")],
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert shown_seconds(seconds) == shown


def test_a_terminal_keeps_a_line_with_the_time_of_each_step() -> None:
    progress = Progress()
    assert apply(progress, "image.build", "abc", text="step 2 of 3: pip_install six") == []
    assert apply(progress, "image.build", "abc", text="Downloading six: done in 1 s") == []
    (line,) = apply(
        progress, "image.build", "abc", text="step 2 of 3: pip_install six: done in 1.2 s"
    )
    assert (line.text, line.mark) == (
        "image abc: step 2 of 3: pip_install six: done in 1.2 s",
        "done",
    )
