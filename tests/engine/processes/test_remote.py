"""Exceptions of a worker arrive as themselves, or as a text; never not at all."""

import io
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feedline.engine.policy import FailedSample
from feedline.engine.processes import remote
from feedline.engine.processes.remote import RemoteTraceback, pack_error, pack_failures, unpack_error, unpack_failures
from feedline.errors import CollateError, CorruptSample, WorkerError


def raised(error):
    """The error, with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 -- of any kind
        return caught


def sent(error):
    return unpack_error(pack_error(raised(error)))


def run(script, *arguments):
    """What a program prints, as Python runs it from a file or from the command line."""
    done = subprocess.run([sys.executable, *arguments], input=script, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class CustomSignature(Exception):
    def __init__(self, code, *, where):
        super().__init__(f"{code} at {where}")
        self.code = code
        self.where = where


class SameSignature(Exception):
    def __init__(self, name):
        super().__init__(f"missing {name}")


class Slotted(ValueError):
    __slots__ = ("position",)

    def __init__(self, position, empty=None):
        super().__init__("slotted")
        self.position = position


class Holding(Exception):
    def __init__(self, message, held):
        super().__init__(message)
        self.held = held
        self.kept = [1, 2]


class Renewing(Holding):
    def __reduce__(self):
        return _renewed, (type(self), self.args[0])


def _renewed(cls, message):
    return cls(message, threading.Lock())


class Changing(Renewing):
    def __init__(self, message, held):
        super().__init__(f"again {message}", held)


class RaisingReduce(KeyError):
    def __reduce__(self):
        raise RuntimeError("no")


class RaisingText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Unmakeable(Exception):
    def __new__(cls, *args):
        if not args:
            raise RuntimeError("needs arguments")
        return super().__new__(cls, *args)


@dataclass(frozen=True)
class Frozen(Exception):
    field: int


class Falsy(Exception):
    def __bool__(self):
        return False

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


class Grouping(ExceptionGroup):
    def __new__(cls, errors, reason):
        self = super().__new__(cls, f"because {reason}", errors)
        self.reason = reason
        return self


ARGUMENTS = st.lists(st.one_of(st.integers(), st.text(), st.none(), st.binary(), st.tuples(st.text())), max_size=4)
CLASSES = [
    value
    for value in vars(__import__("builtins")).values()
    if isinstance(value, type)
    and issubclass(value, BaseException)
    and not issubclass(value, UnicodeError | BaseExceptionGroup | SyntaxError | ImportError)
]


@given(cls=st.sampled_from(CLASSES), args=ARGUMENTS)
def test_built_in_exceptions_arrive_with_equal_type_text_arguments_and_fields(cls, args):
    assume(not issubclass(cls, OSError) or None not in args)  # an errno that is None looks like one that is not there
    error = cls(*args)
    copy = sent(error)
    assert type(copy) is type(error)
    assert (str(copy), copy.args, repr(copy)) == (str(error), error.args, repr(error))
    for name in ("errno", "strerror", "filename", "filename2", "value", "code", "name"):
        assert getattr(copy, name, "none") == getattr(error, name, "none")


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"),
        UnicodeEncodeError("ascii", "ab\xff", 2, 3, "not in range"),
        UnicodeTranslateError("ab", 0, 1, "why"),
        SyntaxError("bad", ("file.py", 3, 4, "x = = 2", 3, 5)),
        ImportError("no module", name="m", path="/p"),
        FileNotFoundError(2, "No such file or directory", "a.png"),
        OSError("only text"),
        BlockingIOError(11, "again", 7),
        KeyError("k"),
        StopIteration(3),
        SystemExit(4),
        AssertionError(),
        subprocess.CalledProcessError(3, ["ls"], b"out"),
        CorruptSample("bad", path="a", offset=3),
        CollateError("shapes", 2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_with_fields_of_their_own_arrive_whole(error):
    copy = sent(error)
    assert type(copy) is type(error)
    assert (str(copy), copy.args, repr(copy)) == (str(error), error.args, repr(error))
    assert vars(copy) == vars(error)
    for name in remote._slots(type(error)):
        assert getattr(copy, name, "none") == getattr(error, name, "none"), name


def test_an_attribute_error_arrives_without_the_object_that_lacked_the_attribute():
    big = threading.Lock()
    with pytest.raises(AttributeError) as caught:
        big.missing
    copy = unpack_error(pack_error(caught.value))
    assert (type(copy), str(copy), copy.name, copy.obj) == (AttributeError, str(caught.value), "missing", None)
    assert not hasattr(copy, "__notes__")


def test_the_signature_of_init_does_not_matter():
    copy = sent(CustomSignature(3, where="there"))
    assert (type(copy), str(copy), copy.code, copy.where) == (CustomSignature, "3 at there", 3, "there")
    assert str(sent(SameSignature("x"))) == "missing x"
    assert sent(Slotted(5)).position == 5
    assert sent(Unmakeable("a")).args == ("a",)
    frozen = sent(Frozen(3))
    assert (type(frozen), frozen.field, type(frozen.__cause__)) == (Frozen, 3, RemoteTraceback)
    assert type(sent(Falsy("falsy"))) is Falsy


def test_what_cannot_be_pickled_is_a_text_and_a_note_names_it(tmp_path):
    with socket.socket() as connection, (tmp_path / "f").open("w") as file:
        for held in (threading.Lock(), connection, (x for x in ()), sys._getframe()):
            copy = sent(Holding("holds", held))
            assert (type(copy), str(copy), copy.kept, copy.held[:1]) == (Holding, "holds", [1, 2], "<")
            assert any("attribute 'held' is a text here: it stayed in the worker" in note for note in copy.__notes__)
        copy = sent(ValueError("a", threading.Lock(), file.fileno))
        assert copy.args[0] == "a"
        assert "argument 1 is a text here: it stayed in the worker (TypeError" in copy.__notes__[0]


def test_an_attribute_that_unpickles_wrongly_stays_in_the_worker():
    class Trap:
        def __reduce__(self):
            return int, ("no number",)

    copy = sent(Holding("trap", Trap()))
    assert type(copy) is Holding
    assert "attribute 'held' is a text here" in copy.__notes__[0]


def test_a_class_that_knows_how_to_pickle_what_cannot_be_does_so_unless_it_changes_the_message():
    copy = sent(Renewing("renewed", threading.Lock()))
    assert (type(copy), str(copy), type(copy.held)) == (Renewing, "renewed", type(threading.Lock()))
    assert not hasattr(copy, "__notes__")
    copy = sent(Changing("changed", threading.Lock()))
    assert (type(copy), str(copy), type(copy.held)) == (Changing, "again changed", str)


def test_exceptions_whose_reduce_or_text_raise_arrive():
    copy = sent(RaisingReduce("k"))
    assert (type(copy), copy.args) == (RaisingReduce, ("k",))
    copy = sent(RaisingText("a"))
    assert (type(copy), copy.args) == (RaisingText, ("a",))
    assert "exception str() failed" in str(copy.__cause__)


def test_the_workers_traceback_is_the_cause_and_shows_the_users_line():
    error = raised(KeyError("k"))
    copy = unpack_error(pack_error(error))
    assert isinstance(copy.__cause__, RemoteTraceback)
    assert str(copy.__cause__) == "".join(traceback.format_exception(error))
    assert "    raise error\n" in str(copy.__cause__)
    assert copy.__traceback__ is None
    assert str(copy.__cause__) in "".join(traceback.format_exception(copy)).split("direct cause")[0]


def test_the_chain_arrives_and_the_traceback_is_at_its_root():
    with pytest.raises(ValueError, match="first") as caught:
        try:
            try:
                raise CustomSignature(1, where="root")
            except CustomSignature as inner:
                raise KeyError("second") from inner
        except KeyError:
            raise ValueError("first")
    copy = unpack_error(pack_error(caught.value))
    second = copy.__context__
    assert (type(copy), copy.__cause__, copy.__suppress_context__, type(second)) == (ValueError, None, False, KeyError)
    root = second.__cause__
    assert (type(root), root.where, second.__suppress_context__) == (CustomSignature, "root", True)
    assert isinstance(root.__cause__, RemoteTraceback)
    assert "".join(traceback.format_exception(copy)).index("Traceback") < str(traceback.format_exception(copy)).index(
        "first"
    )


def test_a_hidden_context_stays_hidden():
    with pytest.raises(ValueError, match="shown") as caught:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None
    copy = unpack_error(pack_error(caught.value))
    assert isinstance(copy.__cause__, RemoteTraceback)
    assert (copy.__context__.args, copy.__suppress_context__) == (("hidden",), True)


def test_an_exception_that_is_its_own_cause_arrives():
    first, second = KeyError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    first.me = first
    copy = sent(first)
    assert (copy.args, copy.__cause__.args) == (("first",), ("second",))
    assert isinstance(copy.__cause__.__cause__, RemoteTraceback)
    assert copy.me.args == ("first",)


def test_a_chain_of_thousands_arrives_in_its_first_thousand():
    error = ValueError(0)
    for number in range(1, 3000):
        outer = ValueError(number)
        outer.__context__ = error
        error = outer
    copy, length = sent(error), 0
    while isinstance(copy, ValueError):
        copy, length = copy.__context__ or copy.__cause__, length + 1
    assert length == 1000
    assert isinstance(copy, RemoteTraceback)


def test_recursion_errors_arrive():
    def deeper():
        return deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    assert type(unpack_error(pack_error(caught.value))) is RecursionError


def test_notes_arrive_and_more_can_be_added():
    error = CorruptSample("bad", path="p")  # its own __reduce__ forgets its notes
    error.add_note("index 3")
    copy = sent(error)
    copy.add_note("more")
    assert copy.__notes__ == ["index 3", "more"]


def test_groups_arrive_with_their_members_chains_and_all():
    inner = raised(CustomSignature(1, where="in"))
    inner.__cause__ = KeyError("why")
    group = raised(ExceptionGroup("several", [inner, ExceptionGroup("nested", [OSError(2, "no", "f")])]))
    group.extra = 5
    copy = unpack_error(pack_error(group))
    assert (type(copy), copy.message, copy.extra) == (ExceptionGroup, "several", 5)
    assert (type(copy.exceptions[0]), copy.exceptions[0].where) == (CustomSignature, "in")
    assert copy.exceptions[0].__cause__.args == ("why",)
    assert copy.exceptions[1].exceptions[0].filename == "f"
    assert repr(copy) == repr(sent(copy))
    own = sent(Grouping([KeyError(1)], "x"))
    assert (type(own), own.message, own.reason, own.exceptions[0].args) == (Grouping, "because x", "x", (1,))
    assert type(sent(BaseExceptionGroup("base", [KeyboardInterrupt()])).exceptions[0]) is KeyboardInterrupt


def test_exceptions_in_attributes_arrive():
    copy = sent(Holding("outer", {"inner": CustomSignature(1, where="w"), "group": ExceptionGroup("g", [KeyError(2)])}))
    assert copy.held["inner"].where == "w"
    assert copy.held["group"].exceptions[0].args == (2,)
    assert not hasattr(copy, "__notes__")


def test_arrays_in_attributes_arrive_and_whole_datasets_do_not():
    copy = sent(Holding("image", np.arange(1000)))
    assert np.array_equal(copy.held, np.arange(1000))
    copy = sent(Holding("dataset", np.zeros(20 << 20, np.uint8)))
    assert copy.held.startswith("array(")
    assert "it is larger than 16 MiB" in copy.__notes__[0]


def test_huge_messages_are_cut_with_a_remark():
    copy = sent(ValueError("a" * 3_000_000 + "end"))
    assert len(str(copy)) < 1_100_000
    assert str(copy).endswith("end")
    assert "951427 more were cut" in str(copy)
    assert len(str(copy.__cause__)) < 1_100_000
    assert sent(ValueError(b"x" * 3_000_000)).args[0].count(b"more were cut") == 1


CHILD = """
import sys, threading, types
from feedline.engine.processes.remote import pack_error, pack_failures
module = types.ModuleType("only_there")
sys.modules["only_there"] = module
exec("class Local(KeyError): pass", module.__dict__)
class WithLock(KeyError):
    lock = threading.Lock()
try:
    try:
        raise module.Local("first")
    except KeyError as error:
        raise WithLock("second") from error
except KeyError as error:
    sys.stdout.buffer.write(pack_error(error))
"""


def test_where_a_class_cannot_travel_a_worker_error_tells_all():
    copy = unpack_error(run(CHILD.encode(), "-"))
    assert type(copy) is WorkerError
    assert str(copy) == (
        "a worker raised __main__.WithLock: 'second' (the exception itself stayed in the worker: "
        "its class __main__.WithLock cannot be pickled)"
    )
    first = copy.__cause__
    assert type(first) is WorkerError
    assert str(first).startswith(
        "a worker raised only_there.Local: 'first' (the exception itself stayed in the worker: "
    )
    assert "raise WithLock" not in str(copy)
    assert "only_there.Local: 'first'" in str(first.__cause__)


def test_where_not_even_the_class_can_be_asked_a_worker_error_tells_what_it_can():
    class Meta(type):
        @property
        def __module__(cls):
            raise RuntimeError("never")

    class Hopeless(Exception, metaclass=Meta):
        pass

    copy = sent(Hopeless("gone"))
    assert type(copy) is WorkerError
    assert str(copy) == (
        "a worker raised an exception: gone (the exception itself stayed in the worker: it cannot be pickled)"
    )
    assert str(copy.__cause__) == "an exception: gone\n(no traceback: RuntimeError while it was formatted)\n"


def test_attributes_are_found_past_a_property():
    class Hiding(Exception):
        @property
        def __dict__(self):
            raise RuntimeError("never")

    error = Hiding("hiding")
    error.kept = 3
    assert sent(error).kept == 3


SCRIPT = """
import multiprocessing
import cloudpickle
from feedline.engine.processes.remote import unpack_error

CALLS = []

class Mine(KeyError):
    counter = 0
    def __init__(self, *, index):
        super().__init__(index)
        self.index = index
    def called(self):
        CALLS.append(1)

class Sample:
    pass

def fail():
    error = Mine(index=7)
    error.sample = Sample()
    error.sample_class = Sample
    raise error

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    from feedline_child import work
    process = context.Process(target=work, args=(theirs, cloudpickle.dumps(fail)))
    process.start()
    Mine.counter = 5
    try:
        raise unpack_error(ours.recv_bytes())
    except Mine as error:
        assert type(error) is Mine and error.index == 7 and error.args == (7,)
        assert type(error.sample) is Sample is error.sample_class
        assert "raise error" in str(error.__cause__), str(error.__cause__)
        assert Mine.counter == 5
        error.called()
        assert CALLS == [1]
    process.join()
    print("good")
"""
WORK = """
import sys
import cloudpickle
from feedline.engine.processes.remote import pack_error

def work(pipe, code):
    sys.modules["__main__"] = type(sys)("__main__")  # a worker does not import the user's main module
    try:
        cloudpickle.loads(code)()
    except Exception as error:
        pipe.send_bytes(pack_error(error))
"""


def test_classes_of_the_main_module_keep_their_identity_and_their_state(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "feedline_child.py").write_text(WORK)
    assert run(b"", str(tmp_path / "script.py")) == b"good\n"


def test_failed_samples_arrive_with_any_index():
    class Unpicklable:
        def __reduce__(self):
            raise RuntimeError("no")

        def __repr__(self):
            return "Unpicklable(3)"

    failures = [
        FailedSample(3, 1, 2, raised(CustomSignature(1, where="w"))),
        FailedSample(np.int64(4), 1, 2, KeyError("k")),
        FailedSample(("a", 1), 1, 3, KeyError("k")),
        FailedSample(Unpicklable(), 1, 4, OSError(2, "no", "f")),
    ]
    copies = unpack_failures(pack_failures(failures))
    assert [each.index for each in copies] == [3, 4, ("a", 1), "Unpicklable(3)"]
    assert [(each.epoch, each.step) for each in copies] == [(1, 2), (1, 2), (1, 3), (1, 4)]
    assert [type(each.error) for each in copies] == [CustomSignature, KeyError, KeyError, FileNotFoundError]
    assert all(isinstance(each.error.__cause__, RemoteTraceback) for each in copies)


def test_what_is_sent_needs_no_class_but_ours_to_be_read():
    data = pack_error(raised(CustomSignature(1, where="w")))

    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            assert (module, name) == ("feedline.engine.processes.remote", "_Node")
            return super().find_class(module, name)

    text, nodes = Plain(io.BytesIO(data)).load()
    assert (nodes[0].message, "CustomSignature" in text) == ("1 at w", True)
