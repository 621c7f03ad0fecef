"""Parameters as options: each type, what is refused, and what --help says."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from minimodal.cli.arguments import parse
from minimodal.cli.failure import UsageError


class Colour(enum.Enum):
    RED = 1
    dark_blue = 2


def one_of(annotation: Any, default: Any = ...) -> Callable[..., Any]:
    """A function with one parameter `x` of that annotation."""

    def function(x: Any = default) -> None: ...

    function.__annotations__ = {"x": annotation}
    if default is ...:
        function.__defaults__ = ()
    return function


def value(annotation: Any, *argv: str, default: Any = ...) -> Any:
    args, kwargs = parse(one_of(annotation, default), "run f.py", argv)
    assert args == ()
    return kwargs["x"]


@pytest.mark.parametrize(
    ("annotation", "argv", "expected"),
    [
        (str, ["--x", "a b"], "a b"),
        (str, ["--x=-1"], "-1"),
        (str, ["--x", ""], ""),
        (int, ["--x", "-3"], -3),
        (float, ["--x", "1e3"], 1000.0),
        (bool, ["--x"], True),
        (bool, ["--no-x"], False),
        (Path, ["--x", "/tmp/a"], Path("/tmp/a")),
        (datetime, ["--x", "2026-01-31"], datetime(2026, 1, 31)),
        (datetime, ["--x", "2026-01-31 12:30"], datetime(2026, 1, 31, 12, 30)),
        (
            datetime,
            ["--x", "2026-01-31T12:30:00Z"],
            datetime(2026, 1, 31, 12, 30, tzinfo=timezone(timedelta(0))),
        ),
        (Optional[int], ["--x", "3"], 3),  # noqa: UP045  # the old spelling is used too
        (int | None, ["--x", "3"], 3),
        (Annotated[int, "count"], ["--x", "3"], 3),
        (Literal["a", "b"], ["--x", "b"], "b"),
        (Literal[1, 2], ["--x", "2"], 2),
        (Colour, ["--x", "RED"], Colour.RED),
        (Colour, ["--x", "red"], Colour.RED),
        (list[int], ["--x", "1", "2"], [1, 2]),
        (list[int], ["--x", "1", "--x", "2"], [1, 2]),
        (list[str] | None, ["--x", "a"], ["a"]),
        (list, ["--x", "a"], ["a"]),
        ("int", ["--x", "3"], 3),
        (Any, ["--x", "3"], "3"),
    ],
)
def test_each_type_is_read(annotation: Any, argv: list[str], expected: Any) -> None:
    assert value(annotation, *argv) == expected


@pytest.mark.parametrize(
    ("annotation", "text", "allowed"),
    [
        (int, "1.5", "a whole number"),
        (int, "", "a whole number"),
        (float, "much", "a number"),
        (datetime, "today", "2026-01-31"),
        (Literal["a", "b"], "c", "one of a, b"),
        (Literal[1, 2], "3", "one of 1, 2"),
        (Colour, "green", "one of RED, dark_blue"),
        (list[int], "x", "a whole number"),
    ],
)
def test_a_bad_value_is_a_usage_error(annotation: Any, text: str, allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        value(annotation, "--x", text)
    assert repr(text) in str(caught.value)
    assert allowed in str(caught.value)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "annotation",
    [
        int | str,
        Union[int, str, None],  # noqa: UP007
        dict,
        dict[str, int],
        tuple[int, int],
        list[list[int]],
        list[bool],
        Literal[1.5],
        Literal[True],
        Callable,
        object,
    ],
)
def test_an_annotation_that_cannot_be_read_is_an_error_of_the_script(annotation: Any) -> None:
    with pytest.raises(UsageError, match="annotation of 'x'") as caught:
        value(annotation, "--x", "1")
    assert caught.value.code == 1


def test_an_annotation_that_does_not_resolve_is_named() -> None:
    with pytest.raises(UsageError, match="cannot be resolved: name 'Missing'"):
        value("Missing", "--x", "1")


def test_defaults_stay_as_they_are() -> None:
    marker = object()
    assert value(int, default=5) == 5
    assert value(str, default=marker) is marker
    assert value(list[int], "--x", "1", default=[9]) == [1]
    assert value(bool, default=None) is None


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="required: --x"):
        value(int)


def test_kinds_of_parameters_and_dashes() -> None:
    def function(first, /, second_one, *, third: int = 3) -> None: ...  # type: ignore[no-untyped-def]

    args, kwargs = parse(function, "p", ["--first", "1", "--second-one", "2"])
    assert (args, kwargs) == (("1",), {"second_one": "2", "third": 3})


def test_a_misspelt_option_gets_a_suggestion() -> None:
    def function(batch_size: int = 1) -> None: ...

    for wrong in ("--batch_size", "--batchsize", "--batch-sizes=3"):
        with pytest.raises(UsageError, match="there is no option --batch") as caught:
            parse(function, "p", [wrong])
        assert caught.value.hint == "--batch-size"


def test_abbreviations_and_positions_are_not_guessed() -> None:
    def function(batch_size: int = 1) -> None: ...

    for wrong in (["--batch", "3"], ["3"]):
        with pytest.raises(UsageError):
            parse(function, "p", wrong)


def test_sole_varargs_take_the_rest_of_the_line_as_it_is() -> None:
    def function(*args: str) -> None: ...

    argv = ["--x", "-1", "--", "--help"]
    assert parse(function, "p", argv) == (tuple(argv), {})


@pytest.mark.parametrize("stars", ["x, *args", "**kw", "*args, **kw"])
def test_other_stars_are_an_error(stars: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def function({stars}): ...", scope)
    with pytest.raises(UsageError, match="cannot be given on the command line"):
        parse(scope["function"], "p", ["--x", "1"])


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    def function(name: str, count: int = 3, *, loud: bool = False, share: str = "50%") -> None:
        """Greet somebody."""

    with pytest.raises(SystemExit) as caught:
        parse(function, "minimodal run f.py", ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in (
        "usage: minimodal run f.py",
        "Greet somebody.",
        "--name TEXT",
        "required",
        "--count INT",
        "default: 3",
        "--loud, --no-loud",
        "default: 50%",
        "example: minimodal run f.py --name …",
    ):
        assert part in text
