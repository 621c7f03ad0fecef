"""Secrets reach the function's environment and nothing else: no log, no image, no database in clear.

minimodal run examples/secrets_example.py
"""

import os

import minimodal

app = minimodal.App("secrets-example")
inline = minimodal.Secret.from_dict({"SERVICE_TOKEN": "tok-1234567890"})


@app.function(secrets=[inline])
def call_service() -> str:
    token = os.environ["SERVICE_TOKEN"]
    print(f"calling with {token}")  # what is printed is masked
    return f"a token of {len(token)} characters"


@app.local_entrypoint()
def main() -> None:
    print("the function saw", call_service.remote())
    print("here it is", os.environ.get("SERVICE_TOKEN", "not set"))
