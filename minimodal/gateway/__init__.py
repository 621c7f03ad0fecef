"""The HTTP side: user endpoints, the platform's API, metrics and the dashboard, on one port.

It sees the engine through `ask` and the two Protocols of seam.py, never the engine's own objects.
"""
