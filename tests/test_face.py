"""Blocking calls of processes that fork."""

from __future__ import annotations

import subprocess
import sys

FORKS = """
import os, threading
from minimodal.face import client_threads

begun, done = threading.Event(), threading.Event()

def reads_answers():
    client_threads.add(threading.get_ident())
    begun.set()
    done.wait()

threading.Thread(target=reads_answers, daemon=True).start()
begun.wait()
if os.fork():
    print(os.waitstatus_to_exitcode(os.wait()[1]), len(client_threads), flush=True)
    os._exit(0)

wrong = []
def works():  # the first thread of a child gets the number of one that its parent had
    if threading.get_ident() in client_threads:
        wrong.append(1)

threads = [threading.Thread(target=works) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os._exit(len(wrong))
"""


def test_threads_of_a_forked_process_may_block() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["0", "1"], "the parent still knows its own"
