"""Frames between parent and worker: bytes and descriptors, over one duplex pipe.

Guarantee: a frame arrives whole, once and in order, or the end of the pipe is reported. The parent's `Channel.send`
never blocks (a parent and a worker that wait for each other's buffer would wait for ever): what does not go at once
goes with `Channel.flush`. A large frame travels in a block of shared memory, so that the pipe holds many frames.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feedline.sharing import Block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

__all__ = ["Channel", "Frame"]

_HEAD = struct.Struct("<IBB")  # bytes that follow, descriptors that come along, and whether the payload is in a block
_SIZE = struct.Struct("<Q")
_LARGE = 32 * 1024  # a pipe holds about 200 KiB: several frames of every worker's window
_MOST_DESCRIPTORS = 250  # the kernel passes 253 at a time
_CHUNK = 64 * 1024
# Plain integers: what the module has are members of enumerations, whose operators are Python.
_AT_ONCE = int(getattr(socket, "MSG_DONTWAIT", 0))
_CUT_OFF = int(getattr(socket, "MSG_CTRUNC", 0))


class Frame(NamedTuple):
    """What came in one piece. The descriptors belong to the receiver."""

    payload: bytes
    descriptors: tuple[int, ...] = ()


class Channel:
    """One end of a duplex pipe. Not for use by several threads.

    Args:
        connection: an end of a socket pair, as ``multiprocessing.Pipe()`` makes it; it is taken over.
        waits: whether `send` waits until all is sent, as in a worker.

    Attributes:
        unsent: what did not go at once: bytes, descriptors, and the blocks that must live until then.
        ended: whether the other end is closed.
    """

    def __init__(self, connection: Connection, *, waits: bool) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        connection.close()
        self._socket.settimeout(None)
        self._flags = 0 if waits else _AT_ONCE
        self.unsent: deque[tuple[bytes, tuple[int, ...], tuple[Block, ...]]] = deque()
        self._bytes = bytearray()
        self._room = memoryview(bytearray(_CHUNK))
        self._rooms = [self._room]
        self._is_drained = False
        self._descriptors: deque[int] = deque()
        self.ended = False
        _channels.add(self)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def send(self, payload: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a frame; False if a part of it is still to go.

        The descriptors are the caller's, and must stay open until all is sent (the pipe keeps copies then).

        Raises:
            OSError: the other end is closed.
            ValueError: there are too many descriptors.
        """
        if len(descriptors) > _MOST_DESCRIPTORS:
            raise ValueError(f"a frame takes at most {_MOST_DESCRIPTORS} descriptors, got {len(descriptors)}")
        blocks: tuple[Block, ...] = ()
        if len(payload) > _LARGE:
            try:
                block = Block.create(len(payload))
                descriptors = (*descriptors, block.descriptor)
            except (OSError, ValueError):
                pass  # no shared memory: through the pipe
            else:
                np.asarray(block)[: len(payload)] = np.frombuffer(payload, np.uint8)
                payload, blocks = _SIZE.pack(len(payload)) + _SIZE.pack(block.nbytes), (block,)
        data = _HEAD.pack(len(payload), len(descriptors), len(blocks)) + payload
        if not descriptors and not self.unsent:  # the common case, once a batch
            try:
                sent = self._socket.send(data, self._flags)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return True
            data = data[sent:]
        self.unsent.append((data, tuple(descriptors), blocks))
        return self.flush()

    def flush(self) -> bool:
        """Send what can be sent; whether nothing is left.

        Raises:
            OSError: the other end is closed.
        """
        unsent = self.unsent
        while unsent:
            data, descriptors, blocks = unsent[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._socket, [data], descriptors, self._flags)
                else:
                    sent = self._socket.send(data, self._flags)
            except BlockingIOError:
                return False
            if sent == len(data):
                unsent.popleft()
            else:
                unsent[0] = (data[sent:], (), blocks)
        return True

    def receive(self, *, wait: bool = False) -> Frame | None:
        """The next frame; None where none is complete, or the pipe has ended (see ``ended``).

        Raises:
            OSError: there was no descriptor, or no memory, left for what was sent.
        """
        while True:
            have = self._bytes
            if len(have) >= _HEAD.size:
                size, count, in_block = _HEAD.unpack_from(have)
                end = _HEAD.size + size
                if len(have) >= end:
                    payload = bytes(have[_HEAD.size : end])
                    del have[:end]
                    return self._with_descriptors(payload, count, in_block=in_block) if count else Frame(payload)
            if self.ended:
                return None
            if self._is_drained and not wait:  # asking again would be a call of the system for nothing
                self._is_drained = False
                return None
            if not self._read(wait=wait):
                return None

    def close(self) -> None:
        """Close this end; descriptors that nobody took are closed too. May be called again."""
        self.ended = True
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self.unsent.clear()

    def _read(self, *, wait: bool) -> bool:
        """Take in what is there; whether something was."""
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into(self._rooms, _ANCILLARY, 0 if wait else _AT_ONCE)
        except BlockingIOError:
            return False
        except ConnectionError:
            size, ancillary, flags = 0, [], 0
        self._is_drained = size < _CHUNK and not ancillary  # the kernel stops behind descriptors
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) // 4
                self._descriptors.extend(struct.unpack(f"{whole}i", content[: 4 * whole]))
        if flags & _CUT_OFF:
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: descriptors that were sent are lost")
        self._bytes += self._room[:size]
        self.ended = not size
        return size > 0

    def _with_descriptors(self, payload: bytes, count: int, *, in_block: bool) -> Frame:
        taken = [self._descriptors.popleft() for _ in range(count)]
        if in_block:
            length, nbytes = _SIZE.unpack_from(payload)[0], _SIZE.unpack_from(payload, _SIZE.size)[0]
            try:
                block = Block.attach(nbytes, descriptor=taken.pop(), private=False)
            except BaseException:
                for descriptor in taken:
                    os.close(descriptor)
                raise
            payload = np.asarray(block)[:length].tobytes()
        return Frame(payload, tuple(taken))


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _close_inherited() -> None:
    """In a forked process: both ends must see the end of the pipe when its owners are gone."""
    for channel in list(_channels):
        channel.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)

_ANCILLARY = socket.CMSG_SPACE(4 * (_MOST_DESCRIPTORS + 1)) if hasattr(socket, "CMSG_SPACE") else 0
