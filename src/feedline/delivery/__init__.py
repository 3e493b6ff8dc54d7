"""The last stage: batches as the training step wants them, on the host or on a device."""

from feedline.delivery.host import deliverer

__all__ = ["deliverer"]
