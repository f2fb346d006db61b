"""Batched model execution, for verifier, drafter, distillation and evaluation alike."""
