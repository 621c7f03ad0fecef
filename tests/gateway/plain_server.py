"""Serves one of shop.py's apps without minimodal, to compare with: `python plain_server.py NAME SOCKET`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.gateway import shop

    name, fd = sys.argv[1], int(sys.argv[2])
    if name == "flask":
        from werkzeug.serving import make_server

        make_server("127.0.0.1", 0, shop.make_flask(), threaded=True, fd=fd).serve_forever()
    else:
        import uvicorn

        make = {"fast": shop.make_fastapi, "star": shop.make_starlette}[name]
        uvicorn.run(make(), fd=fd, log_level="error", server_header=False)
