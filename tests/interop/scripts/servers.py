import asyncio
import subprocess
import sys
import urllib.error
import urllib.request

import modal
import modal.experimental
import modal.io_streams
from modal.queue import Queue

app = modal.App("servers")


@app.server(port=18438, routing_region="us-east", unauthenticated=True, target_concurrency=1.5)
class Files:
    @modal.enter()
    def start(self):
        self.server = subprocess.Popen([sys.executable, "-m", "http.server", "18438"])

    @modal.exit()
    def stop(self):
        self.server.terminate()


@app.server(port=18440)
class Private:
    @modal.enter()
    async def start(self):
        raise AssertionError("nobody with a token has asked")


@app.cls()
@modal.experimental.http_server(port=18439, proxy_regions=["us-east"])
@modal.concurrent(target_inputs=10)
class Older:
    @modal.enter()
    async def start(self):
        command = [sys.executable, "-m", "http.server", "18439"]
        self.server = await asyncio.create_subprocess_exec(*command)

    @modal.exit()
    async def stop(self):
        self.server.terminate()
        await self.server.wait()


def lists(url):
    with urllib.request.urlopen(url + "/", timeout=30) as reply:
        return b"Directory listing" in reply.read()


def talk(writer: modal.io_streams.StreamWriter, line: str):
    writer.write(line)


@app.local_entrypoint()
def main():
    print("server", lists(Files.get_url()))
    print("older", lists(Older._experimental_get_flash_urls()[0]))
    try:
        lists(Private.get_url())
    except urllib.error.HTTPError as error:
        print("private", error.code)
    print("queue", Queue is modal.Queue)
