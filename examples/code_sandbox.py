"""Run code that nobody has read, in sandboxes with limits: no network, little memory, little time.

minimodal run examples/code_sandbox.py
"""

from __future__ import annotations

import minimodal

app = minimodal.App("code-sandbox")

SNIPPETS = {
    "sum": "print(sum(range(10)))",
    "error": "print(1 / 0)",
    "endless": "while True: pass",
    "greedy": "held = 'x' * (1 << 30)\nprint('took a gigabyte')",
    "online": "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=5)",
}


def judge(box: minimodal.Sandbox, code: str) -> str:
    """What one piece of code said, in a line."""
    process = box.exec("python3", "-c", code, timeout=2, stdout=minimodal.StreamType.PIPE)
    said = process.stdout.read().strip()
    complaint = process.stderr.read().strip().splitlines()
    match process.wait():
        case 0:
            return said
        case -1:
            return "stopped: it took more than 2 seconds"
        case 137:
            return "stopped: it wanted more memory than it may have"
        case code_:
            return f"failed ({code_}): {complaint[-1] if complaint else 'without a word'}"


@app.local_entrypoint()
def main(network: bool = False) -> None:
    box = minimodal.Sandbox.create(
        app=app, timeout=60, memory=(64, 128), cpu=0.5, block_network=not network
    )
    for name, code in SNIPPETS.items():
        if network and name == "online":
            continue
        print(f"{name:<8} {judge(box, code)}")
    box.terminate()
