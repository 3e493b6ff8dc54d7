"""How batches are made: task, window, pipeline and the executors."""

from feedline.engine.policy import ErrorPolicy, FailedSample
from feedline.engine.worker import WorkerInfo, get_worker_info

__all__ = ["ErrorPolicy", "FailedSample", "WorkerInfo", "get_worker_info"]
