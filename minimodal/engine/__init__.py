"""The engine: scheduler, pools, sessions, store."""
