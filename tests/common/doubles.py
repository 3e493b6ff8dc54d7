"""Stand-ins for users' datasets, streams and samplers, the workers they meet, and how what comes back is read."""

import json

import feedline
from feedline import Dataset, IterableDataset

WORKERS = {
    "serial": {},
    "thread": {"num_workers": 2, "backend": "thread"},
    "process": {"num_workers": 2, "backend": "process"},
}


def noisy(value):
    """A sample, and a number drawn for it: what comes back is equal only if order and keys are."""
    return value, feedline.rng().integers(1 << 40)


class Noisy(Dataset):
    """Sample i is `noisy`; it promises nothing about threads or generators."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return noisy(index)


class SafeNoisy(Noisy):
    """It is for any backend."""

    thread_safe = True
    uses_global_rng = False


class Stream(IterableDataset):
    """0, 1, 2, … up to ``length``, which it does not tell."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter(range(self.length))


class Count(Stream):
    """Its length is known."""

    def __len__(self):
        return self.length


class Own:
    """A user's sampler, without state."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter([(7 * place + 3) % self.length for place in range(self.length)])


class Sized(Own):
    """Its length is known."""

    def __len__(self):
        return self.length


class Stateful(Own):
    """It saves its place, and begins anew once it has come to its end."""

    place = 0

    def __iter__(self):
        items = list(super().__iter__())
        while self.place < len(items):
            self.place += 1
            yield items[self.place - 1]
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Pairs(Own):
    """A user's batch sampler, whose batches have one to three indices."""

    def __iter__(self):
        indices = list(super().__iter__())
        return iter([indices[at : at + 1 + at % 3] for at in range(0, self.length, 2)])


def plain(batch):
    """The samples of a batch of `Noisy`, as plain data."""
    return list(zip(*(part.tolist() for part in batch), strict=True))


def read(loader):
    """The batches of an epoch, as plain data."""
    return [plain(batch) for batch in loader]


def indices(batches):
    """What was asked for, without what was drawn."""
    return [index for batch in batches for index, _ in batch]


def through_json(loader):
    """The loader's state as a checkpoint gives it back: a small one."""
    text = json.dumps(loader.state_dict())
    assert len(text) < 1024
    return json.loads(text)
