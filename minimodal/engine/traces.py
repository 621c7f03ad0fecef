"""OpenTelemetry traces of calls, where the program has loaded OpenTelemetry: one span tree per call.

A call is a span from its acceptance to its outcome; below it lie its wait, the cold start that it
waited for, its run, and the spans of the calls that it made. Nothing is imported here: a program
that traces has loaded `opentelemetry.trace` and set a provider, and for the others this costs one
look-up for each call. `opentelemetry-instrument minimodal up` is such a program.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from minimodal.types import CallState, Failure, Outcome

if TYPE_CHECKING:
    from .calls import LiveCall
    from .engine import Engine

log = logging.getLogger("minimodal.engine")

TRACING = "opentelemetry.trace"  # the module that a program has loaded if it traces
MAX_SPANS = 100_000  # calls that are traced at one time; others have no span


P = ParamSpec("P")


def _harmless(method: Callable[P, None]) -> Callable[P, None]:
    """Samplers and span processors are the program's: what they raise must not stop the engine."""
    told = False

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal told
        try:
            method(*args, **kwargs)
        except Exception:
            if not told:
                told = True
                log.exception("OpenTelemetry failed; calls go on without their spans")

    return guarded


class Traces:
    """`engine.traces`."""

    def __init__(self, engine: Engine) -> None:
        # Once for all: a clock that is set meanwhile must not tear a span apart.
        self._offset = engine.clock.now() - engine.loop.time()
        self.spans: dict[str, Any] = {}  # of calls that have not ended

    @_harmless
    def began(self, live: LiveCall) -> None:
        api: Any = sys.modules.get(TRACING)
        if not _loaded(api) or len(self.spans) >= MAX_SPANS:
            return
        call, pool = live.call, live.pool
        # Only what is known of the call decides: whatever span this loop has is not its parent.
        parent = self.spans.get(call.parent or "", api.INVALID_SPAN)
        span = _tracer(api).start_span(
            f"{pool.name}.{call.method}" if call.method else pool.name,
            context=api.set_span_in_context(parent, _empty_context()),
            kind=api.SpanKind.SERVER if call.web else api.SpanKind.INTERNAL,
            start_time=self._at(live.queued_at),
            attributes={
                "minimodal.call": call.id,
                "minimodal.app": pool.app_name or pool.spec.app,
                "minimodal.function": pool.name,
                "minimodal.user": call.user,
            },
        )
        if span.is_recording():
            self.spans[call.id] = span

    @_harmless
    def retried(self, live: LiveCall, failure: Failure) -> None:
        """An attempt has failed that is not the last."""
        span = self.spans.get(live.call.id) if self.spans else None
        if span is not None:
            span.add_event("attempt failed", _failure(failure))

    @_harmless
    def ended(self, live: LiveCall, outcome: Outcome, now: float) -> None:
        span = self.spans.pop(live.call.id, None)
        if span is None:
            return
        api: Any = sys.modules[TRACING]
        begun = live.started_at if live.container else now
        cold = min(live.cold, max(0.0, begun - live.queued_at))
        steps = [("queued", live.queued_at, begun - cold)]
        if cold:
            steps.append(("cold start", begun - cold, begun))
        if live.container:
            steps.append(("run", begun, now))
        context = api.set_span_in_context(span, _empty_context())
        for name, start, end in steps:
            step = _tracer(api).start_span(name, context=context, start_time=self._at(start))
            step.end(self._at(max(start, end)))
        span.set_attribute("minimodal.state", outcome.state.value)
        span.set_attribute("minimodal.attempts", outcome.attempts)
        span.set_attribute("minimodal.container", live.container)
        if outcome.state is not CallState.OK:
            failure = outcome.failure
            if failure is not None:
                span.add_event("exception", _failure(failure))
            words = failure.message if failure is not None else outcome.state.value
            span.set_status(api.StatusCode.ERROR, words)
        span.end(self._at(now))

    def _at(self, loop_time: float) -> int:
        """Nanoseconds since the epoch."""
        return int((loop_time + self._offset) * 1e9)


def _loaded(api: Any) -> bool:
    """Not while another thread still imports it."""
    return api is not None and not getattr(api.__spec__, "_initializing", False)


def _tracer(api: Any) -> Any:
    return api.get_tracer("minimodal")


def _empty_context() -> Any:
    return sys.modules["opentelemetry.context"].Context()


def _failure(failure: Failure) -> dict[str, str]:
    return {
        "exception.type": failure.type.removeprefix("builtins."),
        "exception.message": failure.message,
        "exception.stacktrace": failure.traceback,
    }
