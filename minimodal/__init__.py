"""minimodal: a serverless platform for Python in one asyncio process."""

__version__ = "0.1.0"
