"""OpenTelemetry: what a program that has loaded it gets to see, with the exporter that it ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from minimodal.engine.calls import LiveCall, failed
from minimodal.engine.engine import Engine
from minimodal.engine.traces import Traces
from minimodal.types import CallState

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed here")

SCRIPT = """
import json
import minimodal

app = minimodal.App("traced")

@app.function()
def inner(x: int) -> int:
    return x + 1

@app.function()
def outer(x: int) -> int:
    return sum(inner.map([x, x]))

@app.function(retries=minimodal.Retries(max_retries=1, initial_delay=0))
def fails() -> None:
    raise ValueError("no tea")

@app.function()
def refused() -> None: ...

@app.local_entrypoint()
def main():
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert outer.remote(1) == 4
    try:
        fails.remote()
    except ValueError:
        pass
    minimodal.set_quota("ada", max_queued=0)
    try:
        with minimodal.as_user("ada"):
            refused.remote()
    except minimodal.errors.ResourceExhaustedError:
        pass
    minimodal.set_quota("ada")  # the home is this test's neighbours' too
    print(json.dumps([
        {
            "name": span.name,
            "id": span.context.span_id,
            "trace": span.context.trace_id,
            "parent": span.parent and span.parent.span_id,
            "start": span.start_time,
            "end": span.end_time,
            "ok": span.status.is_ok,
            "attributes": dict(span.attributes),
            "events": [[event.name, dict(event.attributes)] for event in span.events],
        }
        for span in exporter.get_finished_spans()
    ]))
"""


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory, home: Path) -> list[dict[str, Any]]:
    script = tmp_path_factory.mktemp("traced") / "traced.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "minimodal", "run", "-q", str(script)],
        env={
            **os.environ,
            "MINIMODAL_BACKEND": "process",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nested_calls_are_one_tree(spans: list[dict[str, Any]]) -> None:
    [outer] = [span for span in spans if span["name"] == "outer"]
    inner = [span for span in spans if span["name"] == "inner"]
    assert outer["parent"] is None
    assert [span["parent"] for span in inner] == [outer["id"]] * 2
    assert {span["trace"] for span in inner} == {outer["trace"]}
    assert all(outer["start"] <= span["start"] <= span["end"] <= outer["end"] for span in inner)
    assert outer["attributes"]["minimodal.app"] == "traced"
    assert outer["attributes"]["minimodal.state"] == "ok"


def test_a_call_is_split_into_wait_cold_start_and_run(spans: list[dict[str, Any]]) -> None:
    [outer] = [span for span in spans if span["name"] == "outer"]
    steps = [span for span in spans if span["parent"] == outer["id"] and span["name"] != "inner"]
    assert [step["name"] for step in steps] == ["queued", "cold start", "run"]
    assert steps[0]["start"] == outer["start"]
    assert [step["end"] for step in steps[:-1]] == [step["start"] for step in steps[1:]]
    assert steps[-1]["end"] == outer["end"]


def test_a_failure_has_its_attempts_and_its_reason(spans: list[dict[str, Any]]) -> None:
    [failed] = [span for span in spans if span["name"] == "fails"]
    assert not failed["ok"]
    assert failed["attributes"]["minimodal.attempts"] == 2
    names = [name for name, _ in failed["events"]]
    assert names == ["attempt failed", "exception"]
    assert failed["events"][1][1]["exception.type"] == "ValueError"
    assert "no tea" in failed["events"][1][1]["exception.stacktrace"]
    assert failed["trace"] != next(s["trace"] for s in spans if s["name"] == "outer")


def test_a_refused_call_has_a_span_that_ends(spans: list[dict[str, Any]]) -> None:
    [refused] = [span for span in spans if span["name"] == "refused"]
    assert not refused["ok"]
    assert refused["attributes"]["minimodal.state"] == "error"
    assert "max_queued" in refused["events"][0][1]["exception.message"]


class Broken:
    """A tracer's API whose every use fails, as a sampler or span processor of the program may."""

    __spec__ = None

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("the sampler is broken")


def test_what_a_sampler_raises_does_not_reach_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", cast(ModuleType, Broken()))
    clock = SimpleNamespace(now=lambda: 0.0)
    loop = SimpleNamespace(time=lambda: 0.0)
    traces = Traces(cast(Engine, SimpleNamespace(clock=clock, loop=loop)))
    live = cast(LiveCall, SimpleNamespace(call=SimpleNamespace(parent=None, id="fc-1"), pool=None))
    traces.began(live)
    traces.ended(live, failed(CallState.ERROR, "ValueError", "no"), 1.0)
    assert "the sampler is broken" in caplog.text


def test_a_module_that_is_still_imported_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    half = ModuleType("opentelemetry.trace")
    half.__spec__ = cast(Any, SimpleNamespace(_initializing=True))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", half)
    clock = SimpleNamespace(now=lambda: 0.0)
    loop = SimpleNamespace(time=lambda: 0.0)
    Traces(cast(Engine, SimpleNamespace(clock=clock, loop=loop))).began(
        cast(LiveCall, SimpleNamespace())
    )
    assert not caplog.text
