import json
import subprocess
import urllib.request

import modal

app = modal.App("web")


@app.function(min_containers=0)
@modal.concurrent(max_inputs=10)
@modal.asgi_app(label="interop-asgi")
def asgi():
    async def web_app(scope, receive, send):
        if scope["type"] == "http":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = json.dumps({"path": scope["path"][-4:], "q": scope["query_string"].decode()})
            await send({"type": "http.response.body", "body": body.encode()})

    return web_app


@app.function()
@modal.wsgi_app()
def wsgi():
    def web_app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"wsgi ", environ["PATH_INFO"].encode()]

    return web_app


@app.function()
@modal.web_server(port=18437, startup_timeout=20)
def server():
    subprocess.Popen("python3 -m http.server 18437 --bind 127.0.0.1", shell=True)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as r:
        return r.read()


@app.local_entrypoint()
def main():
    print("asgi", json.loads(get(asgi.get_web_url() + "/a/b?c=1")))
    print("wsgi", get(wsgi.get_web_url() + "/x"))
    print("server", b"Directory listing" in get(server.get_web_url()))
    try:
        asgi.remote()
    except modal.exception.InvalidError as e:
        print("refused", "web" in str(e))
