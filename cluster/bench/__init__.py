"""Benchmarks: a table for people, JSON with provenance as the last line of standard output."""
