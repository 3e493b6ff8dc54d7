"""Threads that make batches: the pool, its crew, and batches made in parts."""
