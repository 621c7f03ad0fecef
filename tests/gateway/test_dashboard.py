"""The dashboard as people use it: in a real Chromium, with a mouse, a keyboard and no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import minimodal
from minimodal.config import load_config
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.gateway import browser as browsers
from tests.gateway import functions
from tests.gateway.browser import Browser

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(browsers.found() is None, reason="no chromium is installed here"),
]
PAGES = (
    "/", "/-/calls", "/-/workers", "/-/schedules", "/-/endpoints", "/-/images", "/-/storage",
    "/-/logs", "/-/settings",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(leaves_nothing: str) -> Iterator[str]:
    with Host(load_config({"backend": leaves_nothing, "port": 0})) as host, functions.app.run():
        yield host.door.url.rstrip("/")


# One backend is enough: what a page shows comes from the engine, and not from where containers run.
pytestmark.append(
    pytest.mark.parametrize("leaves_nothing", [BACKENDS[1]], indirect=True, scope="module")
)


@pytest.fixture(scope="module")
def browser(base: str) -> Iterator[Browser]:
    program = browsers.found()
    assert program is not None
    with browsers.opened(program) as browser:
        yield browser


def text(browser: Browser) -> str:
    found: str = browser.value("document.body.innerText")
    return found


def test_every_page_works_offline_and_says_nothing_in_the_console(
    browser: Browser, base: str
) -> None:
    functions.double.remote(2)
    volume = minimodal.Volume.from_name("shown", create_if_missing=True)
    with volume.batch_upload(force=True) as batch:
        batch.put_file(__file__, "/code/here.py")
    call = functions.double.spawn(4)
    call.get()
    key = httpx.get(f"{base}/api/v1/functions?function=double").json()["functions"][0]["key"]
    more = (
        f"/-/calls/{call.object_id}",
        f"/-/functions/{key.replace('/', '%2F')}",
        "/-/volumes/shown?path=/code",
    )
    for path in (*PAGES, *more):
        browser.go(base + path)
        browser.wait("document.querySelector('#link').textContent === 'live'")
        assert browser.value("document.querySelector('h1').textContent") != "Not found", path
        for width in (390, 1300):
            browser.look(width)
            wide = browser.value("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide on a screen of {width}"
    assert browser.problems == []
    assert {url.split("/")[2] for url in browser.asked} == {base.split("/")[2]}


def test_it_lives_without_a_reload(browser: Browser, base: str) -> None:
    browser.go(f"{base}/-/calls?function=everything")
    browser.wait("document.querySelector('#link').textContent === 'live'")
    before = browser.value("document.querySelectorAll('[data-section=calls] tbody tr').length")
    browser.value("window.stays = true")
    httpx.get(f"{base}/everything/")
    rows = "document.querySelectorAll('[data-section=calls] tbody tr').length"
    browser.wait(f"{rows} > {before}")
    assert browser.value("window.stays") is True


def test_the_retry_button_of_a_dead_letter(browser: Browser, base: str) -> None:
    call = functions.fails.spawn("once")
    with pytest.raises(ValueError, match="once"):
        call.get()
    browser.go(f"{base}/")
    url = f"/api/v1/dead-letters/{call.object_id}/retry"
    browser.click(f'[data-section=dead-letters] button[data-post="{url}"]')
    browser.wait(
        f"document.querySelector('[data-post=\"{url}\"]')?.textContent !== 'retry' || "
        f"document.querySelector('[data-post=\"{url}\"]') === null"
    )
    calls: list[dict[str, Any]] = httpx.get(f"{base}/api/v1/calls?function=fails").json()["calls"]
    assert call.object_id in {row["retry_of"] for row in calls}


def test_a_container_is_killed_after_a_second_press(browser: Browser, base: str) -> None:
    functions.double.remote(2)
    rows = httpx.get(f"{base}/api/v1/containers?function=double").json()["containers"]
    url = f"/api/v1/containers/{rows[0]['id']}/kill"
    browser.go(f"{base}/-/workers")
    browser.click(f'button[data-post="{url}"]')
    browser.wait(f"document.querySelector('[data-post=\"{url}\"]').textContent === 'sure?'")
    assert httpx.get(f"{base}/api/v1/containers?function=double").json()["containers"]
    browser.click(f'button[data-post="{url}"]')
    browser.wait(f"document.querySelector('[data-post=\"{url}\"]') === null")
    assert functions.double.remote(3) == 6


def test_everything_is_reached_by_the_keyboard(browser: Browser, base: str) -> None:
    browser.go(f"{base}/")
    seen: list[str] = []
    for _ in range(14):
        browser.press("Tab", 9)
        seen.append(browser.value("document.activeElement.textContent.trim().slice(0, 20)"))
    assert seen[0] == "Skip to content"
    assert {"Overview", "Calls", "Workers", "Settings"} <= set(seen)
    outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "what has the focus is seen"
    browser.value("document.querySelector('nav a[href=\"/-/calls\"]').focus()")
    browser.press("Enter", 13)
    browser.wait("location.pathname === '/-/calls'")


def test_the_log_is_searched_while_it_grows(browser: Browser, base: str) -> None:
    functions.talk.remote("needle one")
    browser.go(f"{base}/-/logs?function=talk")
    shown = "[...document.querySelectorAll('#log li:not([hidden])')].map((e) => e.textContent)"
    browser.wait(f"{shown}.some((line) => line.includes('needle one'))")
    browser.value(
        "(() => { const e = document.querySelector('#search'); e.value = 'needle two'; "
        "e.dispatchEvent(new Event('input')); })()"
    )
    assert browser.value(shown) == []
    functions.talk.remote("needle two")
    browser.wait(f"{shown}.length === 1")


def test_a_call_shows_what_it_was_given_and_what_it_gave(browser: Browser, base: str) -> None:
    call = functions.talk.spawn("hush, my-secret-word")
    assert call.get() == "HUSH, MY-SECRET-WORD"
    browser.go(f"{base}/-/calls/{call.object_id}")
    said = text(browser)
    assert "'HUSH, MY-SECRET-WORD'" in said
    assert "cold start" in said


def test_it_is_dark_where_the_system_is(browser: Browser, base: str) -> None:
    browser.go(f"{base}/")
    grounds = []
    for dark in (False, True):
        browser.look(1300, dark=dark)
        grounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    light, black = (sum(map(int, each[4:-1].split(","))) for each in grounds)
    assert light > 600 > 150 > black
    assert browser.problems == []


def test_the_saved_run_is_one_file(browser: Browser, base: str) -> None:
    answer = httpx.get(f"{base}/-/export")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "<script" not in answer.text
    assert 'src="' not in answer.text
    assert "<style>" in answer.text
    assert "double" in answer.text
