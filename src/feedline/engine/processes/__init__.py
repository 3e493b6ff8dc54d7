"""Worker processes: how they start, what they are sent, where their batches lie, and how the parent leads them."""
