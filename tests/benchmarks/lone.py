"""A file that imports nothing else: its cold start is the platform's own, as `true` is Docker's."""

import minimodal

app = minimodal.App("bench-plain")


@app.function()
def nothing() -> None:
    pass
