"""The web gateway: Starlette routes over a Client."""
