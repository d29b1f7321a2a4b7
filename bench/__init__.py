"""Speeds against other tools, on this machine: `python -m bench` prints one table. A file for each kind of work."""
