"""Feedline beside its alternatives: ``python -m benchmarks NAME``. What is measured, and why it is fair: README.md."""
