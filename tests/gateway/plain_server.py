"""Serves one of shop.py's apps without minimodal, to compare with: `python plain_server.py NAME PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.gateway import shop

    name, port = sys.argv[1], int(sys.argv[2])
    if name == "flask":
        from werkzeug.serving import run_simple

        run_simple("127.0.0.1", port, shop.make_flask(), threaded=True)
    else:
        import uvicorn

        make = {"fast": shop.make_fastapi, "star": shop.make_starlette}[name]
        uvicorn.run(make(), host="127.0.0.1", port=port, log_level="error", server_header=False)
