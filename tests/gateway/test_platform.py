"""The platform's API, metrics and dashboard over HTTP; tokens; hosts and paths."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate

import minimodal
from minimodal.cli.main import main
from minimodal.errors import InvalidError, NotFoundError
from minimodal.gateway.dashboard.pages import PAGES
from minimodal.gateway.hosts import Kind, goal_of, is_ours, name_of
from minimodal.gateway.resources import RESOURCES, openapi
from minimodal.gateway.tokens import Guesses, Rates, TokenFile
from minimodal.home import open_home
from minimodal.host import Host
from minimodal.types import WebEndpoint, WebRoute
from tests.gateway import functions
from tests.programming.conftest import wait_until


def test_every_resource_answers_or_says_why(http: httpx.Client) -> None:
    for each in RESOURCES:
        if each.method == "GET" and "{" not in each.path:
            answer = http.get(f"/api/v1{each.path}")
            assert answer.status_code == 200, each.path


def test_calls_can_be_listed_and_shown(http: httpx.Client) -> None:
    assert functions.double.remote(21) == 42
    call = functions.double.spawn(4)
    assert call.get() == 8
    rows = http.get("/api/v1/calls?states=ok&limit=50").json()["calls"]
    assert call.object_id in {row["id"] for row in rows}
    shown = http.get(f"/api/v1/calls/{call.object_id}").json()
    assert shown["call"]["state"] == "ok"
    assert http.post(f"/api/v1/calls/{call.object_id}/cancel").status_code == 200


def test_problems_are_in_the_form_of_rfc_9457(http: httpx.Client) -> None:
    answer = http.get("/api/v1/calls/fc-none")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["status"] == 404
    assert http.get("/api/v1/calls?limit=x").status_code == 400
    assert http.get("/api/v1/nothing").json()["title"] == "Not Found"
    bad = http.post("/api/v1/containers/ct-1/stop", json={"wrong": 1})
    assert bad.status_code == 400
    large = http.post("/api/v1/containers/ct-1/stop", content=b"[" * (2 << 20))
    assert large.status_code == 413


def test_the_document_describes_every_resource(http: httpx.Client) -> None:
    document = http.get("/api/v1/openapi.json").json()
    assert document == json.loads(json.dumps(openapi()))
    validate(document)
    assert "/api/v1/calls/{id}" in document["paths"]


def test_files_of_a_volume_are_listed_and_streamed(http: httpx.Client) -> None:
    volume = minimodal.Volume.from_name("api-files", create_if_missing=True)
    content = bytes(range(256)) * 40_000
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(content), "/deep/a b.bin")
    base = "/api/v1/volumes/api-files/files"
    [row] = http.get(f"{base}?path=/deep").json()["files"]
    assert (row["path"], row["kind"], row["size"]) == ("deep/a b.bin", "file", len(content))
    [row] = [r for r in http.get("/api/v1/volumes").json()["objects"] if r["name"] == "api-files"]
    assert (row["files"], row["nbytes"]) == (1, len(content))
    answer = http.get(f"{base}/deep/a%20b.bin")
    assert answer.content == content
    assert "attachment" in answer.headers["content-disposition"]
    etag = {"If-None-Match": answer.headers["etag"]}
    assert http.get(f"{base}/deep/a%20b.bin", headers=etag).status_code == 304
    for path, statuses in (
        ("/deep/none", {404}),
        ("/deep", {409}),
        ("/..%2f..%2fetc%2fpasswd", {400, 404}),
    ):
        wrong = http.get(base + path)
        assert wrong.status_code in statuses, path
        assert wrong.headers["content-type"] == "application/problem+json"
    assert http.get("/api/v1/volumes/none/files").status_code == 404


def test_files_of_a_volume_are_written_and_removed(http: httpx.Client) -> None:
    volume = minimodal.Volume.from_name("api-writes", create_if_missing=True)
    volume.hydrate()
    url = "/api/v1/volumes/api-writes/files/in/new.bin"
    content = bytes(range(256)) * 20_000
    parts = (content[at : at + 50_000] for at in range(0, len(content), 50_000))
    answer = http.put(url, content=parts)
    assert (answer.status_code, answer.json()) == (
        201,
        {"path": "in/new.bin", "size": len(content)},
    )
    assert b"".join(volume.read_file("/in/new.bin")) == content
    assert http.put(url, content=b"", headers={"If-None-Match": "*"}).status_code == 412
    assert http.put(url, content=b"").status_code == 201
    assert http.get(url).content == b""
    assert http.put("/api/v1/volumes/none/files/x", content=b"x").status_code == 404
    assert http.put("/api/v1/volumes/api-writes/files/a/../../x", content=b"x").status_code in (
        400,
        404,
        405,
    )
    assert http.delete(url).status_code == 204
    assert http.delete(url).status_code == 404
    assert [entry.path for entry in volume.iterdir("/", recursive=True)] == ["in"]


def test_what_containers_use_is_told_by_their_heartbeat(http: httpx.Client) -> None:
    functions.double.remote(1)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        rows = http.get("/api/v1/containers?function=double").json()["containers"]
        if rows and rows[0]["memory"] and rows[0]["cpu"] is not None:
            break
        time.sleep(0.2)  # the second heartbeat tells of the cpu
    assert 1 << 20 < rows[0]["memory"] < 1 << 31
    assert 0 <= rows[0]["cpu"] < 64
    assert rows[0]["ready"] >= rows[0]["started"]


def test_where_a_running_call_is(http: httpx.Client) -> None:
    call = functions.sleep.spawn(30)
    url = f"/api/v1/calls/{call.object_id}/stack"
    until = time.monotonic() + 20
    while http.get(url).status_code == 409 and time.monotonic() < until:
        time.sleep(0.05)  # it waits for its container
    threads = http.get(url).json()["threads"]
    assert any("time.sleep" in frame[3] for thread in threads for frame in thread["frames"])
    call.cancel()


def test_a_log_stream_goes_on_where_it_broke(everything: httpx.Client, http: httpx.Client) -> None:
    for _ in range(2):
        everything.get("/raises")
    numbers = _ids(http, {}, 3)
    again = _ids(http, {"Last-Event-ID": str(numbers[0])}, 2)
    assert again == numbers[1:3]


def _ids(http: httpx.Client, headers: dict[str, str], count: int) -> list[int]:
    found: list[int] = []
    with http.stream("GET", "/api/v1/logs?after=0", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("id: "):
                found.append(int(line[4:]))
            if len(found) == count:
                break
    return found


def test_metrics(everything: httpx.Client, http: httpx.Client) -> None:
    everything.get("/")
    wanted = (
        r'minimodal_calls_total\{app="web",function="everything",state="ok"\} [1-9]',
        r'minimodal_http_requests_total\{.*function="everything",status="200"\} [1-9]',
    )
    # The client has its answer a moment before the call has ended and is counted.
    until = time.monotonic() + 20
    while True:
        text = http.get("/metrics").text
        if all(re.search(each, text) for each in wanted):
            break
        assert time.monotonic() < until, text
    assert "minimodal_cold_start_seconds_bucket" in text
    assert re.search(r'minimodal_scheduler_decisions_total\{decision="start"\} [1-9]', text)
    assert re.search(r"minimodal_image_build_seconds_count [1-9]", text)


@pytest.mark.parametrize(
    "path", [path for path in PAGES if "{" not in path] + ["/-/functions/none%2Fnone"]
)
def test_pages_need_nothing_from_elsewhere(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert not re.search(r"<script(?![^>]*src=)|style=|onclick=", answer.text)
    assert not re.search(r'(src|href)="(https?:)?//(?!localhost)', answer.text)
    assert "<noscript>" in answer.text
    assert '"/-/assets/live.js"' in answer.text


def test_a_page_of_a_call(http: httpx.Client) -> None:
    call = functions.double.spawn(5)
    call.get()
    assert call.object_id in http.get(f"/-/calls/{call.object_id}").text
    assert http.get("/-/calls/fc-none").status_code == 404
    assert call.object_id in http.get("/-/calls?state=ok").text


def test_what_users_write_is_escaped(http: httpx.Client) -> None:
    page = http.get("/-/calls?function=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert" not in page


def test_the_overview_is_kept_live(http: httpx.Client, everything: httpx.Client) -> None:
    seen: set[str] = set()
    wanted = {"health", "functions", "lanes", "calls", "dead-letters"}
    with http.stream("GET", "/-/live?at=/") as stream:
        until = time.monotonic() + 10
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                seen.add(json.loads(line[6:]).get("name", "lines"))
            if wanted <= seen or time.monotonic() > until:
                break
    assert wanted <= seen


@pytest.mark.parametrize("name", ["style.css", "live.js", "icon.svg"])
def test_assets(http: httpx.Client, name: str) -> None:
    assert http.get(f"/-/assets/{name}").status_code == 200
    assert http.get(f"/-/assets/..%2f{name}").status_code == 404


# --- pure -----------------------------------------------------------------------------------------


def route(label: str, kind: str = "asgi", path: str = "/", method: str = "GET") -> WebRoute:
    return WebRoute(
        f"app/{label}{path}{method}", "", WebEndpoint(kind, label, path, method), "app", label, 1
    )


ROUTES = [
    route("one"),
    route("app", "simple", "/users/{id}"),
    route("app", "simple", "/users/me"),
    route("app", "simple", "/users/{id}", "DELETE"),
]


@pytest.mark.parametrize(
    ("host", "path", "method", "kind", "key"),
    [
        ("one.localhost:1", "/a", "GET", Kind.ENDPOINT, "app/one/GET"),
        ("localhost:1", "/one/a", "POST", Kind.ENDPOINT, "app/one/GET"),
        ("127.0.0.1", "/one", "GET", Kind.ENDPOINT, "app/one/GET"),
        ("[::1]:80", "/", "GET", Kind.PLATFORM, None),
        ("localhost", "/api/v1/calls", "GET", Kind.PLATFORM, None),
        ("app.localhost", "/users/me", "GET", Kind.ENDPOINT, "app/app/users/meGET"),
        ("app.localhost", "/users/7", "HEAD", Kind.ENDPOINT, "app/app/users/{id}GET"),
        ("localhost", "/app/users/7", "DELETE", Kind.ENDPOINT, "app/app/users/{id}DELETE"),
        ("localhost", "/users/7", "GET", Kind.ENDPOINT, "app/app/users/{id}GET"),
        ("app.localhost", "/users/7", "PUT", Kind.WRONG_METHOD, None),
        ("app.localhost", "/nothing", "GET", Kind.NOTHING, None),
        ("two.localhost", "/", "GET", Kind.NOTHING, None),
        ("evil.example", "/", "GET", Kind.FOREIGN, None),
        ("localhost.evil.example", "/one", "GET", Kind.FOREIGN, None),
        ("", "/", "GET", Kind.FOREIGN, None),
    ],
)
def test_where_a_request_goes(
    host: str, path: str, method: str, kind: Kind, key: str | None
) -> None:
    goal = goal_of(host, path, method, ROUTES)
    assert goal.kind is kind
    assert (goal.route.key if goal.route else None) == key


def test_names() -> None:
    assert name_of("LocalHost.:80") == "localhost"
    assert name_of("[::1]:80") == "::1"
    assert is_ours("box.lan", ["box.lan"])
    assert not is_ours("box.lan")


def test_tokens(tmp_path: Path) -> None:
    now = [1000.0]
    tokens = TokenFile(tmp_path / "tokens.json", lambda: now[0])
    made = tokens.create("ada", ("read",), seconds=10)
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600
    known = TokenFile(tmp_path / "tokens.json", lambda: now[0]).check(made)
    assert known is not None
    assert (known.user, known.scopes) == ("ada", ("read",))
    assert tokens.check(made[:-1]) is None
    now[0] += 10
    assert tokens.check(made) is None
    tokens.revoke(known.id)
    assert tokens.all() == []
    with pytest.raises(NotFoundError):
        tokens.revoke(known.id)
    with pytest.raises(InvalidError):
        tokens.create("ada", ("everything",))


def test_a_request_with_a_token_is_a_call_of_its_user(http: httpx.Client, host: Host) -> None:
    tokens = TokenFile(open_home().config / "tokens.json")
    header = {"authorization": f"Bearer {tokens.create('ada', ('web',))}"}
    users, recent = [], host.engine.recent
    for headers in ({}, header, {"authorization": "Bearer mm_00000000_wrong"}):
        recent.clear()
        assert http.get("/api/users/7", headers=headers).status_code == 200
        wait_until(host, lambda: len(recent) > 0)
        users.append(recent[0].call.user)
    assert users == ["default", "ada", "default"]
    minimodal.set_quota("ada", max_queued=0)
    refused = http.get("/api/users/7", headers=header)
    assert (refused.status_code, "max_queued" in refused.text) == (429, True)
    minimodal.set_quota("ada")


def test_rates() -> None:
    rates = Rates(rate=10, burst=3, known=2)
    assert [rates.wait("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.2)]
    assert rates.wait("b", 0.0) == 0.0
    assert rates.wait("a", 0.05) > 0.0
    assert rates.wait("a", 0.5) == 0.0, "it fills again"
    for n in range(10):
        rates.wait(str(n), 1.0)
    assert len(rates._left) == 2


def test_guesses_are_bounded() -> None:
    guesses = Guesses(allowed=2, window=10, addresses=3)
    assert [guesses.wrong("a", 0.0) for _ in range(3)] == [0.0, 0.0, 10.0]
    assert guesses.wrong("b", 0.0) == 0.0
    assert guesses.wrong("a", 10.0) == 0.0
    for n in range(100):
        guesses.wrong(str(n), 10.0)
    assert len(guesses._wrong) == 3


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "create", "--user", "eve", "--scope", "web"]) == 0
    assert capsys.readouterr().out.startswith("mm_")
    assert main(["token", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tokens"]
    mine = next(row for row in rows if row["user"] == "eve")
    assert main(["token", "revoke", mine["id"]]) == 0
    assert main(["token", "revoke", mine["id"]]) == 1
