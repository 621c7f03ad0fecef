"""A FastAPI application in a container: a small API of notes, with a stream.

minimodal run examples/fastapi_app.py      # start it, ask it, stop it
minimodal serve examples/fastapi_app.py    # serve it, and again after each change
"""

import json
import urllib.request

import minimodal

image = minimodal.Image.debian_slim().uv_pip_install("fastapi")
app = minimodal.App("notes", image=image)
notes = minimodal.Dict.from_name("notes", create_if_missing=True)


@app.function()
def shout(text: str) -> str:
    """An endpoint may call functions, which run in containers of their own."""
    return text.upper()


@app.function(max_containers=2)
@minimodal.concurrent(max_inputs=100)
@minimodal.asgi_app(label="notes")
def api():
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel

    web = FastAPI(title="Notes")

    class Note(BaseModel):
        text: str
        loud: bool = False

    @web.put("/notes/{name}", status_code=201)
    async def write(name: str, note: Note) -> dict[str, str]:
        text = await shout.remote.aio(note.text) if note.loud else note.text
        await notes.put.aio(name, text)
        return {"name": name, "text": text}

    @web.get("/notes/{name}")
    async def read(name: str) -> dict[str, str]:
        text = await notes.get.aio(name)
        if text is None:
            raise HTTPException(404, f"there is no note {name!r}")
        return {"name": name, "text": text}

    @web.get("/count/{n}")
    async def count(n: int) -> StreamingResponse:
        return StreamingResponse((f"{i}\n" for i in range(n)), media_type="text/plain")

    return web


def ask(method: str, url: str, body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return f"{response.status} {response.read().decode().strip()}"


@app.local_entrypoint()
def main() -> None:
    url = api.get_web_url()
    print(ask("PUT", f"{url}/notes/tea", {"text": "at five", "loud": True}))
    print(ask("GET", f"{url}/notes/tea"))
    print(ask("GET", f"{url}/count/3").split())
    print("its documentation is at /docs:", "200" in ask("GET", f"{url}/docs")[:3])
    notes.clear()
