"""Requests to endpoints of every kind, with a real client and real containers."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from minimodal.errors import InvalidError
from minimodal.gateway.tokens import TokenFile
from minimodal.home import open_home
from minimodal.host import Host
from tests.gateway import functions


def test_an_asgi_app_answers(everything: httpx.Client) -> None:
    response = everything.get("/")
    assert (response.status_code, response.text) == (200, "hello")
    assert "date" in response.headers


def test_the_app_sees_the_request_as_it_was_sent(everything: httpx.Client) -> None:
    response = everything.get("/scope?a=%20b&a=c", headers={"X-Forwarded-Proto": "https"})
    scope = response.json()
    headers = dict(scope["headers"])
    assert scope["query_string"] == "a=%20b&a=c"
    assert scope["root_path"] == "/everything"
    assert scope["state"] == {"word": "from the lifespan"}
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-prefix"] == "/everything"


def test_a_label_is_a_host_name_of_its_own(http: httpx.Client) -> None:
    port = http.base_url.port
    response = http.get("/scope", headers={"Host": f"everything.localhost:{port}"})
    assert response.json()["root_path"] == ""
    assert response.json()["path"] == "/scope"


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_a_body_comes_back(everything: httpx.Client, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    assert everything.post("/echo", content=body[:size]).content == body[:size]


def test_a_body_without_a_length(everything: httpx.Client) -> None:
    parts = (b"z" * 50_000 for _ in range(40))
    assert everything.post("/count", content=parts).text == "2000000"


@pytest.mark.parametrize("path", ["/flood", "/large"])
def test_a_large_response(everything: httpx.Client, path: str) -> None:
    assert len(everything.get(f"{path}?30000000").content) == 30_000_000


def test_both_directions_at_once(everything: httpx.Client) -> None:
    sent = []

    def parts():
        for n in range(5):
            sent.append(n)
            yield b"%d" % n
            time.sleep(0.05)

    with everything.stream("POST", "/duplex", content=parts()) as response:
        assert response.read() == b"01234"


def test_events_arrive_while_the_app_runs(everything: httpx.Client) -> None:
    started = time.monotonic()
    with everything.stream("GET", "/stream") as response:
        assert response.headers["content-type"] == "text/event-stream"
        lines = response.iter_lines()
        assert next(lines) == "data: 0"
        assert time.monotonic() - started < 5


def test_hop_by_hop_headers_end_here(everything: httpx.Client) -> None:
    response = everything.get("/hops")
    assert response.headers["x-shown"] == "1"
    assert not {"x-secret", "keep-alive", "connection"} & set(response.headers)


def test_what_runs_after_the_answer_is_not_cut_off(everything: httpx.Client) -> None:
    assert everything.get("/background").text == "answered"
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if "after the answer" in everything.get("/cancellations").json():
            return
        time.sleep(0.05)
    pytest.fail("the work after the answer did not end")


def test_a_websocket(base: str) -> None:
    url = base.replace("http", "ws") + "/everything/chat"
    with connect(url, subprotocols=["one", "two"]) as socket:
        assert socket.subprotocol == "one"
        socket.send("text")
        assert socket.recv() == "echo text"
        socket.send(b"\x00\xff" * 500_000)
        assert socket.recv() == b"echo " + b"\x00\xff" * 500_000
        socket.send("bye")
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert socket.close_code == 3001


def test_a_websocket_whose_app_fails(base: str) -> None:
    with connect(base.replace("http", "ws") + "/everything/chat") as socket:
        socket.send("raise")
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert socket.close_code == 1011


@pytest.mark.parametrize(("path", "status"), [("denied", 403), ("refused", 418)])
def test_a_websocket_that_is_not_accepted(base: str, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(base.replace("http", "ws") + f"/everything/{path}")
    assert caught.value.response.status_code == status


def test_a_wsgi_app(http: httpx.Client) -> None:
    response = http.post("/wsgi/a/b", content=b"body")
    assert (response.status_code, response.text) == (201, "POST body")
    assert response.headers["x-path"] == "/a/b"
    assert http.get("/wsgi/stream").text == "part 0\npart 1\npart 2\n"
    assert http.get("/wsgi/raises").status_code == 500


def test_path_query_and_body_become_arguments(http: httpx.Client) -> None:
    assert http.get("/api/users/3?verbose=yes").json() == {"user_id": 3, "verbose": True}
    made = http.post("/api/users", json={"name": "Ada", "age": 36})
    assert (made.status_code, made.json()) == (201, {"name": "Ada", "age": 36})
    whole = http.put("/web/api/request?a=1", content=b"text")
    assert whole.json() == {"method": "PUT", "body": "text", "query": {"a": "1"}}
    assert whole.headers["x-made-by"] == "minimodal"


def test_what_does_not_fit_the_parameters_is_named(http: httpx.Client) -> None:
    response = http.get("/api/users/x")
    assert response.status_code == 422
    assert response.json()["detail"][0]["name"] == "user_id"
    assert http.post("/api/users", json={}).status_code == 422


def test_a_path_with_another_method(http: httpx.Client) -> None:
    response = http.delete("/web/api/users")
    assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")
    assert http.options("/web/api/users").status_code == 204
    assert http.head("/web/api/users/3").status_code == 200


def test_a_class_keeps_its_state(http: httpx.Client) -> None:
    first = int(http.get("/counter/").text)
    assert int(http.get("/counter/").text) == first + 1
    assert functions.Counter().current.remote() == first + 1


def test_parameters_of_a_class_come_from_the_query(http: httpx.Client) -> None:
    first = http.get("/shelf/?kind=books&size=3&page=1").json()
    assert first[:3] == ["books", 3, True]
    assert first[4] == "kind=books&size=3&page=1", "the app sees the query as it was sent"
    again = http.get("/shelf/?size=3&kind=books&open=true").json()
    assert again[3] == first[3] + 1, "equal parameters are one object"
    assert http.get("/shelf/?kind=books&open=false").json()[:4] == ["books", 2, False, 1]
    assert functions.Shelf(kind="books", size=3).count.remote() == again[3]
    url = functions.Shelf(kind="b & c").web.get_web_url()
    assert url is not None
    assert http.get(url).json()[:3] == ["b & c", 2, True]


@pytest.mark.parametrize(
    ("query", "said"),
    [("", "kind"), ("?kind=a&size=x", "size"), ("?kind=a&open=perhaps", "true or false")],
)
def test_parameters_of_a_class_that_do_not_fit(http: httpx.Client, query: str, said: str) -> None:
    answer = http.get(f"/shelf/{query}")
    assert answer.status_code == 422
    assert said in answer.text


def test_objects_that_requests_make_are_bounded(
    http: httpx.Client, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minimodal.engine.web.MAX_OBJECTS", 2)
    before = set(host.engine.pools)
    seen = [http.get(f"/shelf/?kind=k{n}").status_code for n in range(4)]
    assert seen == [200] * 4, "an idle object makes room"
    assert len(set(host.engine.pools) - before) == 2


def test_a_server_behind_a_port(http: httpx.Client) -> None:
    assert "Directory listing" in http.get("/server/").text
    missing = http.get("/server/no-such-file")
    assert missing.status_code == 404


def test_a_browsers_page_has_an_origin_of_its_own(http: httpx.Client, base: str) -> None:
    """Else its scripts might use the platform, which asks nobody on loopback for a token."""
    navigates = {"sec-fetch-mode": "navigate"}
    answer = http.get("/everything/a/b?q=1", headers=navigates, follow_redirects=False)
    port = httpx.URL(base).port
    assert answer.status_code == 307
    assert answer.headers["location"] == f"http://everything.localhost:{port}/a/b?q=1"
    by_name = {**navigates, "host": f"everything.localhost:{port}"}
    assert http.get("/", headers=by_name, follow_redirects=False).status_code == 200
    assert http.get("/everything/", follow_redirects=False).status_code == 200


def test_what_is_nowhere(http: httpx.Client) -> None:
    response = http.get("/no-such-label/")
    assert response.status_code == 404
    assert "everything" in response.text


def test_an_endpoint_that_requires_a_token(http: httpx.Client) -> None:
    def status(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return http.get("/locked/", headers=headers).status_code

    tokens = TokenFile(open_home().config / "tokens.json")
    right, wrong = tokens.create("eve", ("web",)), tokens.create("eve", ("read",))
    refused = http.get("/locked/")
    assert refused.status_code == 401
    assert "Bearer" in refused.headers["www-authenticate"]
    assert not http.get("/api/v1/containers?function=locked").json()["containers"], "none starts"
    assert [status(right), status(wrong), status(right + "x")] == [200, 403, 401]
    secret = http.get("/locked/", headers={"Modal-Key": "eve", "Modal-Secret": right})
    assert secret.text == "hello"
    for token in (right, wrong):
        tokens.revoke(token.split("_")[1])
    assert status(right) == 401


def test_an_app_that_does_not_start_opens_the_breaker(http: httpx.Client) -> None:
    until = time.monotonic() + 30
    seen = []
    while time.monotonic() < until:
        answer = http.get("/broken/")
        seen.append(answer.status_code)
        if answer.status_code == 503:
            break
    assert set(seen) <= {500, 503}
    assert seen[-1] == 503, seen
    assert int(answer.headers["retry-after"]) >= 1
    assert "no disk" in answer.text, "the breaker says why"
    with pytest.raises(InvalidStatus) as caught:
        connect(str(http.base_url).replace("http", "ws") + "/broken/")
    assert caught.value.response.status_code == 503


def test_urls(base: str) -> None:
    url = functions.everything.get_web_url()
    assert url is not None
    assert "everything" in url
    assert functions.double.get_web_url() is None


def test_a_web_function_is_called_by_http_only() -> None:
    with pytest.raises(InvalidError, match="get_web_url"):
        functions.everything.remote()
    with pytest.raises(InvalidError, match="get_web_url"):
        functions.user.spawn(1)
    assert functions.user.local(1) == {"user_id": 1, "verbose": False}


def test_a_web_function_looked_up_by_name_says_so(base: str) -> None:
    import minimodal

    with pytest.raises(InvalidError, match="called by HTTP"):
        minimodal.Function.from_name("web", "everything").remote()


def test_json_of_the_routes(base: str) -> None:
    from minimodal import context
    from minimodal.face import block

    async def routes() -> dict[str, object]:
        return dict((await context.ask("web.routes")).fields)

    labels = {each["label"] for each in json.loads(json.dumps(block(routes())))["routes"]}
    assert {"everything", "web", "counter", "web-impatient"} <= labels
