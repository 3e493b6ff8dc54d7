"""Readers of files, and their way here: each says what it expected and where when a file does not hold it."""
