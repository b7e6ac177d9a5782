"""Tasks: what is learned and measured. One folder each; `protocol.py` says what a task is."""
