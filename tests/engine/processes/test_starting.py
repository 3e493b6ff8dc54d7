"""A worker comes up without the user's main module, deaf to Ctrl-C, and goes with its parent."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path

import pytest

from feedline.engine.processes import starting
from feedline.engine.processes.starting import Starter

METHODS = ("fork", "forkserver", "spawn")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these workers are those of POSIX systems")

DUTIES = """
import multiprocessing, os, re, signal, sys, time, warnings
from multiprocessing import reduction
from feedline.engine.processes.becoming import become_worker

def tell_pid(pipe):
    become_worker()
    pipe.send(os.getpid())
    time.sleep(60)

def hold_the_gil(pipe):
    become_worker()
    pipe.send(os.getpid())
    re.match(r"(a+)+$", "a" * 60 + "b")

def tell_modules(pipe):
    main = sys.modules["__main__"]
    pipe.send((sorted(sys.modules), getattr(main, "MARK", None)))

def tell_signals(pipe):
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = [str(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)]
    pipe.send((blocked, handlers, signal.set_wakeup_fd(-1)))

def tell_main(pipe):
    pipe.send(sys.modules["__main__"].MARK)

def crash(pipe):
    log = become_worker()
    reduction.send_handle(pipe, log, os.getppid())
    pipe.recv()
    os.abort()

def tell_surroundings(pipe, surroundings):
    surroundings.enter(3)
    import threadpoolctl, numpy
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    if cv2:
        cv2.GaussianBlur(numpy.zeros((2000, 2000), numpy.uint8), (9, 9), 0)
    pipe.send({
        "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path,
        "filters": [
            [getattr(each, "__name__", getattr(each, "pattern", each)) for each in filter[:3]]
            for filter in warnings.filters
        ],
        "pools": {pool["num_threads"] for pool in threadpoolctl.threadpool_info()},
        "comm": open("/proc/self/comm").read().strip() if os.path.exists("/proc/self/comm") else "feedline-3",
        "torch": torch and (torch.get_num_threads(), str(torch.get_default_dtype())),
    })
"""
HEAD = """
import multiprocessing, os, sys, time
import duties
from feedline.engine.processes.becoming import capture
from feedline.engine.processes.starting import Starter
MARK = 1
def start(method, duty, *args):
    starter = Starter(multiprocessing.get_context(method))
    ours, theirs = starter.context.Pipe()
    process = starter.start(getattr(duties, duty), (theirs, *args), "worker")
    theirs.close()
    return starter, process, ours
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "duties.py").write_text(DUTIES)
    return tmp_path


def run(folder, script, *arguments, prefix=HEAD):
    """What a script prints; it must print no word of complaint."""
    (folder / "script.py").write_text(prefix + script)
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    return done.stdout


def is_alive(pid):
    """Whether a process runs: one that has ended may be there until the system's first process looks at it."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(pids, within_s):
    deadline = time.monotonic() + within_s
    try:
        while alive := [pid for pid in pids if is_alive(pid)]:
            assert time.monotonic() < deadline, alive
            select.select((), (), (), 0.01)
    finally:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


ORPHANS = """
by_kernel = sys.argv[2] == "kernel"
if not by_kernel:
    from feedline.engine.processes import starting
    starting._LINUX = False
names = ("tell_pid", "hold_the_gil" if by_kernel else "tell_pid", "tell_pid")
workers = [start(sys.argv[1], duty) for duty in names]
pids = [pipe.recv() for _, _, pipe in workers]
if sys.argv[1] == "fork" and by_kernel:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    print(child)
else:
    print(0)
print(*pids, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("means", ["kernel", "thread"])
@pytest.mark.parametrize("method", METHODS)
def test_workers_go_with_a_parent_that_is_killed(folder, method, means):
    """By the kernel even if one holds the GIL, and though a child that the user forked lives on; or by a thread."""
    if means == "kernel" and sys.platform != "linux":
        pytest.skip("only Linux kills them by itself")
    (folder / "script.py").write_text(HEAD + ORPHANS)
    with subprocess.Popen(
        [sys.executable, "script.py", method, means],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        bystander = int(parent.stdout.readline() or parent.stderr.read())
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_alive, pids))
        parent.kill()
        try:
            assert_gone(pids, within_s=2)
        finally:
            if bystander:
                os.kill(bystander, signal.SIGKILL)


def test_workers_go_with_their_starter(folder):
    script = """
for method in ("fork", "forkserver", "spawn"):
    starter, process, pipe = start(method, "tell_pid")
    pipe.recv()
    assert process.daemon
    del starter
    process.join()
    print(process.exitcode)
"""
    assert run(folder, script).split() == ["-9", "-9", "-9"]


def test_workers_go_with_the_server_of_forked_processes(folder):
    script = """
import signal
from multiprocessing import forkserver
starter, process, pipe = start("forkserver", "tell_pid")
pid = pipe.recv()
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
try:
    pipe.recv()
except EOFError:
    print("gone", pid)
starter, process, pipe = start("forkserver", "tell_pid")
assert pipe.recv() != pid
print("again")
"""
    assert [line.split()[0] for line in run(folder, script).splitlines()] == ["gone", "again"]


UNGUARDED = """
import multiprocessing, os, sys
sys.path.insert(0, os.environ["DUTIES"])
import duties
from feedline.engine.processes.starting import Starter
MARK = 1
print("main", flush=True)
starters = [Starter(multiprocessing.get_context(method)) for method in ("spawn", "forkserver")]
for starter in starters:
    ours, theirs = starter.context.Pipe()
    process = starter.start(duties.tell_modules, (theirs,), "worker")
    theirs.close()
    modules, mark = ours.recv()
    assert mark is None
    process.join()
"""


@pytest.mark.parametrize("how", ["file", "-c", "stdin", "-m", "exec"])
def test_scripts_without_a_guard_run_once(folder, how):
    (folder / "unguarded.py").write_text(UNGUARDED)
    gone = f"import sys\nsys.modules['__main__'].__file__ = '/nowhere/gone.py'\nexec({UNGUARDED!r})"
    arguments = {
        "file": ["unguarded.py"], "-c": ["-c", UNGUARDED], "stdin": ["-"], "-m": ["-m", "unguarded"],
        "exec": ["-c", gone],
    }[how]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, input=UNGUARDED if how == "stdin" else "", capture_output=True, text=True, timeout=30, check=False,
        env=os.environ | {"DUTIES": str(folder)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("main\n", "")


def test_the_users_own_processes_import_the_main_module_as_ever(folder):
    script = """
print("imported as", __name__, flush=True)
def own(pipe):
    duties.tell_signals(pipe)
    duties.tell_main(pipe)

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        starter, process, pipe = start(method, "tell_pid")
        pipe.recv()
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        mine = context.Process(target=own, args=(theirs,))
        mine.start()
        blocked, (interrupt, _), _ = ours.recv()
        assert not blocked and "default_int_handler" in interrupt, (blocked, interrupt)
        assert ours.recv() == 1
        mine.join()
"""
    lines = run(folder, script).splitlines()
    assert lines == ["imported as __main__", "imported as __mp_main__", "imported as __mp_main__"]


def test_only_the_starting_thread_hides_the_main_module(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "main.py"), raising=False)
    before = spawn.get_preparation_data
    others = []
    with starting._hidden_main():
        thread = threading.Thread(target=lambda: others.append(spawn.get_preparation_data("theirs")))
        thread.start()
        thread.join()
        ours = spawn.get_preparation_data("ours")
    assert "init_main_from_path" in others[0]
    assert "init_main_from_path" not in ours
    assert ours.keys() < others[0].keys()
    assert spawn.get_preparation_data is before


@pytest.mark.parametrize("method", METHODS)
def test_no_interrupt_reaches_a_worker_while_it_starts(folder, method):
    script = """
import signal, threading
count = 0
def interrupted(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupted)
print("ready", flush=True)
workers = [start(sys.argv[1], "tell_signals") for _ in range(3)]
for _, process, pipe in workers:
    blocked, handlers, _ = pipe.recv()
    assert not blocked and handlers == ["1", "0"], (blocked, handlers)
    process.join()
    assert process.exitcode == 0
print("over", count, flush=True)
"""
    (folder / "script.py").write_text(HEAD + script)
    with subprocess.Popen(
        [sys.executable, "script.py", method],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, bufsize=0,
    ) as parent:  # fmt: skip
        assert parent.stdout.readline() == b"ready\n"
        sent = 0
        while not select.select([parent.stdout], (), (), 0.001)[0]:  # one a millisecond until all is over
            os.killpg(parent.pid, signal.SIGINT)
            sent += 1
        out, complaints = parent.communicate(timeout=30)
    assert complaints == b""
    assert out.startswith(b"over ")
    assert 0 < int(out.split()[1]) <= sent


def test_an_interrupt_during_the_start_leaves_no_worker(folder):
    script = """
import signal
starter = Starter(multiprocessing.get_context("spawn"))
class Interrupting:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return int, ()
try:
    starter.start(print, (Interrupting(),), "worker")
except KeyboardInterrupt:
    print("interrupted", multiprocessing.active_children())
assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
try:
    starter.start(print, (lambda: 0,), "worker")
except Exception as error:
    print(type(error).__name__, multiprocessing.active_children())
"""
    first, second = run(folder, script).splitlines()
    assert first == "interrupted []"
    assert second.endswith("Error []")


def test_a_forked_worker_takes_over_no_handler(folder):
    script = """
import signal, socket
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
signal.signal(signal.SIGTERM, print)
_, process, pipe = start("fork", "tell_signals")
print(pipe.recv())
process.join()
_, process, pipe = start("fork", "tell_pid")
pipe.recv()
process.terminate()
process.join()
print(process.exitcode)
"""
    assert run(folder, script).splitlines() == ["(False, ['1', '0'], -1)", "-15"]


def test_what_the_user_preloads_is_kept(folder):
    (folder / "users.py").write_text("")
    script = """
multiprocessing.set_forkserver_preload(["users"])
for _ in range(2):
    _, process, pipe = start("forkserver", "tell_modules")
    modules, _ = pipe.recv()
    process.join()
from multiprocessing import forkserver
print(forkserver._forkserver._preload_modules)
print("feedline.engine.processes.prelude" in modules)
"""
    preloaded, loaded = run(folder, script).splitlines()
    assert preloaded == "['users', 'numpy', 'feedline.engine.processes.prelude']"
    assert loaded == "True"


def test_forking_beside_threads_warns_once_a_starter(folder):
    script = """
import threading, warnings
over = threading.Event()
threads = [threading.Thread(target=over.wait) for _ in range(2)]
for thread in threads:
    thread.start()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    starter, process, _ = start("fork", "tell_pid")
    starter.start(duties.tell_pid, (_,), "another")
    start("forkserver", "tell_pid")
for warning in caught:
    print(warning.category.__name__, warning.message)
over.set()
"""
    ours = [line for line in run(folder, script).splitlines() if line.startswith("UserWarning")]
    assert ours == [(
        "UserWarning fork with 2 other threads alive may deadlock: a lock that one holds stays locked in the "
        "worker for ever; use 'forkserver' or 'spawn' as multiprocessing_context"
    )]  # fmt: skip


def test_the_start_method_is_the_users_or_forkserver():
    assert Starter().method == ("forkserver" if sys.platform == "linux" else multiprocessing.get_start_method())
    assert Starter().may_fork
    for method in METHODS:
        starter = Starter(multiprocessing.get_context(method))
        assert (starter.method, starter.may_fork) == (method, False)
    assert Starter().forking().method == "fork"


def test_a_crash_leaves_its_stack_with_the_parent(folder):
    script = """
from multiprocessing import reduction
for method in ("fork", "forkserver", "spawn"):
    starter, process, pipe = start(method, "crash")
    log = reduction.recv_handle(pipe)
    pipe.send(None)
    process.join()
    stack = os.pread(log, 1 << 16, 0).decode()
    print(process.exitcode, "Fatal Python error: Aborted" in stack, "in crash" in stack)
"""
    assert run(folder, script).splitlines() == ["-6 True True"] * 3


def test_a_worker_finds_the_surroundings_of_its_parent(folder):
    script = """
import warnings
class Mine(UserWarning):
    pass
os.environ["JAX_PLATFORMS"] = "tpu"
os.environ["OMP_NUM_THREADS"] = "7"
for method in ("forkserver", "spawn", "fork"):
    starter = Starter(multiprocessing.get_context(method))
    starter.prepare()
    os.environ["SET_LATER"] = method
    os.environ.pop("LANGUAGE", None)
    os.makedirs(method)
    os.chdir(method)
    sys.path.insert(0, "/" + method)
    warnings.filterwarnings("error", message=method, category=Mine)
    ours, theirs = starter.context.Pipe()
    process = starter.start(duties.tell_surroundings, (theirs, capture()), "worker")
    theirs.close()
    there = ours.recv()
    ones = dict.fromkeys([name for name in there["environ"] if name.endswith(("_THREADS", "_THREADS_NUM"))], "1")
    assert len(ones) == 7, ones
    differs = there["environ"].items() ^ {**os.environ, **ones, "JAX_PLATFORMS": "cpu"}.items()
    assert not {name for name, _ in differs} - {"KMP_DUPLICATE_LIB_OK"}, differs  # which threadpoolctl sets
    assert there["cwd"] == os.getcwd() and there["path"] == sys.path
    assert ["error", method, "Mine"] in there["filters"], (method, there["filters"])
    assert there["pools"] <= {1} and there["comm"] == "feedline-3" and there["torch"] is None
print("good")
"""
    assert run(folder, script) == "good\n"


FRAMEWORKS = """
import importlib.util, numpy
there = [name for name in ("torch", "cv2", "PIL.Image") if importlib.util.find_spec(name.split(".")[0])]
for name in there:
    importlib.import_module(name)
print("threads", len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1)
if "cv2" in there:
    sys.modules["cv2"].GaussianBlur(numpy.zeros((2000, 2000), numpy.uint8), (9, 9), 0)
if "torch" in there:
    sys.modules["torch"].set_default_dtype(sys.modules["torch"].float64)
for method in ("fork", "forkserver"):
    starter, process, pipe = start(method, "tell_surroundings", capture())
    told = pipe.recv()
    assert "torch" not in there or told["torch"] == (1, "torch.float64"), told["torch"]
print("good")
"""


def test_frameworks_use_one_thread_in_workers_and_the_preloaded_start_none(folder, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert run(folder, FRAMEWORKS) == "threads 1\ngood\n"
