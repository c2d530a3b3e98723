"""The command line, the embedded broker and the one-shot `run`."""
