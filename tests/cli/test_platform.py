"""The commands that look at the platform: with an engine that runs, and from its records alone."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minimodal
from minimodal.errors import ResourceExhaustedError
from tests.cli.conftest import Program, Result
from tests.deploy.program import Running, running
from tests.deploy.shop import edit


@pytest.fixture(scope="module")
def where(scratch: Path) -> Iterator[Path]:
    path = scratch / uuid.uuid4().hex[:8]
    (path / "w").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIMODAL_HOME", str(path))
        yield path
    shutil.rmtree(path)


@pytest.fixture
def command(program: Program, where: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return program(*arguments, MINIMODAL_HOME=str(where))

    return run


@pytest.fixture(scope="module")
def up(where: Path) -> Iterator[Running]:
    edit(where / "w" / "shop.py", 1)
    with running(where, "deploy", str(where / "w" / "shop.py")) as deploying:
        deploying.wait_for("Deployed shop")
        assert deploying.process.wait(timeout=20) == 0
    with running(where, "up") as program:
        program.wait_for("Ready in")
        yield program


@pytest.fixture(scope="module")
def failed(up: Running) -> str:
    call = minimodal.Function.from_name("shop", "fail").spawn()
    with pytest.raises(ValueError, match="no money"):
        call.get(timeout=30)
    assert minimodal.Function.from_name("shop", "version").remote() == 1
    return call.object_id


def data(result: Result) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema"].startswith("minimodal.")
    return found


def test_ps_shows_functions_and_containers(failed: str, command: Callable[..., Result]) -> None:
    shown = data(command("ps", "--json"))
    assert {row["name"] for row in shown["functions"]} == {
        "version",
        "slow",
        "fail",
        "meet",
        "page",
        "Till",
    }
    assert [row["role"] for row in shown["engines"]] == ["up"]
    assert shown["containers"]
    plain = command("ps", "--function", "shop/version").stdout.splitlines()
    assert plain[0].split()[:3] == ["APP", "FUNCTION", "QUEUED"]
    assert plain[1].split()[:3] == ["shop", "version", "0"]
    assert "idle" in command("ps", "-c").stdout


def test_calls_are_listed_and_shown(failed: str, command: Callable[..., Result]) -> None:
    rows = data(command("calls", "list", "--state", "error", "--json"))["calls"]
    assert [row["id"] for row in rows] == [failed]
    assert rows[0]["error"] == "ValueError: no money"
    assert rows[0]["created"].endswith("+00:00")
    shown = command("calls", "show", failed).stdout
    assert "ValueError: no money" in shown
    assert "| about to fail" in shown
    assert "no such calls" in command("calls", "list", "--state", "lost").stderr


def test_dead_letters_are_shown_retried_and_purged(
    failed: str, command: Callable[..., Result]
) -> None:
    assert failed in command("dlq", "list").stdout
    assert "raise ValueError" in command("dlq", "show", failed).stdout
    [again] = command("dlq", "retry", failed).stdout.split()
    with pytest.raises(ValueError, match="no money"):
        minimodal.FunctionCall.from_id(again).get(timeout=20)
    assert data(command("dlq", "list", "--json"))["count"] == 1
    assert command("dlq", "purge").returncode == 2, "which ones?"
    assert command("dlq", "purge", "--all").stdout == "1 purged\n"


def test_a_users_quota_is_set_while_the_engine_runs(
    failed: str, command: Callable[..., Result]
) -> None:
    assert command("user", "set", "ada").returncode == 2, "to what?"
    assert "no number" in command("user", "set", "ada", "--max-queued", "x").stderr
    assert command("user", "set", "ada", "--weight", "2", "--max-queued", "0").returncode == 0
    slow = minimodal.Function.from_name("shop", "version")
    with (
        minimodal.as_user("ada"),
        pytest.raises(ResourceExhaustedError, match=r"'ada'.*max_queued"),
    ):
        slow.remote()
    rows = {row["user"]: row for row in data(command("user", "list", "--json"))["users"]}
    assert (rows["ada"]["weight"], rows["ada"]["max_queued"]) == (2, 0)
    assert command("user", "set", "ada", "--max-queued", "none").returncode == 0
    with minimodal.as_user("ada"):
        assert slow.remote() == 1
    assert command("user", "list").stdout.splitlines()[1].split()[:2] == ["ada", "2"]
    assert command("user", "reset", "ada").returncode == 0
    assert command("user", "reset", "ada").returncode == 1


def test_logs_of_a_function(failed: str, command: Callable[..., Result]) -> None:
    assert "fail | about to fail" in command("logs", "--app", "shop").stdout
    assert command("logs", "--function", "shop/version").stdout == ""
    [line] = command("logs", "--call", failed, "--json").stdout.splitlines()
    assert json.loads(line)["text"] == "about to fail"


def test_logs_are_followed(failed: str, where: Path) -> None:
    with running(where, "logs", "-f", "--function", "fail") as program:
        assert program.wait_for("about to fail") == "fail | about to fail"
        for _ in range(2):
            call = minimodal.Function.from_name("shop", "fail").spawn()
            assert program.wait_for("about to fail") == "fail | about to fail"
            with pytest.raises(ValueError, match="no money"):
                call.get(timeout=20)


def test_apps(failed: str, command: Callable[..., Result]) -> None:
    [app] = data(command("app", "list", "--json"))["apps"]
    assert (app["name"], app["state"], app["version"]) == ("shop", "deployed", 1)
    assert "about to fail" in command("app", "logs", "shop").stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("calls", "lst"), "minimodal calls list"),
        (("app", "history", "shap"), "did you mean shop?"),
        (("ps", "--function", "versoin"), "did you mean version?"),
        (("deploi", "x.py"), "minimodal deploy"),
    ],
)
def test_misspelt_names_get_a_suggestion(
    failed: str, command: Callable[..., Result], arguments: tuple[str, ...], hint: str
) -> None:
    result = command(*arguments)
    assert result.returncode in (1, 2)
    assert hint in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(("calls", each) for each in ("list", "show", "cancel")),
        *(("dlq", each) for each in ("list", "show", "retry", "purge")),
        *(("app", each) for each in ("list", "history", "rollback", "stop", "logs")),
        *(("user", each) for each in ("list", "set", "reset")),
        *((each,) for each in ("ps", "logs", "up", "deploy", "app", "calls", "dlq", "user")),
    ],
)
def test_help_has_an_example(command: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    result = command(*arguments, "--help")
    assert result.returncode == 0
    assert f"example: minimodal {arguments[0]}" in result.stdout


def test_without_an_engine_the_records_are_read(program: Program, scratch: Path) -> None:
    from minimodal.config import load_config
    from minimodal.host import Host
    from tests.deploy import functions

    home = scratch / uuid.uuid4().hex[:8]

    def command(*arguments: str) -> Result:
        return program(*arguments, MINIMODAL_HOME=str(home))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIMODAL_HOME", str(home))
        with Host(load_config({"backend": "process", "home": home})):
            functions.app.deploy()
            call = functions.double.spawn("a", "b")  # type: ignore[call-arg]  # it fails
            with pytest.raises(TypeError):
                call.get(timeout=30)
    call_id = call.object_id
    assert [row["id"] for row in data(command("calls", "list", "--json"))["calls"]] == [call_id]
    assert "no engine runs" in command("ps").stderr
    assert command("user", "set", "ada", "--max-running", "3").returncode == 0
    assert command("user", "list").stdout.splitlines()[1].split() == [
        "ada",
        "1",
        "0",
        "3",
        "0",
        "-",
    ]
    assert command("logs").returncode == 1
    assert "TypeError" in command("calls", "show", call_id).stdout
    assert call_id in command("dlq", "list").stdout
    assert "the next one runs them" in command("dlq", "retry", "--all").stdout
    assert "deployed" in command("app", "list").stdout
    assert command("app", "stop", "shop").returncode == 0
    assert "stopped" in command("app", "list").stdout
    shutil.rmtree(home)
