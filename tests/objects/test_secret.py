"""Secrets: what functions see of them, and what nobody sees."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import minimodal
from minimodal import Secret
from minimodal.config import load_config
from minimodal.engine.secret_files import SecretFiles
from minimodal.errors import AlreadyExistsError, InvalidError, NotFoundError
from minimodal.home import open_home
from minimodal.host import Host
from tests.objects import functions as f
from tests.objects.conftest import once

pytestmark = pytest.mark.usefixtures("running")


def test_variables_in_the_function_and_in_its_subprocesses() -> None:
    seen = f.environment.remote("STORED", "TOKEN", "OVER", "LEFT_OUT")
    assert seen == ["kept", "later-wins", "env", None]
    assert f.in_a_subprocess.remote("TOKEN").strip() == f.CANARY


def test_two_containers_at_once_have_each_its_own() -> None:
    with_secret = [
        f.token_at_once.with_options(secrets=[Secret.from_dict({"TOKEN": token})])
        for token in ("first-token", "second-token")
    ]
    calls = [with_secret[0].spawn("a", "b"), with_secret[1].spawn("b", "a")]
    assert [call.get() for call in calls] == ["first-token", "second-token"]


def test_inside_a_container_names_are_seen_and_values_are_not() -> None:
    names, shown = f.secret_inside.remote("stored")
    assert "stored" in names
    assert "kept" not in shown


@once
def test_survives_a_restart(scratch: Path) -> None:
    settings = load_config({"backend": "process", "home": scratch / "secrets"})
    app = minimodal.App("secrets-restarted")
    secret = Secret.from_name("kept")
    function = app.function(secrets=[secret], serialized=True)(lambda: os.environ["KEPT"])
    with Host(settings):
        secret.set({"KEPT": "from-before"})
    with Host(settings), app.run():
        assert function.remote() == "from-before"


def test_output_is_masked_also_where_a_value_is_split(host: Host) -> None:
    f.prints.remote()
    lines = [e.fields["text"] for e in host.engine.events.since(0) if e.kind == "log"]
    text = "\n".join(lines)
    for hidden in (f.CANARY, "line-one-of-it", "line-two-of-it", f.CANARY[:9]):
        assert hidden not in text
    assert {"whole ***", "split ***", "last"} <= set(lines)


def test_failures_are_masked_in_words_and_as_pickles(host: Host) -> None:
    with pytest.raises(ValueError, match="the token is") as caught:
        f.fails.remote()
    assert "canary" not in str(caught.value)


@once
def test_set_update_list_delete() -> None:
    secret = Secret.from_name("api")
    secret.set("one")
    secret.update({"B": "two", "api": None})
    assert "api" in [each.name for each in Secret.objects.list()]
    assert secret.info().name == "api"
    with pytest.raises(AlreadyExistsError):
        Secret.objects.create("api", {"A": "x"})
    Secret.objects.create("api", {"A": "x"}, allow_existing=True)
    with pytest.raises(InvalidError, match="has no A"):
        Secret.from_name("api", required_keys=["A", "B"]).hydrate()
    Secret.objects.delete("api")
    with pytest.raises(NotFoundError, match="no secret 'api'"):
        Secret.from_name("api").hydrate()
    Secret.objects.delete("api", allow_missing=True)


def test_a_build_step_has_its_secrets_and_the_image_does_not(host: Host) -> None:
    app = minimodal.App("built")
    function = app.function(image=f.with_secret, serialized=True)(lambda: "TOKEN" in os.environ)
    with app.run():
        assert function.remote() is False
    lines = [e.fields["text"] for e in host.engine.events.since(0) if e.kind == "image.build"]
    assert "built with ***" in lines
    assert "canary" not in "\n".join(lines)


def test_a_missing_secret_fails_the_call_and_names_it() -> None:
    with pytest.raises(NotFoundError, match="nobody-made"):
        f.environment.with_options(secrets=[Secret.from_name("nobody-made")]).remote("A")


def test_a_deleted_secret_fails_the_container_and_names_the_reason() -> None:
    secret = Secret.from_name("short-lived")
    secret.set("x")
    function = f.environment.with_options(secrets=[secret], env={"E": "1"})
    assert function.remote("short-lived") == ["x"]
    other = f.environment.with_options(secrets=[secret], env={"E": "2"})
    secret.hydrate()
    Secret.objects.delete("short-lived")
    with pytest.raises(NotFoundError, match="there is no secret"):
        other.remote("short-lived")


@once
def test_inline_secrets_of_a_deployed_app_are_kept_encrypted(host: Host, home: Path) -> None:
    app = minimodal.App("kept", secrets=[Secret.from_dict({"DEPLOYED": "deployed-canary"})])
    app.function(serialized=True)(lambda: None)
    before = {path.name for path in open_home(home).secrets.glob("si-*.json")}
    with app.run():
        assert {path.name for path in open_home(home).secrets.glob("si-*.json")} == before
    app.deploy(name="kept")
    (new,) = (each for each in open_home(home).secrets.glob("si-*.json") if each.name not in before)
    assert SecretFiles(open_home(home)).read(new.stem) == {"DEPLOYED": "deployed-canary"}
    assert b"deployed-canary" not in new.read_bytes()
    new.unlink()


@once
def test_an_inline_secret_is_not_pickled_with_its_values() -> None:
    secret = Secret.from_dict({"A": "pickled-canary"})
    with pytest.raises(InvalidError, match="in the clear"):
        pickle.dumps(secret)
    secret.hydrate()
    assert b"pickled-canary" not in pickle.dumps(secret)
    assert pickle.loads(pickle.dumps(secret)).object_id == secret.object_id
    assert secret._secret_id() == Secret.from_dict({"A": "pickled-canary"}).hydrate()._secret_id()
