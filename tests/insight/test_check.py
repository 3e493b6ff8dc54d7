from __future__ import annotations

import multiprocessing
import random
import re
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import feedline
from feedline import DataLoader, check
from feedline.datasets import ImageFiles, ImageFolder


class Made(feedline.Dataset):
    """Samples made by a function of the index."""

    def __init__(self, length, make=lambda index: (np.zeros(3), index % 2), **attributes):
        self.length, self.make, self.read = length, make, []
        vars(self).update(attributes)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.read.append(index)
        return self.make(index)


def subjects(report):
    return [(finding.severity, finding.subject) for finding in report]


def only(report):
    (finding,) = report
    return finding


def raises(error):
    raise error


def test_a_good_loader_has_no_finding():
    for backend in ("thread", "serial"):
        report = check(DataLoader(Made(100), 10, shuffle=True, num_workers=1, backend=backend))
        assert report
        assert len(report) == 0, report


def test_it_takes_a_loader():
    with pytest.raises(TypeError, match=r"^check takes a DataLoader, got list; build one over the dataset$"):
        check([1, 2])


# ---------------------------------------------------------------------------------------------------- what would fail


@pytest.mark.parametrize("dataset", [[], Made(0), feedline.TensorDataset(np.zeros((0, 2)))])
def test_an_empty_dataset(dataset):
    report = check(DataLoader(dataset, 4))
    assert subjects(report) == [("error", "dataset")]
    assert "an epoch has no batch" in only(report).message
    assert not report


def test_no_batch_at_all():
    finding = only(check(DataLoader(Made(5), 8, drop_last=True)))
    assert (finding.severity, finding.subject) == ("error", "batch_size")
    assert "no batch at all: an epoch's 5 samples make no full batch" in finding.message
    assert "a batch_size below 8" in finding.remedy
    finding = only(check(DataLoader(Made(9), 8, drop_last=True, shard=(0, 2))))
    assert "divided by 2 ranks" in finding.message


def test_a_sample_that_cannot_be_read_is_named():
    dataset = Made(100, lambda index: raises(KeyError("pixels")) if index == 2 else (np.zeros(3), index % 2))
    finding = only(check(DataLoader(dataset, 10)))
    assert (finding.severity, finding.subject) == ("error", "dataset[2]")
    assert finding.message == "reading it raises KeyError: 'pixels'"
    tolerated = check(DataLoader(dataset, 10, on_error="skip"))
    assert subjects(tolerated) == [("warning", "dataset[2]")]
    assert tolerated


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda index: np.zeros(index + 1), r"shapes \(1,\) at index 0 and \(2,\) at index 1"),
        (lambda index: None if index == 1 else np.zeros(3), "None"),
        (lambda index: {"a": 1} if index else {"b": 1}, "CollateError"),
    ],
)
def test_samples_that_do_not_collate(make, message):
    finding = only(check(DataLoader(Made(100, make), 10)))
    assert (finding.severity, finding.subject) == ("error", "collate_fn")
    assert finding.message.startswith("of the first 4 samples it raises ")
    assert re.search(message, finding.message)


def test_the_users_collate_gets_no_more_than_a_batch():
    seen = []
    check(DataLoader(Made(100), 3, collate_fn=seen.append))
    assert [len(batch) for batch in seen] == [3]
    check(DataLoader(Made(100), None, collate_fn=seen.append))
    assert type(seen[-1]) is tuple
    finding = only(check(DataLoader(Made(100), 3, collate_fn=lambda batch: raises(ValueError()), drop_last=True)))
    assert finding.message == "of the first 3 samples it raises ValueError"


class Stream(feedline.IterableDataset):
    def __init__(self, samples, fails=False):
        self.samples, self.fails = samples, fails

    def __iter__(self):
        yield from self.samples
        if self.fails:
            raise OSError("the line is cut")


def test_a_stream_is_read_from_its_beginning():
    stream = Stream([np.zeros(1), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2)])
    report = check(DataLoader(stream, 2))
    assert subjects(report) == [("error", "collate_fn")]
    assert report.samples_read == 4
    cut = check(DataLoader(Stream([1, 2], fails=True), 2))
    assert subjects(cut) == [("error", "sample 2 of the stream")]
    assert "OSError: the line is cut" in only(cut).message


def test_a_stream_that_can_be_read_once_is_not_read():
    once = iter([1, 2, 3])
    loader = DataLoader(once, 2)
    assert check(loader).samples_read == 0
    assert [batch.tolist() for batch in loader] == [[1, 2], [3]]


def test_what_only_a_users_sampler_knows_is_not_read():
    dataset = {"a": 1, "b": 2}
    assert check(DataLoader(dataset, 2, sampler=iter(["a", "b"]))).samples_read == 0
    assert check(DataLoader(dataset, batch_sampler=[["a"], ["b"]])).samples_read == 0


def test_more_workers_than_cpus():
    with pytest.warns(UserWarning, match="excessive"):
        loader = DataLoader(Made(100), 10, num_workers=5000, backend="thread")
    finding = only(check(loader))
    assert (finding.severity, finding.subject) == ("warning", "num_workers")
    assert finding.message.startswith("5000 workers share the ")


@pytest.mark.parametrize(
    ("part", "subject"),
    [
        (lambda lock: {"dataset": Made(100, lock=lock)}, "dataset.lock"),
        (lambda lock: {"dataset": Made(100, lambda index: (lock, index)[1])}, "dataset.make"),
        (lambda lock: {"collate_fn": lambda batch: (lock, batch)[1]}, "collate_fn"),
        (lambda lock: {"batch_transform": lambda batch: (lock, batch)[1]}, "batch_transform"),
        (lambda lock: {"worker_init_fn": lambda number: lock}, "worker_init_fn"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_attribute(part, subject):
    options = {"dataset": Made(100), "num_workers": 1, "backend": "process"} | part(threading.Lock())
    finding = only(check(DataLoader(batch_size=10, **options)))
    assert finding.severity == "error"
    assert finding.subject.startswith(subject)
    assert finding.message.startswith("it cannot be sent to a worker process: ")
    assert "lock" in finding.message
    assert "backend='thread'" in finding.remedy


def test_what_is_sent_is_closed_again():
    """Which the descriptors that the test leaves tell."""
    dataset = feedline.TensorDataset(np.zeros((1000, 100)), np.arange(1000) % 2)
    assert len(check(DataLoader(dataset, 10, num_workers=1, backend="process", worker_init_fn=print))) == 0


def test_a_lock_that_only_forks_share():
    dataset = Made(100, lock=multiprocessing.get_context("fork").Lock())
    loader = DataLoader(dataset, 10, num_workers=1, backend="process", multiprocessing_context="spawn")
    finding = only(check(loader))
    assert (finding.severity, finding.subject) == ("warning", "dataset.lock")
    assert "workers will be forked" in finding.message
    forking = DataLoader(dataset, 10, num_workers=1, backend="process", multiprocessing_context="fork")
    assert len(check(forking)) == 0


def test_no_shared_memory_to_send_it_in():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    dataset = feedline.TensorDataset(np.zeros((1000, 100)), np.arange(1000) % 2)
    loader = DataLoader(dataset, 10, num_workers=1, backend="process")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # of a memfd, too
    try:
        report = check(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert subjects(report) == [("error", "dataset")]
    assert "there is no shared memory" in only(report).message


def test_what_threads_share_is_not_sent():
    dataset = Made(100, lock=threading.Lock(), thread_safe=True, uses_global_rng=False)
    for options in ({"backend": "auto"}, {"backend": "thread"}, {"collate_fn": feedline.pad_collate}):
        assert len(check(DataLoader(dataset, 10, num_workers=1, **options))) == 0
    assert len(check(DataLoader(dataset, 10))) == 0
    for options in ({"worker_init_fn": print}, {"collate_fn": len}, {"batch_transform": len}):
        found = subjects(check(DataLoader(dataset, 10, num_workers=1, **options)))
        assert found == [("error", "dataset.lock")], "threads are chosen where all may be shared by them"


def test_fork_beside_a_live_thread():
    loader = DataLoader(Made(100), 10, num_workers=1, backend="process", multiprocessing_context="fork")
    assert len(check(loader)) == 0
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        finding = only(check(loader))
        assert (finding.severity, finding.subject) == ("warning", "multiprocessing_context")
        assert "while another thread runs" in finding.message
        spawned = DataLoader(Made(100), 10, num_workers=1, backend="process", multiprocessing_context="spawn")
        assert len(check(spawned)) == 0
    finally:
        stop.set()
        thread.join()


# ---------------------------------------------------------------------------------------------- what would train badly

SORTED = np.repeat([0, 1, 2], 30)


@pytest.mark.parametrize(
    "dataset",
    [
        feedline.TensorDataset(np.zeros((90, 2)), SORTED),
        Made(90, targets=SORTED.tolist()),
        Made(90, lambda index: (np.zeros(2), index // 30)),
        Made(90, lambda index: {"image": np.zeros(2), "label": torch.tensor(index // 30)}),
        feedline.Subset(feedline.TensorDataset(np.zeros((90, 2)), SORTED), range(60)),
    ],
)
def test_labels_in_blocks_that_are_not_shuffled(dataset):
    finding = only(check(DataLoader(dataset, 10)))
    assert (finding.severity, finding.subject) == ("warning", "dataset")
    assert finding.message.startswith("the labels come in blocks")
    assert finding.remedy.startswith("shuffle=True")
    shuffled = check(DataLoader(dataset, 10, shuffle=True))
    assert len(shuffled) == 0
    assert shuffled.samples_read <= 20
    assert len(check(DataLoader(dataset, 10, sampler=np.random.default_rng(0).permutation(60)))) == 0
    assert len(check(DataLoader(dataset, 10, sampler=range(60)))) == 1


def test_one_batch_an_epoch():
    finding = only(check(DataLoader(Made(90), 90)))
    assert (finding.severity, finding.subject) == ("warning", "batch_size")
    assert finding.message == "one batch an epoch: it holds all 90 samples"
    assert len(check(DataLoader(Made(90, split="test"), 100))) == 0
    assert len(check(DataLoader(Made(90), None))) == 0


def test_a_last_batch_of_one_sample():
    finding = only(check(DataLoader(Made(91), 10)))
    assert (finding.severity, finding.subject) == ("warning", "batch_size")
    assert "the last batch holds one sample" in finding.message
    for quiet in (
        DataLoader(Made(91), 10, drop_last=True),
        DataLoader(Made(91), 1),
        DataLoader(Made(91, train=False), 10),
    ):
        assert len(check(quiet)) == 0


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (Made(90, train=False), "train=False"),
        (Made(90, split="Valid"), "split='Valid'"),
        (Made(90, root="data/val"), "the folder 'val' in its path"),
        (Made(90, root=Path("train/test")), "the folder 'test' in its path"),
        (feedline.Subset(Made(90, mode="test"), range(50)).map(lambda sample: sample), "mode='test'"),
    ],
)
def test_a_shuffled_validation_set(dataset, why):
    finding = only(check(DataLoader(dataset, 10, shuffle=True)))
    assert (finding.severity, finding.subject) == ("warning", "shuffle")
    assert finding.message.startswith(f"a dataset for evaluation ({why}) is shuffled")
    assert len(check(DataLoader(dataset, 10))) == 0


@pytest.mark.parametrize("attributes", [{"train": True, "split": "test"}, {"split": "train"}, {"root": "test/train"}])
def test_a_training_set_may_be_shuffled(attributes):
    assert len(check(DataLoader(Made(90, **attributes), 10, shuffle=True))) == 0


def test_image_folders_tell_their_part_by_their_path(tmp_path, image_tree):
    for part in ("train", "val"):
        image_tree(tmp_path / part, 20)
    train, val = ImageFolder(tmp_path / "train"), ImageFolder(tmp_path / "val")
    assert subjects(check(DataLoader(train, 10))) == [("warning", "dataset")]
    assert subjects(check(DataLoader(val, 10, shuffle=True))) == [("warning", "shuffle")]
    assert subjects(check(DataLoader(ImageFiles(val.paths), 10, shuffle=True))) == [("warning", "shuffle")]


@pytest.fixture
def image_tree():
    from PIL import Image

    def write(root, count):
        for name in ("cat", "dog"):
            (root / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (2, 2)).save(root / name / f"{number:02}.png")

    return write


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "worker processes would all draw the same numbers"),
        ({"num_workers": 1, "backend": "process"}, "each worker has a copy, and all draw the same numbers"),
        ({"num_workers": 1, "backend": "thread"}, "depends on the workers' pace"),
    ],
)
def test_generators_that_objects_hold(options, message):
    rng = np.random.default_rng(0)
    dataset = Made(100, rng=random.Random(0), transform=lambda sample: sample + rng.normal())
    report = check(DataLoader(dataset, 10, **options))
    assert subjects(report) == [("warning", "dataset.rng"), ("warning", "dataset.transform.rng")]
    first, second = report
    assert first.message.startswith("it is a random.Random: ")
    assert second.message.startswith("it is a numpy.random.Generator: ")
    assert message in first.message
    assert "feedline.rng()" in first.remedy
    assert report


# ------------------------------------------------------------------------------------------------ what it leaves alone


@pytest.mark.usefixtures("same_global_generators")
def test_it_changes_neither_generators_nor_the_loader():
    rng = np.random.default_rng(0)

    def draws(index):
        return (random.random() + np.random.rand() + rng.random() + float(torch.rand(())), feedline.rng().normal())

    loader = DataLoader(Made(100, draws), 10, shuffle=True, generator=random.Random(7))
    before, torch_before = loader.state_dict(), torch.get_rng_state()
    report = check(loader)
    assert report.samples_read == 4
    assert (loader.seed, loader.state_dict()) == (None, before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert rng.random() == np.random.default_rng(0).random()
    assert loader.generator.random() == random.Random(7).random()


def test_at_most_twenty_samples_are_read():
    dataset = Made(10_000, lambda index: (np.zeros(2), index // 1000))
    report = check(DataLoader(dataset, 1000))
    assert subjects(report) == [("warning", "dataset")]
    assert report.samples_read == len(dataset.read) == 20


def test_errors_come_first():
    dataset = Made(90, lambda index: np.zeros(index + 1), targets=SORTED, rng=random.Random(0))
    assert [severity for severity, _ in subjects(check(DataLoader(dataset, 10)))] == ["error", "warning", "warning"]


def test_attributes_that_raise_are_passed_over():
    class Loud(Made):
        @property
        def targets(self):
            raise RuntimeError("not now")

        @property
        def train(self):
            raise RuntimeError("not now")

    assert len(check(DataLoader(Loud(100), 10))) == 0
