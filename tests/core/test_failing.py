"""What a caller sees when something goes wrong, and that the pool goes on afterwards."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import pytest

import minimodal
from minimodal.errors import (
    CallCancelled,
    CallLost,
    DeserializationError,
    ExecutionError,
    FunctionTimeoutError,
    SerializationError,
)
from tests.core import functions as f
from tests.core.functions import Custom, Refuses


def test_exception_keeps_type_attributes_cause_and_frames() -> None:
    with pytest.raises(Custom) as caught:
        f.fails.remote(5)
    assert caught.value.args == (5,)
    assert caught.value.why == "because"
    assert isinstance(caught.value.__cause__, KeyError)
    shown = "".join(traceback.format_exception(caught.value))
    assert str(Path(f.__file__)) in shown, "remote frames name the local file"
    assert 'raise Custom(number, why="because") from error' in shown


def test_an_exception_is_told_where_no_source_can_be_had() -> None:
    with pytest.raises(ValueError, match="told all the same"):
        f.breaks_linecache.remote()


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("sys.exit", ExecutionError, "SystemExit"),
        ("os._exit", CallLost, "exited with code 4"),
        ("segfault", CallLost, "SIGSEGV"),
        ("kill", CallLost, "SIGTERM"),
    ],
)
def test_a_process_that_ends_is_a_clear_error(how: str, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        f.ends_process.remote(how)
    assert "ends_process" in str(caught.value)
    assert f.ends_process.remote("not at all") == "alive"


def test_result_that_cannot_be_pickled() -> None:
    with pytest.raises(SerializationError, match=r"result of gives \(Refuses\)"):
        f.gives.remote("refuses")


def test_result_that_cannot_be_unpickled() -> None:
    with pytest.raises(DeserializationError, match="broke"):
        f.gives.remote("explodes")
    assert f.gives.remote("number") == 1


def test_argument_that_cannot_be_pickled() -> None:
    with pytest.raises(SerializationError, match=r"argument of echo .*refuses to be pickled"):
        f.echo.remote(Refuses())


def test_argument_that_cannot_be_unpickled() -> None:
    with pytest.raises(DeserializationError, match="an argument"):
        f.echo.remote(f.Explodes())


def test_wrong_arguments_are_the_functions_own_error() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        f.square.remote()  # type: ignore[call-arg]


def test_timeout_of_a_sleeping_function() -> None:
    started = time.monotonic()
    with pytest.raises(FunctionTimeoutError, match="timeout of 1 s"):
        f.sleeps.remote(60)
    assert time.monotonic() - started < 4
    assert f.sleeps.remote(0) == 0


def test_timeout_holds_for_c_code_that_holds_the_gil() -> None:
    f.sleeps.remote(0)
    with pytest.raises(FunctionTimeoutError):
        f.holds_the_gil.remote()


def test_timeout_of_an_async_function() -> None:
    with pytest.raises(FunctionTimeoutError):
        f.async_sleeps.remote(60)
    assert f.async_sleeps.remote(0) == 0


def test_cancel_stops_the_work() -> None:
    patient = f.sleeps.with_options(timeout=600, max_containers=1)
    call = patient.spawn(600)
    patient_call = patient.spawn(0)
    call.cancel()
    with pytest.raises(CallCancelled):
        call.get()
    assert patient_call.get(timeout=20) == 0, "its slot is free"


def test_cancel_of_a_finished_call_changes_nothing() -> None:
    call = f.square.spawn(3)
    assert call.get() == 9
    call.cancel()
    assert call.get() == 9


def test_a_consumer_that_stops_closes_the_generator(running: object) -> None:
    for item in f.leaves_a_mark.remote_gen("/tmp/minimodal-test-mark"):
        if item == 3:
            break
    assert f.waits_for.remote is not None
    # The slot is free again only when the generator has been closed.
    again = iter(f.leaves_a_mark.with_options(max_containers=1).remote_gen("/dev/null"))
    assert next(again) == 0
    again.close()  # type: ignore[attr-defined]  # a generator


def test_retries_until_success(tmp_path_factory: pytest.TempPathFactory) -> None:
    # The file lies in the container's own /tmp, so one container must run all attempts.
    once = f.succeeds_at_third.with_options(max_containers=1)
    assert once.remote(f"/tmp/minimodal-retries-{time.monotonic_ns()}") == 3


def test_prints_reach_the_events_in_order(running: minimodal.host.Host) -> None:  # type: ignore[name-defined]
    lines: list[tuple[str, str]] = []
    stop = running.engine.events.subscribe(
        lambda event: (
            lines.append((event.fields["stream"], event.fields["text"]))
            if event.kind == "log" and event.name == "prints"
            else None
        )
    )
    f.prints.remote(20)
    stop()
    out = [text for stream, text in lines if stream == "stdout" and text.startswith("line")]
    assert out == [f"line {i}" for i in range(20)]
    assert ("stderr", "to stderr") in lines
