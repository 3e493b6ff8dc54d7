"""What cannot be sent is named by the attribute path that leads to it."""

import collections
import contextvars
import functools
import gzip
import mmap
import pickle
import queue
import re
import socket
import sqlite3
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from feedline import TensorDataset
from feedline.engine.processes.shipping import ship
from feedline.errors import CannotShip

REMEDY = (
    "; make it in the worker (in worker_init_fn, or at first use), leave it out with __getstate__, "
    "or use backend='thread'"
)


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("lock",)

    def __init__(self, lock):
        self.lock = lock


@dataclass(frozen=True, slots=True)
class Frozen:
    size: int
    lock: object


class Pair(NamedTuple):
    dataset: object
    init: object


class Refusing:
    def __getstate__(self):
        raise LookupError("not me")


class Reducing:
    def __init__(self, lock):
        self.lock = lock

    def __reduce__(self):
        return Reducing, (self.lock,)


class Listing(list):
    pass


def _closure(held):
    return lambda: held


def _default(x, held=None):
    return x


def _of_a_script(names):
    """A function whose module cannot be imported."""
    scope = {"__name__": "__main__", **names}
    exec("def fn(): return log", scope)
    return scope["fn"]


LOCK = threading.Lock()
METHOD = "sum"

PLACES = {
    "dataset.transform.lock": Thing(transform=Thing(lock=LOCK)),
    "dataset['a'][1].lock": {"a": [0, Slotted(LOCK)]},
    "dataset.recipe.lock": Thing(recipe=Frozen(1, LOCK)),
    "dataset.dataset.fn": Pair(Thing(fn=LOCK), None),
    "dataset.init": Pair(None, LOCK),
    "dataset.fn.args[0]": Thing(fn=functools.partial(max, LOCK)),
    "dataset.fn.keywords['key']": Thing(fn=functools.partial(max, key=LOCK)),
    "dataset.fn.__self__.lock": Thing(fn=Thing(lock=LOCK).__eq__),
    "dataset.fn.__self__": Thing(fn=LOCK.acquire),
    "dataset.fn.<closure>['held']": Thing(fn=_closure(LOCK)),
    "dataset.fn.<closure>['held'].lock": Thing(fn=_closure(Thing(lock=LOCK))),
    "dataset.fn.<globals>['log']": Thing(fn=_of_a_script({"log": LOCK})),
    "dataset.__class__.lock": type("Local", (), {"lock": LOCK})(),
    "dataset.tensors[0].flat[1]": Thing(tensors=(np.array([0, LOCK], object),)),
    "dataset.__reduce__()[1][0]": Reducing(LOCK),
    "dataset[1]": collections.deque([1, LOCK]),
    "dataset[0]": Listing([LOCK]),
    "dataset.x": types.SimpleNamespace(x=LOCK),
    "dataset['x'][0]": collections.OrderedDict(x=[LOCK]),
}  # fmt: skip


@pytest.mark.parametrize("path", PLACES)
def test_the_path_leads_to_the_part(path):
    message = f"{path} cannot be sent to a worker process: it is a _thread.lock{REMEDY}"
    with pytest.raises(CannotShip, match=f"^{re.escape(message)}$") as caught:
        ship(PLACES[path])
    assert isinstance(caught.value.__cause__, TypeError)
    assert isinstance(caught.value, TypeError)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.path, error.reason) == (path, "it is a _thread.lock")
        assert str(error) == f"{path} cannot be sent to a worker process: {error.reason}; {error.remedy}"


def test_without_a_name_attributes_and_keys_are_called_by_their_own():
    for value in (Pair(Thing(lock=LOCK), None), Thing(dataset=Thing(lock=LOCK)), {"dataset": Thing(lock=LOCK)}):
        with pytest.raises(CannotShip, match=r"^dataset\.lock cannot be sent"):
            ship(value, name="")


def test_the_first_of_several_is_named_depth_first():
    with pytest.raises(CannotShip, match=r"^dataset\.a\[0\]\.x cannot be sent"):
        ship(Thing(fine=1, a=[Thing(x=LOCK)], b=LOCK))


def test_objects_with_locks_inside_are_named_as_a_whole(tmp_path):
    whole = {
        "threading.Event": threading.Event(),
        "threading.Condition": threading.Condition(),
        "threading._MainThread": threading.main_thread(),
        "queue.Queue": queue.Queue(),
    }
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        whole["gzip.GzipFile"] = file
        for kind, each in whole.items():
            with pytest.raises(CannotShip, match=rf"^dataset\.x cannot be sent to a worker process: it is a {kind};"):
                ship(Thing(x=each))


def test_open_handles_are_refused_by_their_class(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with socket.socket() as sock, path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        connection = sqlite3.connect(":memory:")
        handles = {
            "socket.socket": sock,
            "mmap.mmap": mapped,
            "sqlite3.Connection": connection,
            "generator": (i for i in ()),
            "_thread._local": threading.local(),
            "_contextvars.ContextVar": contextvars.ContextVar("x"),
        }
        for kind, each in handles.items():
            with pytest.raises(CannotShip, match=rf"^dataset\.x\[0\] cannot be sent .* it is an? {kind};"):
                ship(Thing(x=(each,)))
        connection.close()


@pytest.mark.parametrize("module", ["lmdb", "h5py._hl.files", "h5py"])
def test_handles_of_storage_packages_are_refused_by_their_module(module):
    kind = type("File", (), {"__module__": module})
    with pytest.raises(CannotShip, match=rf"^dataset\.x cannot be sent to a worker process: it is an? {module}\.File;"):
        ship(Thing(x=kind()))


def test_an_objects_own_refusal_is_named_and_chained():
    with pytest.raises(
        CannotShip,
        match=r"^dataset\.x\[1\] cannot be sent .*Refusing, and pickling it raised LookupError: not me;",
    ) as caught:
        ship(Thing(x=[1, Refusing()]))
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_value_that_holds_itself_is_searched_once():
    thing = Thing()
    thing.me = thing
    thing.lock = LOCK
    with pytest.raises(CannotShip, match=r"^dataset\.lock cannot be sent"):
        ship(thing)


def test_what_leaves_its_handles_out_travels():
    class Careful:
        def __init__(self):
            self.lock, self.size = threading.Lock(), 3

        def __getstate__(self):
            return {"size": self.size}

    ship([Careful(), TensorDataset(np.zeros(3)), Path("a"), METHOD, _default]).close()
