"""The pickler that writes what is sent to worker processes: a skeleton, and large memory beside it.

Guarantee: an array or a plain CPU tensor of 64 KiB or more is never copied into the pickle; it is laid aside as a
`Piece`, and so is every descriptor of a multiprocessing object. No open handle is copied by its content. The same
unchanged value gives the same pickle, to the byte, for as long as this process lives.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from feedline.datasets.combine import ConcatDataset, StackDataset
from feedline.datasets.subset import Subset
from feedline.datasets.tensor import TensorDataset
from feedline.engine.processes import handles
from feedline.engine.processes.findable import is_findable
from feedline.engine.task import Recipe
from feedline.frameworks import is_foreign
from feedline.sharing import Block, block_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

Rule = Callable[["ShippingPickler", Any], Any]

__all__ = ["LARGE", "Descriptor", "Piece", "ShippingPickler"]

LARGE = 64 * 1024  # below, a copy in the pickle costs less than an entry of its own
_MULTIPROCESSING = {"multiprocessing.connection", "multiprocessing.sharedctypes"}
_HOLDERS = (Recipe, TensorDataset, Subset, ConcatDataset, StackDataset)  # whose arrays are ours to watch


@dataclass(slots=True)
class Piece:
    """Memory laid aside while a value is pickled.

    Attributes:
        memory: the bytes, flat; or an array with gaps between its elements, which are left out when it is copied.
        owner: whose identity stands for the memory's; None where only the contents can.
        version: counts the changes in place, where the owner's kind counts them.
        watched: whether changes in place are looked for in the contents.
        block: the block that it lies in already, if there is one that can be sent.
    """

    memory: NDArray[Any]
    owner: Any
    version: int = 0
    watched: bool = False
    block: Block | None = None

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        address: int = self.memory.__array_interface__["data"][0]
        return address

    @property
    def is_flat(self) -> bool:
        """Whether it is a stretch of memory without gaps."""
        return self.memory.flags.c_contiguous


class Descriptor:
    """A descriptor on its way: written as its number, read as what gives the one received."""

    def __init__(self, number: int) -> None:
        self.number = number


_by_value: Counter[ModuleType] = Counter()  # how many picklers have told cloudpickle of a module, in all threads
_telling = threading.Lock()


def _take_by_value(module: ModuleType) -> None:
    with _telling:
        known = module.__name__ in list_registry_pickle_by_value()
        if _by_value[module] or not known:  # else the user has told it, and means it to stay
            _by_value[module] += 1
            cloudpickle.register_pickle_by_value(module)


def _name_again(module: ModuleType) -> None:
    with _telling:
        if _by_value[module]:
            _by_value[module] -= 1
            if not _by_value[module]:
                cloudpickle.unregister_pickle_by_value(module)


class _Recorder:
    """What multiprocessing's objects take for a process that is being started: notes the descriptors they need."""

    DupFd = Descriptor

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1


class _Aside:
    """What is laid aside, in the order in which the pickle refers to it."""

    def __init__(self) -> None:
        self.pieces: list[Piece | int] = []
        self._waiting: dict[int, tuple[pickle.PickleBuffer, Piece | int]] = {}

    def take(self, piece: Piece | int) -> pickle.PickleBuffer:
        """What stands for a piece in the arguments of a reduction."""
        buffer = pickle.PickleBuffer(bytearray(1))
        self._waiting[id(buffer)] = (buffer, piece)
        return buffer

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Asked of each buffer, whether it stays in the pickle: not ours, nor a large one of another package's."""
        if id(buffer) in self._waiting:
            self.pieces.append(self._waiting[id(buffer)][1])
            return False
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        self.pieces.append(Piece(np.frombuffer(raw, np.uint8), owner=None))
        return False


class ShippingPickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    """Pickles one value for worker processes.

    Args:
        file: has ``write``; takes the skeleton.
        forked: whether the workers are forks of this process, and so have its locks.

    Attributes:
        pieces: what was laid aside, in the order in which it is read again: memory, or the number of a descriptor.
        descriptors: of the user's multiprocessing objects, which own them.
        fork_lock: a multiprocessing lock that only forks have, if one was met and the workers are none.
    """

    def __init__(self, file: Any, *, forked: bool) -> None:
        self._aside = _Aside()  # no part of it refers to the pickler: what that holds goes with it, at once
        super().__init__(file, protocol=5, buffer_callback=self._aside)
        self.fork_lock: Any = None
        self._recorder = _Recorder()
        self._forked = forked
        self._watched: set[int] = set()
        self._by_value: list[ModuleType] = []  # told to cloudpickle, until the value is written
        self._rules: dict[type, Rule | None] = {}
        self._shared = ForkingPickler(io.BytesIO()).dispatch_table

    @property
    def pieces(self) -> list[Piece | int]:
        """Pieces so far."""
        return self._aside.pieces

    @property
    def descriptors(self) -> list[int]:
        """Descriptors in this process, by number."""
        return self._recorder.descriptors

    def write(self, value: Any) -> None:
        """Pickle ``value``, as multiprocessing does for a process that it starts."""
        self._watch(value if isinstance(value, tuple) else (value,))
        try:
            with self.spawning():
                self.dump(value)
        finally:
            while self._by_value:
                _name_again(self._by_value.pop())

    @contextmanager
    def spawning(self) -> Iterator[None]:
        """Within it this thread's multiprocessing objects let themselves be taken apart, and need our descriptors."""
        before = context.get_spawning_popen()
        context.set_spawning_popen(self._recorder)  # type: ignore[arg-type]  # all that it needs of a Popen
        try:
            yield
        finally:
            context.set_spawning_popen(before)

    def reducer_override(self, obj: Any) -> Any:
        """How an object is taken apart; NotImplemented: as it says itself."""
        kind = type(obj)
        try:
            rule = self._rules[kind]
        except KeyError:
            rule = self._rules[kind] = self._rule(kind)
        return super().reducer_override(obj) if rule is None else rule(self, obj)

    def _rule(self, kind: type) -> Rule | None:  # noqa: PLR0911 -- one for each kind of rule
        """Our own way to take apart the objects of a class, if there is one."""
        if kind in _RULES:
            return _RULES[kind]
        names = [(base.__module__, base.__name__) for base in kind.__mro__]
        if rules := [_NAMED[name] for name in names if name in _NAMED]:
            return rules[0]
        if issubclass(kind, type | FunctionType):
            return ShippingPickler._definition
        for bases, rule in _FAMILIES:
            if issubclass(kind, bases):
                return rule
        reduce = self._shared.get(kind)
        if reduce is not None and reduce.__module__ in _MULTIPROCESSING:
            return lambda _, obj: reduce(obj) if handles.is_shared(obj) else NotImplemented
        if kind.__module__.partition(".")[0] in handles.OPEN:
            return lambda _, obj: handles.refuse(obj)
        return _torch_rule(kind)

    def _definition(self, defined: Any) -> Any:
        """A class or function of a module that workers cannot find goes by value, like those of the main module."""
        name = defined.__module__
        module = sys.modules.get(name) if isinstance(name, str) and not self._forked else None
        if module is not None and module not in self._by_value and name != "__main__" and not is_findable(name):
            self._by_value.append(module)
            _take_by_value(module)
        return super().reducer_override(defined)

    def _holder(self, holder: Any) -> Any:
        if isinstance(holder, TensorDataset):
            self._watch(holder.tensors)
        elif isinstance(holder, ConcatDataset | StackDataset):
            self._watch(holder.parents)
        else:
            self._watch((holder.dataset, getattr(holder, "indices", None)))
        return NotImplemented

    def _watch(self, held: Iterable[Any]) -> None:
        """Look for changes in place in the arrays among ``held``; the values all live while they are pickled."""
        for each in held:
            self._watched.add(id(each))
            if is_foreign(each):
                self._watched.add(id(each.data))

    def _descriptor(self, descriptor: Descriptor) -> Any:
        return handles.identity, (self._aside.take(descriptor.number),)

    def _lock(self, lock: Any) -> Any:
        if not handles.is_fork_lock(lock):
            return NotImplemented
        if self._forked:
            return handles.inherited_lock, (id(lock), lock._semlock.handle)  # noqa: SLF001 -- no public name
        if self.fork_lock is None:
            self.fork_lock = lock
        return handles.identity, (None,)

    def _array(self, array: NDArray[Any]) -> Any:
        root = handles.map_of(array)
        if root is not None:
            return handles.reduce_map(array, root)
        if array.nbytes < LARGE or array.dtype.hasobject:
            foreign = not array.dtype.isnative and not array.dtype.hasobject
            return array.copy(order="C").__reduce_ex__(5) if foreign else NotImplemented  # NumPy would lose the order
        piece, start = _piece_of(array, _root(array))
        piece.watched = id(array) in self._watched
        strides = array.strides if piece.is_flat else None
        return rebuild_array, (self._aside.take(piece), array.dtype, array.shape, strides, start, array.flags.writeable)

    def _tensor(self, tensor: Any) -> Any:
        torch: Any = sys.modules["torch"]
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
            return NotImplemented
        if tensor.is_shared():
            return self._shared[type(tensor)](tensor)
        if tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or any(getattr(tensor, "names", ())):
            return NotImplemented
        if tensor._backward_hooks:  # noqa: SLF001 -- torch has no other name, nor for `_version`
            return NotImplemented
        array = numpy_of(tensor)
        piece, _ = _piece_of(array, tensor)
        piece.version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001
        piece.watched = id(tensor) in self._watched
        strides = tensor.stride() if piece.is_flat and array.size else None
        memory = self._aside.take(piece) if array.nbytes >= LARGE else bytearray(piece.memory.tobytes())
        kind = (type(tensor) is torch.nn.Parameter, tensor.requires_grad)
        args = (memory, tensor.dtype, tuple(tensor.shape), strides, *kind)
        return rebuild_tensor, args, vars(tensor) or None, None, None, set_attributes

    def _storage(self, storage: Any) -> Any:
        untyped = getattr(storage, "_untyped_storage", storage)  # of the typed one's methods each warns
        return self._shared[type(storage)](storage) if untyped.is_shared() else NotImplemented


_RULES: dict[type, Rule] = {
    **dict.fromkeys((np.ndarray, np.memmap), ShippingPickler._array),  # noqa: SLF001 -- by class, as its methods are
    Descriptor: ShippingPickler._descriptor,  # noqa: SLF001
    cached_property: lambda _, cached: (rebuild_cached_property, (cached.func, cached.attrname)),
}
_NAMED: dict[tuple[str, str], Rule] = {  # importing them takes 6 ms, which loaders without them are spared
    ("multiprocessing.heap", "Arena"): lambda _, arena: handles.reduce_arena(arena),
    ("multiprocessing.synchronize", "SemLock"): ShippingPickler._lock,  # noqa: SLF001
}
_FAMILIES: tuple[tuple[tuple[type, ...], Rule], ...] = (
    (_HOLDERS, ShippingPickler._holder),  # noqa: SLF001
    ((io.IOBase,), lambda _, file: handles.reduce_file(file)),
)


def _torch_rule(kind: type) -> Rule | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not kind.__module__.startswith("torch"):
        return None
    if kind in (torch.Tensor, torch.nn.Parameter):
        return ShippingPickler._tensor  # noqa: SLF001
    return ShippingPickler._storage if kind in (torch.UntypedStorage, torch.storage.TypedStorage) else None  # noqa: SLF001


class _Stretch:
    """Memory from an address on, as ``numpy.asarray`` reads it."""

    def __init__(self, address: int, nbytes: int, keeper: Any) -> None:
        self.__array_interface__ = {"data": (address, True), "shape": (nbytes,), "typestr": "|u1", "version": 3}
        self._keeper = keeper


def _piece_of(array: NDArray[Any], owner: Any) -> tuple[Piece, int]:
    """The memory of an array, and where in it its first element begins.

    All of the memory from its first byte to its last, so that strides stay and arrays that share memory share it in
    the worker; without the gaps where these make it larger than its elements are.
    """
    first = low = array.__array_interface__["data"][0]
    high = low + array.itemsize if array.size else low
    for size, stride in zip(array.shape, array.strides, strict=True) if array.size else ():
        low += min((size - 1) * stride, 0)
        high += max((size - 1) * stride, 0)
    block = block_of(array)
    if block is not None and not block.sendable:
        block = None
    if block is None and high - low > array.nbytes:
        return Piece(array, owner), 0
    return Piece(np.asarray(_Stretch(low, high - low, array)), owner, block=block), first - low


def _root(array: NDArray[Any]) -> NDArray[Any]:
    """The array whose memory a view shows: views are often made anew for each pickle."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def numpy_of(tensor: Any) -> NDArray[Any]:
    """The tensor's memory as NumPy sees it; as whole numbers of the same size, where NumPy has no such dtype."""
    torch: Any = sys.modules["torch"]
    plain = tensor.detach()
    try:
        array: NDArray[Any] = plain.numpy()
    except TypeError:
        array = plain.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()]).numpy()
    return array


def rebuild_array(*parts: Any) -> NDArray[Any]:
    """An array over memory that was sent; of memory, dtype, shape, strides, start and whether it may be written."""
    memory, dtype, shape, strides, start, writeable = parts
    array: NDArray[Any] = np.ndarray(shape, dtype, memory, start, strides)
    array.flags.writeable = writeable
    return array


def rebuild_cached_property(func: Callable[[Any], Any], name: str | None) -> cached_property[Any]:
    """A cached property of a class that travels by value; before Python 3.12 it holds a lock."""
    made = cached_property(func)
    if name is not None:
        made.__set_name__(object, name)
    return made


def set_attributes(tensor: Any, attributes: dict[str, Any]) -> None:
    """Give a tensor the attributes that were sent with it."""
    vars(tensor).update(attributes)


def rebuild_tensor(*parts: Any) -> Any:
    """A tensor over memory that was sent; of memory, dtype, shape, strides, is_parameter and requires_grad."""
    memory, dtype, shape, strides, is_parameter, requires_grad = parts
    torch: Any = sys.modules["torch"]  # its dtype came with the pickle
    flat = torch.frombuffer(memory, dtype=torch.uint8).view(dtype) if len(memory) else torch.empty(0, dtype=dtype)
    tensor = flat.view(shape) if strides is None else flat.as_strided(shape, strides)
    return torch.nn.Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)
