"""From events to lines: pure."""

from __future__ import annotations

import pytest

from minimodal.progress import Line, Progress, shown_seconds


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
    assert apply(progress, "image.build", digest, at=10.0, text="step one") == []  # over at once?
    lines = apply(progress, "image.build", digest, at=11.0, text="step two")
    assert [line.text for line in lines] == [
        "image 0123456789ab is being built",
        "image 0123456789ab: step one",
        "image 0123456789ab: step two",
    ]
    assert progress.building[digest].last == "step two"
    assert progress.pending_since == 10.0
    (done,) = apply(progress, "image.built", digest, seconds=3.21)
    assert (done.text, done.mark) == ("image 0123456789ab built in 3.2 s", "done")
    assert progress.pending_since is None


@pytest.mark.parametrize("was_there", [True, False])
def test_a_build_that_is_over_at_once_is_not_worth_a_line(was_there: bool) -> None:
    progress = Progress(verbose=True)
    if not was_there:
        assert apply(progress, "image.build", "abc", at=10.0, text="step 1 of 1: done") == []
    assert apply(progress, "image.built", "abc", at=10.1, seconds=0.1) == []


def test_a_build_that_fails_at_once_shows_what_was_held_back() -> None:
    progress = Progress(verbose=True)
    apply(progress, "image.build", "abc", at=10.0, text="no such command")
    lines = apply(progress, "image.failed", "abc", at=10.1)
    assert [line.text for line in lines][1:] == [
        "image abc: no such command",
        "image abc failed to build",
    ]


def test_a_map_says_how_far_it_is() -> None:
    progress = Progress()
    state = progress.begin_map("f", 1000, 100.0)
    assert progress.pending_since == 100.0
    assert state.words(101.0) == "0 of 1,000 done"
    state.count(1, 0, 102.0)  # the time before the first outcome counts for nothing
    state.count(200, 3, 104.0)
    state.running = 4
    assert state.words(104.0) == "200 of 1,000 done, 3 failed, 4 running, 100/s, 8.0 s left"
    state.count(1000, 3, 112.0)
    (end,) = progress.end_map(state, 112.0)
    assert (end.text, end.mark) == ("f: 1,000 done, 3 failed in 12.0 s, 83/s", "failed")
    assert progress.pending_since is None


def test_a_map_of_unknown_length_has_no_time_left() -> None:
    state = Progress().begin_map("f", None, 0.0)
    state.count(1, 0, 1.0)
    state.count(10, 0, 11.0)
    assert state.words(11.0) == "10 done, 1/s"


@pytest.mark.parametrize(("done", "seconds", "lines"), [(5, 60.0, 0), (500, 0.9, 0), (500, 1.5, 1)])
def test_only_a_long_map_is_worth_a_line(done: int, seconds: float, lines: int) -> None:
    progress = Progress()
    state = progress.begin_map("f", done, 0.0)
    state.count(done, 0, seconds)
    assert len(progress.end_map(state, seconds)) == lines


def test_plain_output_hears_of_a_long_map_from_time_to_time() -> None:
    progress = Progress(verbose=True)
    state = progress.begin_map("f", 100, 0.0)
    shown = []
    for second in range(1, 31):
        state.count(second, 0, second)
        shown += [line.text for line in progress.map_line(state, second)]
    assert shown == [
        "f: 10 of 100 done, 1.1/s, 1 min 21 s left",
        "f: 20 of 100 done, 1.1/s, 1 min 16 s left",
        "f: 30 of 100 done, 1/s, 1 min 7 s left",
    ]


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
    endpoints = {"pay": "http://pay.localhost:1/", "Desk.ask": "http://ask.localhost:1/"}
    lines = apply(progress, "app.opened", "shop", deployed=False, endpoints=endpoints)
    assert [line.text for line in lines] == [
        "pay answers at http://pay.localhost:1/",
        "Desk.ask answers at http://ask.localhost:1/",
    ]
    assert apply(progress, "app.opened", "shop", deployed=False, endpoints=endpoints) == []
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
