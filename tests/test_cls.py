"""Classes without a container: what may be written, and what objects do in this process."""

from __future__ import annotations

import asyncio
import enum
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import minimodal
from minimodal.errors import ConflictError, InvalidError

app = minimodal.App("rules")


class Colour(str, enum.Enum):
    RED = "red"


@app.cls()
class Model:
    name: str = minimodal.parameter()
    size: int = minimodal.parameter(default=3)
    exact: bool = minimodal.parameter(default=False)
    seed: bytes = minimodal.parameter(default=b"\0")
    notes: str = minimodal.parameter(default="none", init=False)
    LIMIT = 10

    @minimodal.enter(snap=True)
    def first(self) -> None:
        self.entered = ["first"]

    @minimodal.enter()
    def second(self) -> None:
        self.entered.append("second")

    @minimodal.method()
    def double(self, x: int) -> int:
        """Twice."""
        return 2 * x

    @minimodal.method()
    def hooks(self) -> list[str]:
        return self.entered

    @minimodal.method()
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def plain(self) -> str:
        return f"{self.name} {self.size} {self.exact} {self.seed!r} {self.notes}"

    @minimodal.exit()
    def leave(self) -> None: ...


@app.cls()
class Async:
    @minimodal.enter()
    async def open(self) -> None:
        self.opened = getattr(self, "opened", 0) + 1

    @minimodal.method()
    async def times(self) -> int:
        return self.opened

    @minimodal.method()
    def blocking(self) -> int:
        return self.opened


# --- in this process ----------------------------------------------------------------------------------


def test_everything_but_methods_is_of_a_local_instance() -> None:
    model = Model(name="a", size=4, exact=True, seed=b"s")
    assert model.plain() == "a 4 True b's' none"
    assert (model.name, model.size, model.LIMIT, Model.LIMIT) == ("a", 4, 10, 10)
    assert not hasattr(model, "entered"), "a plain method does not enter"
    with pytest.raises(AttributeError, match="nothing"):
        model.nothing()  # type: ignore[attr-defined]  # the mistake is the point


def test_local_enters_once_for_each_object() -> None:
    model = Model(name="a")
    assert model.hooks.local() == ["first", "second"]
    assert model.hooks.local() == ["first", "second"]
    assert list(model.count.local(2)) == [0, 1]
    assert model.double(4) == 8


def test_local_with_an_async_enter() -> None:
    obj = Async()
    with pytest.raises(InvalidError, match="async @enter"):
        obj.blocking.local()

    async def twice() -> tuple[int, int]:
        return await obj.times.local(), await obj.times.local()  # type: ignore[misc]  # the coroutine itself

    assert asyncio.run(twice()) == (1, 1)
    assert obj.blocking.local() == 1


def test_an_undecorated_class_works_locally() -> None:
    class Parent:
        @minimodal.method()
        def greet(self) -> str:
            return "hello"

    assert Parent().greet.local() == Parent().greet() == "hello"
    with pytest.raises(InvalidError, match="belongs to no app"):
        Parent().greet.hydrate()


def test_methods_keep_name_and_doc() -> None:
    double = Model(name="a").double
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice."
    assert repr(Model(name="a", size=2)) == "Model(name='a', size=2)"
    assert Model.__name__ == "Model"


def test_a_handle_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(minimodal.Cls.from_name("app", "Model")(size=3)))
    assert repr(again) == "Model(size=3)"
    assert again.double.name == "Model.double"


# --- parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Model(), "needs a value for name: str"),
        (lambda: Model("a"), r"by name: Model\(name=…, size=…"),
        (lambda: Model(name=3), "must be str, not 3"),
        (lambda: Model(name="a", size=True), "must be int, not True"),
        (lambda: Model(name="a", size=1.5), "must be int, not 1.5"),
        (lambda: Model(name="a", exact=1), "must be bool, not 1"),
        (lambda: Model(name="a", seed="s"), "must be bytes, not 's'"),
        (lambda: Model(name="a", notes="x"), "no parameter 'notes'"),
        (lambda: Model(name="a", nam="x"), "no parameter 'nam'"),
    ],
)
def test_wrong_arguments(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        make()


def test_a_value_of_a_subclass_becomes_the_plain_value() -> None:
    assert type(Model(name=Colour.RED).name) is str
    assert Model(name=Colour.RED).name == "red"


def test_parameters_are_inherited_and_replaced() -> None:
    class Parent:
        size: int = minimodal.parameter(default=1)
        name: str = minimodal.parameter()

    @minimodal.App().cls()
    class Child(Parent):
        name = "fixed"
        extra: int = minimodal.parameter(default=2)

    child = Child(size=5)
    assert (child.size, child.name, child.extra) == (5, "fixed", 2)
    with pytest.raises(InvalidError, match="no parameter 'name'"):
        Child(name="other")


# --- declarations -------------------------------------------------------------------------------------


def no_type() -> None:
    class Bad:
        size = minimodal.parameter(default=1)

    minimodal.App().cls()(Bad)


def wrong_type() -> None:
    class Bad:
        sizes: list[int] = minimodal.parameter(default=1)

    minimodal.App().cls()(Bad)


def wrong_default() -> None:
    class Bad:
        size: int = minimodal.parameter(default="one")

    minimodal.App().cls()(Bad)


def no_call() -> None:
    class Bad:
        size: int = minimodal.parameter  # type: ignore[assignment]  # the mistake is the point

    minimodal.App().cls()(Bad)


def both_ways() -> None:
    class Bad:
        size: int = minimodal.parameter(default=1)

        def __init__(self) -> None: ...

    minimodal.App().cls()(Bad)


def a_function() -> None:
    minimodal.App().cls()(lambda: 1)  # type: ignore[arg-type]  # the mistake is the point


def twice() -> None:
    minimodal.App().cls()(Model)  # type: ignore[arg-type]  # the mistake is the point


def without_parentheses() -> None:
    minimodal.App().cls(type("Bad", (), {}))


def unknown_option() -> None:
    minimodal.App().cls(timout=3)


def with_a_schedule() -> None:
    minimodal.App().cls(schedule=minimodal.Period(hours=1))


def method_without_parentheses() -> None:
    minimodal.method(lambda self: 1)


def enter_and_method() -> None:
    minimodal.enter()(minimodal.method()(no_type))  # type: ignore[type-var]  # the mistake is the point


def method_and_exit() -> None:
    minimodal.method()(minimodal.exit()(lambda self: 1))


def enter_with_arguments() -> None:
    minimodal.enter()(lambda self, x: 1)


def enter_that_yields() -> None:
    def hook(self: Any) -> Iterator[int]:
        yield 1

    minimodal.enter()(hook)


def concurrent_method() -> None:
    class Bad:
        @minimodal.concurrent(max_inputs=2)
        def work(self) -> None: ...


def concurrent_above() -> None:
    minimodal.concurrent(max_inputs=2)(Model)  # type: ignore[type-var]  # the mistake is the point


def batched_beside_another() -> None:
    class Bad:
        @minimodal.batched(max_batch_size=2, wait_ms=1)
        def one(self, xs: list[int]) -> list[int]:
            return xs

        @minimodal.method()
        def two(self) -> None: ...

    minimodal.App().cls()(Bad)


def batched_with_stars() -> None:
    minimodal.batched(max_batch_size=2, wait_ms=1)(lambda *xs: [])


def options_of_a_method() -> None:
    Model(name="a").double.with_options(cpu=1)


def batching_of_several_methods() -> None:
    Model.with_batching(max_batch_size=2, wait_ms=1)


def too_little_concurrency() -> None:
    Model.with_concurrency(max_inputs=2, target_inputs=3)


def exit_without_parentheses() -> None:
    minimodal.exit(no_type)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (no_type, r"Bad.size needs a type"),
        (wrong_type, r"Bad.sizes is annotated .* str, int, bool or bytes"),
        (wrong_default, "must be int, not 'one'"),
        (no_call, "with parentheses"),
        (a_function, "use @app.function"),
        (twice, "twice"),
        (without_parentheses, "write @app.cls"),
        (unknown_option, "Did you mean 'timeout'"),
        (with_a_schedule, "no option 'schedule'"),
        (method_without_parentheses, "write @method"),
        (exit_without_parentheses, "write @exit"),
        (enter_and_method, "is a @method already"),
        (method_and_exit, "@method and @exit"),
        (enter_with_arguments, "without arguments"),
        (enter_that_yields, "generator"),
        (concurrent_method, "put it on the class"),
        (concurrent_above, "below @app.function"),
        (batched_beside_another, "the only method"),
        (batched_with_stars, "must name its parameters"),
        (options_of_a_method, r"use Model.with_options"),
        (batching_of_several_methods, "several methods"),
        (too_little_concurrency, "target_inputs=3 is more than max_inputs=2"),
    ],
)
def test_misuse_says_what_to_write(wrong: Callable[[], None], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        wrong()


def test_parameters_and_an_init_conflict() -> None:
    with pytest.raises(ConflictError, match="both __init__ and parameter"):
        both_ways()


@pytest.mark.parametrize("name", ["remote", "local", "map", "spawn", "remote_gen"])
def test_a_method_of_the_class_itself_says_what_is_missing(name: str) -> None:
    with pytest.raises(AttributeError, match=r"forget to make an object\? Model\(…\).double"):
        getattr(Model.double, name)


def test_a_looked_up_class_has_no_code_here() -> None:
    with pytest.raises(InvalidError, match="code is not here"):

        class Child(minimodal.Cls.from_name("app", "Model")):  # type: ignore[misc]
            pass

    with pytest.raises(AttributeError, match="Make an object first"):
        minimodal.Cls.from_name("app", "Model").double.remote(1)
