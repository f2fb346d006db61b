"""Distillation: the target answers training prompts; what it writes, and if wanted its law, teaches the drafter."""
