"""Seeded schedules of faults: workers that die or stop, samples that fail or are slow, loops that break.

Guarantee tested: whatever happens to the workers, each epoch delivers what the serial backend delivers, to the last
bit and in order, errors at the same places; and nothing is left behind.

A script: ``python tests/engine/processes/chaos.py --seed 17`` runs one schedule again, ``--schedules 1000`` the first
thousand. The faults of a schedule are fixed by its seed; at which instruction of a worker they hit is not.
"""

import argparse
import contextlib
import faulthandler
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import feedline
from feedline import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler, transforms

DEADLINE_S = 120.0  # of one schedule: it takes some 0.3 s, a loaded machine and three missed deadlines included 10 s
SCRIPT = Path(__file__)


@dataclass(frozen=True)
class Schedule:
    """What happens: all of it drawn from the seed."""

    seed: int
    method: str
    num_workers: int
    batch_size: int
    prefetch_factor: int
    persistent: bool
    size: int
    kind: str
    sampler: str
    on_error: str
    timeout_s: float
    faults: dict  # by index: what becomes of a worker that reads it for the first time
    bad: frozenset  # indices that raise
    slow: frozenset  # indices that take some milliseconds
    blows: dict  # by (iteration, step): the signal that a worker gets
    timer_s: float  # after which a worker gets SIGKILL, whatever this process is at; 0: none
    iterations: tuple  # each: "whole", "break" or "zip"

    @classmethod
    def of(cls, seed: int) -> "Schedule":
        draw = random.Random(seed)
        size, batch_size, timeout_s = draw.randint(10, 60), draw.randint(1, 9), draw.choice([0, 0, 0.4])
        late = 2 if timeout_s else 0
        crashes = ["exit", "kill", "segfault", "sys.exit"] + ["stop", "hang"] * late
        signals = [signal.SIGKILL, signal.SIGTERM] + [signal.SIGSTOP] * late
        iterations = tuple(draw.choice(["whole", "whole", "whole", "break", "zip"]) for _ in range(draw.randint(2, 3)))
        kind = draw.choice(["map", "map", "mapped", "tensors", "stream", "mapped stream", "shards", "mapped shards"])
        deaths = draw.randint(0, 2)  # a batch over which three workers have died is named
        faults = draw.randint(0, deaths)
        has_timer = deaths > faults and draw.random() < 0.5
        return cls(
            seed=seed,
            method=draw.choices(["forkserver", "fork", "spawn"], [6, 3, 1])[0],
            num_workers=draw.randint(1, 4),
            batch_size=batch_size,
            prefetch_factor=draw.randint(1, 3),
            persistent=draw.random() < 0.8,
            size=size,
            kind=kind,
            sampler=draw.choice(["sequential", "shuffled", "weighted", "list"]),
            on_error=draw.choice(["raise", "skip", "replace"]),
            timeout_s=timeout_s,
            faults={draw.randrange(size): draw.choice(crashes) for _ in range(faults)},
            bad=frozenset(draw.sample(range(size), draw.choice([0, 0, 1, 3]))),
            slow=frozenset(draw.sample(range(size), draw.choice([0, 2, 5]))),
            blows={
                (draw.randrange(len(iterations)), draw.randrange(-(-size // batch_size))): draw.choice(signals)
                for _ in range(deaths - faults - has_timer)
            },
            timer_s=draw.choice([0.003, 0.03, 0.1, 0.3]) * (0.5 + draw.random()) if has_timer else 0,
            iterations=iterations,
        )

    @property
    def is_stream(self) -> bool:
        return "stream" in self.kind or "shards" in self.kind


class Reading:
    """What reading a sample does besides giving it."""

    def __init__(self, schedule, folder):
        self.faults = schedule.faults
        self.bad = schedule.bad
        self.slow = schedule.slow
        self.folder = folder  # None: in the process of the loop, which is to live
        self.crop = transforms.Compose([transforms.RandomCrop(8, padding=2), transforms.RandomHorizontalFlip()])

    def __call__(self, index):
        index = int(index)
        if self.folder is not None and index in self.faults:
            self.fault(self.faults[index], Path(self.folder) / str(index))
        if index in self.slow:
            time.sleep(0.004)
        if index in self.bad:
            raise ValueError(f"sample {index} is bad")
        image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + np.uint8(index)
        noise = np.array([feedline.rng().random(), random.random(), np.random.random()])
        return {"index": index, "image": self.crop(image), "noise": noise}

    @staticmethod
    def fault(kind, flag):
        try:
            flag.touch(exist_ok=False)
        except FileExistsError:
            return  # it has happened
        if kind == "exit":
            os._exit(3)
        elif kind == "sys.exit":
            sys.exit(4)
        elif kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == "hang":
            time.sleep(1000)


class Images(Dataset):
    def __init__(self, size, read):
        self.size, self.read = size, read

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.read(index)


class Plain(IterableDataset):
    """Items of a stream, each with what reading does, or the bare numbers."""

    def __init__(self, size, read=None):
        self.size, self.read = size, read

    def __iter__(self):
        return Items(range(self.size), self.read)


class Shards(Plain):
    def shards(self):
        return 5

    def iter_shard(self, number):
        return Items(range(number, self.size, 5), self.read)


class Items:
    """An iterator that goes on after an error, as a generator cannot."""

    def __init__(self, numbers, read):
        self.numbers, self.read = iter(numbers), read

    def __iter__(self):
        return self

    def __next__(self):
        number = next(self.numbers)
        return number if self.read is None else self.read(number)


def dataset_of(schedule, folder):
    read = Reading(schedule, folder)
    size = schedule.size
    if schedule.kind == "tensors":
        return TensorDataset(np.arange(size * 6.0).reshape(size, 2, 3), np.arange(size))
    if schedule.kind == "map":
        return Images(size, read)
    if schedule.kind == "mapped":
        return TensorDataset(np.arange(size)).map(lambda sample: read(sample[0]))
    made = Shards if "shards" in schedule.kind else Plain
    return made(size).map(read) if "mapped" in schedule.kind else made(size, read)


def loader_of(schedule, dataset, **options):
    if not schedule.is_stream:
        sampler = {
            "sequential": None,
            "shuffled": None,
            "weighted": WeightedRandomSampler(np.linspace(1, 2, schedule.size), schedule.size),
            "list": [(7 * place + 3) % schedule.size for place in range(schedule.size)],
        }[schedule.sampler]
        options |= {"sampler": sampler, "shuffle": True if schedule.sampler == "shuffled" else None}
    on_error = "skip" if schedule.is_stream and schedule.on_error == "replace" else schedule.on_error
    return DataLoader(dataset, schedule.batch_size, seed=schedule.seed, on_error=on_error, **options)


def taken(iterator):
    """What one ``next()`` gives: a batch, bit for bit, an error, or the end."""
    try:
        batch = next(iterator)
    except StopIteration:
        return None
    except Exception as error:  # noqa: BLE001 -- what it is is compared
        return type(error).__name__, str(error)
    parts = batch.items() if isinstance(batch, dict) else enumerate(batch)
    return [(key, part.dtype.str, part.shape, part.tobytes()) for key, part in parts]


def run(schedule, loader, strike=lambda iteration, step: None):
    """All that a schedule's loops get."""
    got = []
    for iteration, how in enumerate(schedule.iterations):
        iterators = [iter(loader) for _ in range(2 if how == "zip" else 1)]
        end = schedule.size if how != "break" else -(-schedule.size // schedule.batch_size) // 2
        for step in range(end + 1):
            found = [taken(iterator) for iterator in iterators]
            got.append((iteration, step, found))
            if not any(found):
                break
            strike(iteration, step)
        del iterators
    return got


class Striker:
    """Sends signals to workers."""

    def __init__(self, schedule, loader):
        self.schedule, self.loader = schedule, loader
        self.draw = random.Random(schedule.seed + 1)
        if schedule.timer_s:
            signal.signal(signal.SIGALRM, lambda *_: self.send(signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, schedule.timer_s)

    def __call__(self, iteration, step):
        if (number := self.schedule.blows.get((iteration, step))) is not None:
            self.send(number)

    def send(self, number):
        pool = self.loader._workers._pool
        pids = [] if pool is None or pool._crew is None else [member.pid for member in pool._crew]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(pids), number)


def left():
    """Descriptors, children and shared segments of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text(encoding="ascii", errors="replace")
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(entry.readlink()))
    children = {child.pid for child in multiprocessing.active_children()}
    return Counter(link.split("[")[0] for link in links), children, maps.count("memfd:feedline")


def play(seed: int) -> None:
    """Run a schedule; an AssertionError says in what it differs from the serial run."""
    schedule = Schedule.of(seed)
    warnings.filterwarnings("ignore", "num_workers=. is excessive")
    expected = run(schedule, loader_of(schedule, dataset_of(schedule, None)))
    before = left()
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_of(
            schedule,
            dataset_of(schedule, folder),
            backend="process",
            num_workers=schedule.num_workers,
            multiprocessing_context=schedule.method,
            prefetch_factor=schedule.prefetch_factor,
            persistent_workers=schedule.persistent,
            timeout=schedule.timeout_s,
            max_restarts=100,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                got = run(schedule, loader, Striker(schedule, loader))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            closing = time.monotonic()
            loader.close()
            closing = time.monotonic() - closing
    assert closing < 10, f"close() took {closing:.1f} s"
    for mine, serial in zip(got, expected, strict=False):
        assert mine == serial, f"got\n{shown(mine)}\nserial\n{shown(serial)}"
    assert len(got) == len(expected), f"{len(got)} batches, serial {len(expected)}"
    del got
    after = left()
    assert (after[1], after[2]) == (before[1], before[2]), f"left behind: {after}, before {before}"
    grown = {kind: (before[0][kind], count) for kind, count in after[0].items() if count > before[0][kind]}
    allowed = {"pipe:": 3, "socket:": 2, "/dev/null": 2}  # of the forkserver, and of the tracker, which stay
    over = {kind for kind, (old, new) in grown.items() if new > old + (0 if seed in _played else allowed.get(kind, 0))}
    assert not over, f"descriptors left: {grown}"
    _played.add(seed)


_played: set = set()


def shown(entry):
    iteration, step, found = entry
    short = [each if each is None or isinstance(each, tuple) else [part[3][:24] for part in each] for each in found]
    return f"iteration {iteration}, step {step}: {short}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run this schedule alone")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1, help="processes that run them")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.schedules) if options.seed is None else [options.seed]
    if options.jobs > 1:
        share = -(-len(seeds) // options.jobs)
        jobs = [
            subprocess.Popen(
                [sys.executable, SCRIPT, "--first", str(start), "--schedules", str(min(share, seeds[-1] + 1 - start))]
            )
            for start in seeds[::share]
        ]
        return max(abs(job.wait()) for job in jobs)
    failed = []
    begin = time.monotonic()
    for seed in seeds:
        faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
        try:
            play(seed)
        except Exception:  # noqa: BLE001 -- all are run, and told of
            sys.stderr.write(f"--- seed {seed}: {Schedule.of(seed)}\n{traceback.format_exc()}")
            sys.stderr.flush()
            failed.append(seed)
        finally:
            faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - begin
    sys.stdout.write(f"{len(seeds)} schedules from seed {seeds[0]} in {seconds:.0f} s, failed: {failed or 'none'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
