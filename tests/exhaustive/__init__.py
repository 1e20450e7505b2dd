"""The checks that take longer than a test run: seeded, resumable, with recorded results."""
