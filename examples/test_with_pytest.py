"""Testing functions with the fixtures that minimodal brings: no server, no account, no settings.

pytest examples/test_with_pytest.py

The functions live in a module of their own (here hello.py): a container imports that module, and has
no pytest.
"""

import asyncio

import pytest
from hello import app, square

from minimodal import testing


@pytest.fixture
def running(minimodal_app):
    """The app runs on a platform of this test's own, which is gone when the test ends."""
    return minimodal_app(app)


def test_a_call(running):
    assert square.remote(7) == 49


def test_many_calls(running):
    assert list(square.map(range(5))) == [0, 1, 4, 9, 16]


def test_in_a_loop(running):
    assert asyncio.run(square.remote.aio(3)) == 9


def test_what_it_prints(running, minimodal_logs):
    square.remote(12)
    minimodal_logs.wait_for("squaring 12")


def test_a_container_that_dies(running):
    testing.kill_container(square)  # under the next call
    assert square.remote(4) == 16  # which is run again in another container


def test_an_error(running):
    testing.fail_next(square, ConnectionError("the network is down"))
    with pytest.raises(ConnectionError, match="network is down"):
        square.remote(4)
