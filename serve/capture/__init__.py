"""Keeping served prompts to train on: off unless configured, redacted, and never in a request's way."""
