"""Shipments in real worker processes, which receive all descriptors over a socket."""

import multiprocessing as mp
import pickle
import socket
import subprocess
import sys
import textwrap
from multiprocessing import forkserver, resource_tracker, sharedctypes

import numpy as np
import pytest

from feedline import TensorDataset
from feedline.engine.processes.shipping import ship, unpack
from feedline.errors import FeedlineError

METHODS = ["fork", "spawn", "forkserver"]

# Receives a shipment of (function, arguments), calls the one with the others, and sends back what it returns.
WORKER = """
import io, pickle, socket
from feedline.engine.processes.returning import ReturningPickler
from feedline.engine.processes.shipping import unpack
from feedline.sharing import Block
message, received, _, _ = socket.recv_fds(sock, 1 << 20, 100)
while not message.endswith(b"the end"):
    message += sock.recv(1 << 20)
payload, sizes, spans = pickle.loads(message[:-7])
attached = zip(sizes, received)
blocks = [Block.attach(size, descriptor=descriptor, private=True) for size, descriptor in attached]
function, arguments = unpack(payload, blocks, spans, received[len(sizes):])
del blocks
file = io.BytesIO()
ReturningPickler(file).dump(function(*arguments))
sock.sendall(file.getvalue())
sock.close()
"""

# What a program does that has no guard against being imported again.
PROGRAM = """
import socket, subprocess, sys, pickle
import numpy as np
from enum import Enum
from feedline import Dataset, Subset
from feedline.engine.processes.shipping import ship

class Colour(Enum):
    RED = 1

class Sample:
    def __init__(self, value): self.value = value
    def read(self): return self.value + OFFSET

class Numbers(Dataset):
    scale = 10
    def __init__(self): self.fn = lambda x: Sample(x * self.scale + OFFSET); self.colours = {Colour.RED}
    def __len__(self): return 3
    def __getitem__(self, i): return self.fn(i)

OFFSET = 5
dataset = Subset(Numbers(), [2])
shipment = ship((lambda dataset: (dataset[0], dataset.dataset.colours), (dataset,)))
assert shipment.matches(shipment_value := None) is False
here, there = socket.socketpair()
source = f"import socket; sock = socket.socket(fileno={there.fileno()})\\n" + sys.argv[1]
child = subprocess.Popen([sys.executable, "-c", source], pass_fds=[there.fileno()])
there.close()
socket.send_fds(here, [pickle.dumps((shipment.payload, (), shipment.spans)) + b"the end"], shipment.descriptors)
method = Sample.read
sample, colours = pickle.loads(here.makefile("rb").read())
assert isinstance(sample, Sample) and colours == {Colour.RED}, (sample, colours)
assert child.wait() == 0
OFFSET = 6
assert Sample.read is method and sample.read() == 31
print(sample.value)
"""


@pytest.fixture(scope="module", autouse=True)
def servers():
    """Processes and memory of multiprocessing's own that stay until the interpreter exits."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    return sharedctypes.RawArray("d", 10)


def _read(sock):
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def _send(sock, shipment):
    header = (shipment.payload, [block.nbytes for block in shipment.blocks], shipment.spans)
    message = pickle.dumps(header) + b"the end"
    descriptors = [block.descriptor for block in shipment.blocks] + list(shipment.descriptors)
    sent = socket.send_fds(sock, [message], descriptors)
    if sent < len(message):
        sock.sendall(message[sent:])


def _called(method, function, *arguments):
    """What ``function`` returns in a worker that was started by ``method`` and then sent function and arguments."""
    here, there = socket.socketpair()
    context = mp.get_context(method)
    process = context.Process(target=exec, args=(WORKER, {"sock": there}), daemon=True)
    process.start()
    there.close()
    shipment = ship((function, arguments), forked=method == "fork")
    try:
        assert shipment.needs_fork is None
        _send(here, shipment)
        return pickle.loads(_read(here))
    finally:
        here.close()
        process.join()
        process.close()
        shipment.close()


@pytest.mark.parametrize("method", METHODS)
def test_arrays_arrive_as_writable_copies_of_each_worker(method):
    large, small = np.arange(100_000.0), np.arange(3)
    dataset = TensorDataset(large, large[::-1])

    def use(dataset, small):
        first = dataset.tensors[0]
        first[0] = 7  # stays in the worker
        return first[0], dataset.tensors[1][-1], float(first.sum()), first.ctypes.data % 64, small

    first, last, total, address, arrived = _called(method, use, dataset, small)
    assert (first, last, total, address) == (7, 7, large.sum() + 7, 0)
    np.testing.assert_array_equal(arrived, small)
    assert large[0] == 0


@pytest.mark.parametrize("method", METHODS)
def test_locks_values_and_queues_of_multiprocessing_stay_shared(method):
    context = mp.get_context(method)
    count, array = context.Value("i", 1), context.Array("d", [1.0, 2.0])
    raw, event, queue = sharedctypes.RawValue("i", 3), context.Event(), context.Queue()
    lock, results = context.Lock(), context.SimpleQueue()

    def use(count, array, raw, event, queue, lock, results):
        with lock:
            results.put(queue.get())
        with count.get_lock():
            count.value += raw.value
        array[1] = 9
        raw.value = 5
        event.set()
        return lock.acquire(block=False)

    shared = (count, array, raw, event, queue, lock, results)
    try:
        queue.put("from the parent")
        assert _called(method, use, *shared)
        assert not lock.acquire(block=False)
        assert (count.value, array[:], raw.value, event.is_set()) == (4, [1, 9], 5, True)
        assert results.get() == "from the parent"
    finally:
        queue.close()
        queue.join_thread()
        queue._reader.close()
        results.close()


def test_locks_of_a_fork_context_tell_that_they_need_forks_and_work_in_forks():
    lock, array = mp.get_context("fork").Lock(), np.zeros(100_000)
    shipment = ship({"dataset": [array, {"lock": lock}]}, name="")
    assert shipment.needs_fork == "dataset[1]['lock']"
    assert (shipment.blocks, shipment.descriptors) == ((), ())
    assert not shipment.matches({"dataset": [array, {"lock": lock}]})
    shipment.close()
    value = mp.get_context("fork").Value("i", 0)
    assert ship([value]).needs_fork == "dataset[0]"

    def use(lock, again, other):
        return lock is again, lock.acquire(block=False), other.acquire(timeout=0)

    held = mp.get_context("fork").RLock()
    with lock:
        assert _called("fork", use, lock, lock, held) == (True, False, True)


def test_a_fork_lock_that_the_worker_did_not_inherit_is_an_error():
    lock = mp.get_context("fork").Lock()
    shipment = ship(lock, forked=True)
    payload = shipment.payload
    del lock
    with pytest.raises(FeedlineError, match="made after this worker was forked; make it before"):
        unpack(payload, (), (), ())


def test_objects_of_multiprocessing_match_until_they_are_replaced():
    context = mp.get_context("spawn")
    value = {"count": context.Value("i", 1), "event": context.Event(), "lock": context.Lock(), "pipe": context.Pipe()}
    shipment = ship(value)
    value["count"].value += 1
    value["event"].set()
    assert shipment.matches(value)
    pipes = value["pipe"]
    value["pipe"] = context.Pipe()
    assert not shipment.matches(value)
    for each in (*pipes, *value["pipe"]):
        each.close()
    assert not shipment.matches(value)
    shipment.close()
    replaced = ship({"lock": value["lock"]})
    assert not replaced.matches({"lock": context.Lock()})
    replaced.close()


@pytest.mark.parametrize("method", METHODS)
def test_pipes_of_multiprocessing_arrive_open(method):
    receiver, sender = mp.Pipe(duplex=False)
    with receiver, sender:
        _called(method, lambda sender: sender.send(b"hello"), sender)
        assert receiver.recv() == b"hello"


def test_shared_torch_tensors_stay_shared():
    torch = pytest.importorskip("torch")
    epoch = torch.zeros(2, dtype=torch.int64).share_memory_()

    def use(epoch):
        epoch += 4
        return type(epoch).__name__

    assert _called("spawn", use, epoch) == "Tensor"
    assert epoch.tolist() == [4, 4]


def test_a_worker_may_open_what_it_was_sent_any_number_of_times(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\nthree\n")
    with path.open() as file:
        file.readline()
        assert _called("fork", lambda file: (file.read(), file.close()), file) == ("two\nthree\n", None)
        assert file.readline() == "two\n"


def test_a_program_without_a_guard_gets_its_own_classes_back(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run([sys.executable, script, WORKER], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("25\n", "")


def test_a_dataset_matches_when_its_classes_came_back_and_the_workers_own_classes_arrive():
    class Sample:
        def __init__(self, value):
            self.value = value

    def use(kind):
        class Own(kind):
            pass

        return kind(3), Own(4), [Own, Own]

    method = Sample.__init__
    shipment = ship((use, (Sample,)))
    sample, own, kinds = _called("spawn", use, Sample)
    assert (type(sample), sample.value, own.value) == (Sample, 3, 4)
    assert isinstance(own, Sample)
    assert kinds == [type(own)] * 2
    assert Sample.__init__ is method
    assert shipment.matches((use, (Sample,)))
    shipment.close()
