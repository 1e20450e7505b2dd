"""What the harness runs in processes of its own; bench/workers/protocol.py says how they talk."""
