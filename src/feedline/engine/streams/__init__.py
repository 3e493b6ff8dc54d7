"""Streams: how their items are read, handed on, merged and finished, in one place or by many workers."""
