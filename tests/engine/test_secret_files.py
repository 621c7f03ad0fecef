"""Secrets without containers: where their values come from, how they lie on disk, how they are masked."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import minimodal
from minimodal import Secret
from minimodal.engine.masking import Mask
from minimodal.engine.secret_files import SecretFiles
from minimodal.errors import InvalidError, StateError
from minimodal.home import Home
from minimodal.types import Failure, Payload


@pytest.mark.parametrize("value", [3, b"x", "nul\0"])
def test_bad_values(value: object) -> None:
    with pytest.raises(InvalidError, match="KEY"):
        Secret.from_dict({"KEY": value})  # type: ignore[dict-item]


def test_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=1\nB='two words'\n")
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    for secret in (Secret.from_dotenv(), Secret.from_dotenv(tmp_path), Secret.from_dotenv(below)):
        assert secret._source is not None
        assert secret._source.read() == {"A": "1", "B": "two words"}
    missing = Secret.from_dotenv(tmp_path, filename="absent.env")
    assert missing._source is not None
    with pytest.raises(FileNotFoundError, match=r"absent\.env"):
        missing._source.read()


def test_local_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "1")
    assert minimodal.secret_from_env("THERE")._source is not None
    with pytest.raises(InvalidError, match="not set in this environment: ABSENT"):
        Secret.from_local_environ(["THERE", "ABSENT"])


def test_masks_are_pure() -> None:
    mask = Mask(["abc", "hunter2", 'quo"te'])
    assert mask.text('abc hunter2hunter2 quo\\"te') == "abc ****** ***"
    pickled = pickle.dumps(ValueError("it is hunter2"))
    failure = mask.failure(Failure("ValueError", "hunter2", "at hunter2", Payload(pickled)))
    assert failure.payload is not None
    assert str(pickle.loads(failure.payload.data)) == "it is *******"
    assert "hunter2" not in repr(failure)


def test_key_of_the_environment(own: Home) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    files = SecretFiles(own, {"MINIMODAL_SECRET_KEY": key})
    files.set("a", {"A": "1"})
    assert not own.key_file.exists()
    new = "OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg="
    rotated = SecretFiles(own, {"MINIMODAL_SECRET_KEY": f"{new},{key}"})
    assert rotated.rotate() == 1
    only_new = SecretFiles(own, {"MINIMODAL_SECRET_KEY": new})
    assert only_new.read(only_new.find("a").id) == {"A": "1"}
    with pytest.raises(StateError, match="another key"):
        files.read(files.find("a").id)
