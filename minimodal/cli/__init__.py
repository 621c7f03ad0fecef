"""The command line: `minimodal run script.py` and its siblings. The only room that prints."""
