"""What a failure looks like: blocks for ours, the user's frames for theirs, and our bugs in full."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable

import pytest

import minimodal
from minimodal.cli.failure import UsageError, describe, show
from minimodal.errors import CallLost, ImageBuildError, RuntimeUnavailable
from minimodal.home import open_home


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def fail(error: BaseException, cause: BaseException | None = None) -> BaseException:
    def function() -> None:
        raise error from cause

    return raised(function)


def test_an_error_of_ours_says_what_where_why_and_what_to_try() -> None:
    text = describe(fail(RuntimeUnavailable("no engine here.\nMore."), OSError("refused")))
    first, more, at, why, hint = text.splitlines()
    assert (first, more) == ("error: no engine here.", "  More.")
    assert at.startswith(f"  at:  {__file__}:")
    assert at.endswith("raise error from cause")
    assert why == "  why: OSError: refused"
    assert hint == "  try: minimodal doctor"


def test_a_cause_that_the_message_holds_is_not_said_twice() -> None:
    assert "why:" not in describe(fail(CallLost("gone: it was killed"), OSError("it was killed")))


def test_a_failed_build_shows_the_end_of_its_log() -> None:
    log = "\n".join(f"line {number}" for number in range(100))
    text = describe(fail(ImageBuildError("step 2 failed", log)))
    assert text.count("  | line ") == 20
    assert "  | line 99" in text


def test_a_usage_error_lists_the_choices_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(UsageError("which?", choices=["this", "that"], code=1)) == 1
    assert capsys.readouterr().err == "error: which?\n  this\n  that\n"


def test_of_many_frames_of_libraries_the_first_and_the_last_are_shown() -> None:
    def depth(n: int) -> None:
        copy.deepcopy([[[sys]]]) if n == 0 else depth(n - 1)

    error = raised(lambda: depth(1))
    text = describe(error)
    assert text.count("in depth") == 2
    assert "in _deepcopy_list" not in text
    assert text.count("in deepcopy") == 2
    assert "  … 5 frames of libraries (--debug shows them)\n" in text
    assert text.endswith("TypeError: cannot pickle 'module' object\n")
    assert "in _deepcopy_list" in describe(error, debug=True)


def test_an_exception_through_us_shows_the_users_frames() -> None:
    text = describe(raised(lambda: open_home(3)))  # type: ignore[arg-type]
    assert "minimodal/home.py" not in text
    assert "test_failure.py" in text


def test_an_exception_without_a_frame_of_the_users_is_our_bug() -> None:
    error = raised(lambda: open_home(3))  # type: ignore[arg-type]
    while error.__traceback__ and error.__traceback__.tb_frame.f_code.co_filename == __file__:
        error.__traceback__ = error.__traceback__.tb_next
    text = describe(error)
    assert "minimodal/home.py" in text
    assert text.endswith("This is a bug in minimodal: no code of yours is in this traceback.\n")


def test_causes_and_contexts_are_trimmed_too_even_in_a_circle() -> None:
    inner, outer = raised(lambda: open_home(3)), ValueError("outer")  # type: ignore[arg-type]
    error = fail(outer, inner)
    inner.__context__ = outer
    text = describe(error)
    assert "minimodal/home.py" not in text
    assert "direct cause" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_a_group_of_one_is_that_one() -> None:
    group = __builtins__["ExceptionGroup"]  # type: ignore[index]
    text = describe(fail(group("tasks", [group("tasks", [CallLost("gone")])])))
    assert text == "error: gone\n"


def test_a_syntax_error_shows_the_line_alone() -> None:
    text = describe(raised(lambda: compile("def f(:", "script.py", "exec")))
    assert text.splitlines()[-4:-2] == ['  File "script.py", line 1', "    def f(:"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(), 0, ""),
        (SystemExit(300), 44, ""),
        (SystemExit("no"), 1, "no\n"),
    ],
)
def test_exits(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(error) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        (lambda: list.__class__.nonsense, ""),
        (lambda: fail.remote(1), "@app.function() above fail: a plain function has no .remote"),  # type: ignore[attr-defined]
        (lambda: minimodal.image.debian_slim(), "Image, not image"),
        (lambda: minimodal.Image.debian_slim().pip_instal("x"), "pip_install, not pip_instal"),  # type: ignore[attr-defined]
        (lambda: minimodal.App("a").functoin(), "function, not functoin"),  # type: ignore[attr-defined]
        (lambda: importlib.import_module("no_such_module"), "import it inside the function"),
    ],
)
def test_common_mistakes_get_advice(mistake: Callable[[], object], advice: str) -> None:
    text = describe(raised(mistake))
    assert (f"  try: {advice}" in text) if advice else "try:" not in text


def test_the_log_of_a_build_is_not_shown_twice() -> None:
    error = ImageBuildError("step 2 failed:\n  no such package", log="resolving\nno such package\n")
    assert describe(error).count("no such package") == 1
    assert "| resolving" in describe(ImageBuildError("step 2 failed", log="resolving\nno\n"))
