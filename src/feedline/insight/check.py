"""``feedline.check``: what would fail, and what would train badly, before anything starts.

Guarantee: no process or thread is started; nothing is raised for what is found; global generators, those that the
user's objects hold, and the loader are after it as they were before it. At most 20 samples are read.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.datasets.shuffled import unshuffled
from feedline.engine.choice import chosen_backend, usable_cpus
from feedline.errors import CannotShip
from feedline.generators import GlobalGenerators
from feedline.insight.findings import Finding, Report
from feedline.insight.held import held_generators, kept
from feedline.insight.labels import come_in_blocks, kept_labels, label_of, spread_indices
from feedline.order.batched import BatchOrder
from feedline.protocols import length_of
from feedline.seeding import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedline.order.plan import Geometry
    from feedline.order.sequence import Order

__all__ = ["check"]

_FIRST_SAMPLES = 4  # read and collated: most mistakes show in the first two
_LABEL_PAIRS = 8  # neighbouring samples read for their labels, where the dataset keeps none
_COMPARED = 64  # positions of two epochs: a random order of more than one sample would hardly agree in so many
_EVALUATION = frozenset({"test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev"})
_TRAINING = frozenset({"train", "training"})
_PARTS = ("dataset", "collate_fn", "batch_transform", "worker_init_fn")


def check(loader: Any) -> Report:
    """What would fail, or train badly, with this loader; nothing of it is raised, and no worker is started.

    Found are, as errors: an empty dataset, no batch at all, samples that cannot be read or collated, and whatever
    cannot be sent to worker processes, by the path of its attribute. As warnings: classes that come one after the
    other, one batch an epoch, a shuffled validation set, a last batch of one sample, generators that user objects hold
    (all workers would draw the same numbers), more workers than CPUs, and ``fork`` beside live threads.

    At most 20 samples are read, in this process: the first 4, and 16 for their labels where the dataset keeps none as
    ``targets`` or ``labels``. Streams that can be read only once, and datasets under a sampler whose order is known to
    itself alone, are not read.

    Args:
        loader: a `DataLoader`.

    Raises:
        TypeError: it is none.

    Example:
        >>> import numpy as np, feedline
        >>> data = feedline.TensorDataset(np.zeros((100, 2)), np.repeat([0, 1], 50))
        >>> print(feedline.check(feedline.DataLoader(data, batch_size=10)))
        0 errors, 1 warning (4 samples were read)
        warning  dataset: the labels come in blocks, one class after the other: batches hold few classes
                 Remedy: shuffle=True; a loader for evaluation may stay as it is
    """
    if not hasattr(loader, "_geometry"):
        raise TypeError(f"check takes a DataLoader, got {type(loader).__name__}; build one over the dataset")
    plan = _Plan.of(loader)
    generators = held_generators({name: getattr(loader, name) for name in _PARTS})
    with kept([generator for _, generator in generators]), GlobalGenerators() as shared, Scope().begin(0, 0):
        shared.seed(0)
        sending: list[Finding] = []
        copy = _sent(plan, sending)
        reading = _Reading(plan if copy is None else replace(plan, dataset=copy))
        findings = [
            *_of_size(plan),
            *reading.findings(),
            *_of_workers(plan),
            *sending,
            *_of_order(plan, reading),
            *(_of_generator(path, generator, plan.backend) for path, generator in generators),
        ]
    findings.sort(key=lambda finding: finding.severity != "error")
    return Report(tuple(findings), reading.count)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of a loader without reading a sample.

    Attributes:
        loader: the loader.
        dataset: its dataset.
        geometry: how its epochs are cut.
        size: how many samples a batch holds; the first one, where batches differ.
        iterable: whether its dataset is a stream.
        batched: whether batches are made at all.
        order: the first epoch's order; None where only a user's sampler, or a stream, knows it.
        next_order: the second epoch's, with the same seed.
        length: of the epoch's order; None where it is not known, or endless.
        evaluation: what tells that the dataset is one to evaluate on; None where nothing does.
    """

    loader: Any
    dataset: Any
    geometry: Geometry
    size: int
    iterable: bool
    batched: bool
    order: Order | None
    next_order: Order | None
    length: int | None
    evaluation: str | None

    @classmethod
    def of(cls, loader: Any) -> _Plan:
        """The loader's plan; a seed that was not drawn yet is not drawn now."""
        own = vars(loader)
        source, seed = own["_source"], loader.seed or 0
        order = next_order = length = None
        size = own["_geometry"].batch_size
        with suppress(Exception):  # len(dataset) may raise anything, and will again when an epoch begins
            order, next_order = source.order(seed, 0), source.order(seed, 1)
            if isinstance(order, BatchOrder):
                size, order, next_order = len(order.batch(0)), order.samples, next_order.samples
            length = None if order is None else order.length
        return cls(
            loader=loader,
            dataset=loader.dataset,
            geometry=own["_geometry"],
            size=size,
            iterable=own["_iterable"],
            batched=own["_batched"],
            order=order,
            next_order=next_order,
            length=length,
            evaluation=_evaluation(loader.dataset),
        )

    @property
    def batches(self) -> int | None:
        """How many batches an epoch has on this rank."""
        return None if self.length is None else length_of(self.loader)

    @property
    def backend(self) -> str:
        """Where batches would be made: ``"serial"``, ``"thread"`` or ``"process"``."""
        loader = self.loader
        workers = usable_cpus() if isinstance(loader.num_workers, str) else loader.num_workers
        functions = [loader.collate_fn, loader.batch_transform, loader.worker_init_fn]
        return chosen_backend(loader.backend, workers, self.dataset, functions)

    @property
    def start_method(self) -> str:
        """How worker processes would start."""
        context = self.loader.multiprocessing_context
        if context is not None:
            return str(context.get_start_method())
        return "forkserver" if sys.platform == "linux" else "spawn"


def _evaluation(dataset: Any) -> str | None:
    """What tells that a dataset, or one that it reads, is for evaluation; None if nothing does."""
    for _ in range(10):  # datasets around datasets
        if dataset is None:
            return None
        with suppress(Exception):  # attributes of these names may be anything
            train = getattr(dataset, "train", None)
            if isinstance(train, bool):
                return None if train else "train=False"
            for name in ("split", "mode", "partition", "phase", "stage", "subset"):
                value = getattr(dataset, name, None)
                if isinstance(value, str) and value.lower() in _EVALUATION | _TRAINING:
                    return None if value.lower() in _TRAINING else f"{name}={value!r}"
            for name in ("root", "folder", "path", "paths"):
                value = getattr(dataset, name, None)
                part = _telling_part(value[0] if name == "paths" and value else value)
                if part is not None:
                    return None if part.lower() in _TRAINING else f"the folder {part!r} in its path"
        dataset = getattr(dataset, "dataset", None)
    return None


def _telling_part(path: Any) -> str | None:
    """The innermost folder of a path that names a part of the data."""
    if not isinstance(path, str | os.PathLike):
        return None
    parts = reversed(PurePath(os.fspath(path)).parts)
    return next((part for part in parts if part.lower() in _EVALUATION | _TRAINING), None)


# --------------------------------------------------------------------------------------------------- what would fail


def _of_size(plan: _Plan) -> Iterator[Finding]:
    length, size = plan.length, plan.geometry.batch_size
    if length == 0:
        remedy = "look at what the dataset is made from: a path, a filter, a split"
        yield Finding("error", "dataset", "it is empty: an epoch has no batch", remedy)
    elif length is not None and plan.batches == 0:
        message = f"no batch at all: an epoch's {length} samples make no full batch, and drop_last leaves it out"
        if plan.geometry.shard.world_size > 1:
            message += f" (divided by {plan.geometry.shard.world_size} ranks)"
        yield Finding("error", "batch_size", message, f"drop_last=False, or a batch_size below {size}")


class _Reading:
    """Reads samples, and remembers what went wrong."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._is_labelled = False
        self.count = 0

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the first samples, and with the batch that is made of them."""
        plan = self._plan
        samples: list[Any] = []
        try:
            samples.extend(self._first())
        except Exception as error:  # noqa: BLE001 -- the user's code may raise anything
            tolerated = plan.loader.on_error.action != "raise"
            yield Finding(
                "warning" if tolerated else "error",
                self._next_place(len(samples)),
                f"reading it raises {_described(error)}",
                "the policy of on_error applies"
                if tolerated
                else "mend it, or pass over such samples: on_error='skip'",
            )
        if samples:
            self._is_labelled = label_of(samples[0]) is not None
            yield from self._of_collate(samples)

    def _first(self) -> Iterator[Any]:
        plan = self._plan
        if plan.iterable:
            dataset = unshuffled(plan.dataset)
            stream = iter(dataset)
            if stream is dataset:  # what is read from it would be missing from the epoch
                return
            for sample in islice(stream, _FIRST_SAMPLES):
                self.count += 1
                yield sample
        elif plan.order is not None:
            for index in self._first_indices():
                yield self.read(index)

    def _first_indices(self) -> list[int]:
        plan = self._plan
        assert plan.order is not None
        stop = _FIRST_SAMPLES if plan.length is None else min(_FIRST_SAMPLES, plan.length)
        indices: list[int] = plan.order.take(0, stop).tolist()
        return indices

    def _next_place(self, done: int) -> str:
        """What was being read when ``done`` samples had been."""
        if self._plan.iterable:
            return f"sample {done} of the stream"
        with suppress(Exception):
            return f"dataset[{self._first_indices()[done]}]"
        return "dataset"

    def read(self, index: int) -> Any:
        """A sample; raises what the dataset raises."""
        self.count += 1
        return self._plan.dataset[index]

    def _of_collate(self, samples: list[Any]) -> Iterator[Finding]:
        plan = self._plan
        size = plan.size
        try:
            plan.loader.collate_fn(samples[:size] if plan.batched else samples[0])
        except Exception as error:  # noqa: BLE001 -- as above
            count = min(len(samples), size) if plan.batched else 1
            yield Finding(
                "error",
                "collate_fn",
                f"of the first {count} samples it raises {_described(error)}",
                "make the samples alike (transforms.Resize, RandomCrop), or collate_fn=pad_collate, detection_collate "
                "or one of your own",
            )

    def labels(self) -> list[Any]:
        """Labels at places spread over the epoch, read from samples; none where samples hold none."""
        plan = self._plan
        found: list[Any] = []
        if not self._is_labelled or plan.order is None or plan.length is None or plan.length < 2 * _LABEL_PAIRS:
            return []
        with suppress(Exception):  # what cannot be read was found among the first samples, or will be met in training
            indices = spread_indices(plan.order, plan.length, _LABEL_PAIRS).tolist()
            found.extend(label_of(self.read(index)) for index in indices)
        return found


def _of_workers(plan: _Plan) -> Iterator[Finding]:
    workers = plan.loader.num_workers
    cpus = usable_cpus()
    if isinstance(workers, int) and workers > cpus:
        message = f"{workers} workers share the {cpus} CPUs that this process may use, and compete with each other"
        yield Finding("warning", "num_workers", message, f"at most {cpus}, or num_workers='auto'")
    others = threading.active_count() - 1
    if plan.backend == "process" and plan.start_method == "fork" and others:
        running = "another thread runs" if others == 1 else f"{others} other threads run"
        message = f"fork copies this process while {running}: a lock that one holds stays locked"
        remedy = "leave multiprocessing_context out, or build the loader before the threads start"
        yield Finding("warning", "multiprocessing_context", message, remedy)


def _sent(plan: _Plan, findings: list[Finding]) -> Any:
    """Find what cannot be sent to worker processes, or only to forks of this one.

    Returns:
        The dataset as a worker has it, so that what it opens at first use is not left open in the user's; None where
        samples are read from the user's own, or it cannot be sent.
    """
    if plan.backend != "process":
        return None
    from feedline.engine.processes.shipping import ship  # 20 ms that others are spared

    copy = None
    for name in _PARTS:
        part = getattr(plan.loader, name)
        if part is None:
            continue
        try:
            shipment = ship(part, name=name, forked=plan.start_method == "fork")
        except CannotShip as error:
            message = f"it cannot be sent to a worker process: {error.reason}"
            findings.append(Finding("error", error.path, message, error.remedy))
        except OSError as error:
            message = f"there is no shared memory to send it to worker processes in: {_described(error)}"
            findings.append(Finding("error", name, message, "a smaller dataset, a memory map, or backend='thread'"))
        else:
            if shipment.needs_fork is not None:
                message = "it is a multiprocessing lock that only forks can share: workers will be forked"
                remedy = "make it by multiprocessing.get_context('forkserver'), or 'spawn'"
                findings.append(Finding("warning", shipment.needs_fork, message, remedy))
            elif name == "dataset" and not shipment.descriptors:
                with suppress(Exception):  # it raises where it is unpacked: in each worker, which then says so
                    copy = shipment.received()
            shipment.close()
    return copy


# --------------------------------------------------------------------------------------------- what would train badly


def _of_order(plan: _Plan, reading: _Reading) -> Iterator[Finding]:
    if plan.order is None or plan.length is None or not plan.length:
        return
    yield from _of_shuffling(plan)
    if plan.evaluation is not None or not plan.batched:
        return
    size, drop_last = plan.geometry.batch_size, plan.geometry.drop_last
    if plan.batches == 1 and 1 < plan.length <= size * plan.geometry.shard.world_size:
        message = f"one batch an epoch: it holds all {plan.length} samples"
        yield Finding("warning", "batch_size", message, "a smaller batch_size, unless that is meant")
    elif plan.length % (size * plan.geometry.shard.world_size) == 1 and size > 1 and not drop_last:
        message = "the last batch holds one sample: batch normalisation has no variance there"
        yield Finding("warning", "batch_size", message, "drop_last=True, or another batch_size")
    labels = kept_labels(plan.dataset, plan.order, plan.length)
    with suppress(Exception):  # labels that cannot be compared
        if come_in_blocks(reading.labels() if labels is None else labels):
            message = "the labels come in blocks, one class after the other: batches hold few classes"
            yield Finding("warning", "dataset", message, "shuffle=True; a loader for evaluation may stay as it is")


def _of_shuffling(plan: _Plan) -> Iterator[Finding]:
    if plan.evaluation is None or plan.order is None or plan.next_order is None or plan.length is None:
        return
    stop = min(plan.length, _COMPARED)
    if not np.array_equal(plan.order.take(0, stop), plan.next_order.take(0, stop)):
        message = f"a dataset for evaluation ({plan.evaluation}) is shuffled: each run sees it in another order"
        yield Finding("warning", "shuffle", message, "shuffle=False, so that results and examples can be compared")


def _of_generator(path: str, generator: Any, backend: str) -> Finding:
    kind = f"{type(generator).__module__.split('._')[0]}.{type(generator).__name__}"
    consequence = {
        "process": "each worker has a copy, and all draw the same numbers",
        "thread": "which sample gets which numbers depends on the workers' pace",
        "serial": "worker processes would all draw the same numbers, and a resumed run draws others",
    }[backend]
    remedy = "feedline.rng(), which gives each sample numbers of its own"
    return Finding("warning", path, f"it is a {kind}: {consequence}", remedy)


def _described(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
