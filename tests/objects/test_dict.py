"""Dict: the same from a container and from here, from two containers at once, and after a restart."""

from __future__ import annotations

import datetime
import pickle
import threading
from pathlib import Path

import pytest

import minimodal
from minimodal import Dict
from minimodal.config import load_config
from minimodal.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    ResourceExhaustedError,
)
from minimodal.host import Host
from tests.objects import functions as f
from tests.objects.conftest import once

pytestmark = pytest.mark.usefixtures("running")


def test_shared_by_containers_and_this_process() -> None:
    with Dict.ephemeral() as shared:
        assert f.dict_put.remote(shared, "a", [1, 2]) is True
        assert shared["a"] == [1, 2]
        assert f.dict_get.remote(shared, "a") == [1, 2]
        assert f.dict_get.remote(shared, "b") == "nothing"
        shared["b"] = {"n": None}
        assert f.dict_items.remote(shared) == [("a", [1, 2]), ("b", {"n": None})]


def test_one_of_many_takes_the_lock() -> None:
    with Dict.ephemeral() as shared:
        function = f.dict_put.with_options(max_containers=2)
        takers = [function.spawn(shared, "lock", number, True) for number in range(12)]
        won = [number for number, taker in enumerate(takers) if taker.get()]
        assert len(won) == 1
        assert shared["lock"] == won[0]


def test_ephemeral_in_a_container_is_gone_behind_its_block() -> None:
    value, object_id = f.ephemeral_inside.remote()
    assert value == 1
    with pytest.raises(NotFoundError, match="its block has ended"):
        Dict.from_id(object_id).len()


@once
def test_methods() -> None:
    with Dict.ephemeral() as shared:
        assert shared.put("a", 1) is True
        assert shared.put("a", 2, skip_if_exists=True) is False
        assert shared.get("a") == 1
        assert shared.get("b", "default") == "default"
        assert "a" in shared
        assert "b" not in shared
        assert shared.contains("a") is True
        shared.update({"b": 2}, c=3)
        shared.update([("d", 4)])
        assert list(shared.keys()) == ["a", "b", "c", "d"]
        assert list(shared.values()) == [1, 2, 3, 4]
        assert dict(shared.items()) == {"a": 1, "b": 2, "c": 3, "d": 4}
        shared["b"] = 20
        assert list(shared.keys()) == ["a", "b", "c", "d"], "a new value keeps its place"
        assert shared.pop("a") == 1
        with pytest.raises(KeyError, match="'a'"):
            shared.pop("a")
        assert shared.pop("a", None) is None
        with pytest.raises(KeyError, match="'a'"):
            shared["a"]
        with pytest.raises(KeyError, match="'a'"):
            del shared["a"]
        del shared["b"]
        assert shared.len() == 2
        shared.clear()
        assert shared.len() == 0


@pytest.mark.parametrize(
    ("key", "equal"),
    [
        (1, True),
        (2, 2.0),
        ("é", "é"),
        (("a", ("b", 1.0)), ("a", ("b", 1))),
        (frozenset([1, 2]), frozenset([2, 1])),
        (None, None),
        (b"x", bytes([120])),
        (Path("/a"), Path("/a")),
        (datetime.date(2024, 1, 2), datetime.date(2024, 1, 2)),
    ],
)
def test_keys_are_compared_by_value(key: object, equal: object) -> None:
    with Dict.ephemeral() as shared:
        shared[key] = "here"
        assert shared[equal] == "here"
        assert f.dict_get.remote(shared, equal) == "here"


@once
def test_unequal_keys() -> None:
    with Dict.ephemeral() as shared:
        for number, key in enumerate([1, "1", b"1", 1.5, ("1",), ((1,),), (1, 1), None, ""]):
            shared[key] = number
        assert shared.len() == 9


@once
def test_bad_keys_and_sizes() -> None:
    with Dict.ephemeral() as shared:
        with pytest.raises(TypeError, match="unhashable"):
            shared[[]] = 1
        with pytest.raises(InvalidError, match="cannot be a key"):
            shared[lambda: None] = 1
        with pytest.raises(ResourceExhaustedError, match="limit is 65536"):
            shared["x" * 70_000] = 1
        with pytest.raises(ResourceExhaustedError, match="one call takes 10000"):
            shared.update((number, 0) for number in range(10_001))


def test_large_values_and_many_entries() -> None:
    with Dict.ephemeral() as shared:
        large = bytes(5_000_000)
        shared["large"] = large
        assert f.dict_get.remote(shared, "large") == large
        shared.update({number: number for number in range(2_500)})
        assert len(list(shared.items())) == 2_501


@once
def test_values_are_copies() -> None:
    with Dict.ephemeral() as shared:
        shared["list"] = [1]
        shared["list"].append(2)
        assert shared["list"] == [1]


@once
def test_names() -> None:
    with pytest.raises(NotFoundError, match="create_if_missing"):
        Dict.from_name("not-there").len()
    shared = Dict.from_name("named", create_if_missing=True)
    shared["a"] = 1
    assert Dict.from_name("named")["a"] == 1
    assert "named" in [each.name for each in Dict.objects.list()]
    with pytest.raises(AlreadyExistsError):
        Dict.objects.create("named")
    Dict.objects.create("named", allow_existing=True)
    assert shared.info().name == "named"
    assert Dict.from_id(shared.object_id)["a"] == 1
    Dict.objects.delete("named")
    with pytest.raises(NotFoundError, match="deleted"):
        shared.len()
    for wrong in ("", "a/b", "..", "x" * 65, "a b"):
        with pytest.raises(InvalidError, match="cannot be the name"):
            Dict.from_name(wrong)
    with pytest.raises(RuntimeError, match="from_name"):
        Dict()
    with pytest.raises(NotFoundError):
        minimodal.Queue.from_name("named").len()


@once
def test_handles_pickle() -> None:
    named = pickle.loads(pickle.dumps(Dict.from_name("pickled", create_if_missing=True)))
    named["a"] = 1
    assert Dict.from_name("pickled").get("a") == 1
    with Dict.ephemeral() as shared:
        assert pickle.loads(pickle.dumps(shared)).object_id == shared.object_id
    Dict.objects.delete("pickled")


@once
def test_from_many_threads() -> None:
    with Dict.ephemeral() as shared:

        def fill(number: int) -> None:
            for index in range(20):
                shared[number, index] = index

        threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shared.len() == 80


async def async_use() -> list[object]:
    async with Dict.ephemeral() as shared:
        await shared.put.aio("a", 1)
        found = [await shared.get.aio("a"), await shared.contains.aio("b")]
        return [*found, *[key async for key in shared.keys()]]


@once
def test_awaited() -> None:
    import anyio

    assert anyio.run(async_use) == [1, False, "a"]


@once
def test_survives_a_restart(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_config({"backend": "process", "home": scratch / "restart"})
    shared = Dict.from_name("kept", create_if_missing=True)
    with Host(settings):
        shared["a"] = 1
        with Dict.ephemeral() as gone:
            gone_id = gone.object_id
    with Host(settings):
        assert shared["a"] == 1, "the handle asks the new engine for the id"
        with pytest.raises(NotFoundError):
            Dict.from_id(gone_id).len()
