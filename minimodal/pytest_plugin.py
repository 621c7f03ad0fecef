"""The pytest11 entry point. Importing it must stay free of asyncio; the fixtures are still to come."""
