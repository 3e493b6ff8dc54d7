"""Laws of the channel: frames arrive whole, once, in order, with their descriptors; sending never blocks the parent."""

import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline.engine.processes import channel as module
from feedline.engine.processes.channel import Channel
from feedline.sharing import Block


@pytest.fixture
def ends():
    ours, theirs = multiprocessing.Pipe()
    pair = Channel(ours, waits=False), Channel(theirs, waits=False)
    yield pair
    for end in pair:
        end.close()


def received(end):
    frames = []
    while (frame := end.receive()) is not None:
        frames.append(frame)
    return frames


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(0, 200_000), max_size=6))
def test_frames_arrive_whole_and_in_order(sizes):
    ours, theirs = multiprocessing.Pipe()
    one, other = Channel(ours, waits=False), Channel(theirs, waits=False)
    payloads = [os.urandom(size) for size in sizes]
    for payload in payloads:
        one.send(payload)
    assert [frame.payload for frame in received(other)] == payloads
    one.close()
    other.close()


def test_descriptors_come_with_their_frame(ends):
    one, other = ends
    blocks = [Block.create(10) for _ in range(3)]
    for number, block in enumerate(blocks):
        np.asarray(block)[:] = number
    one.send(b"none")
    one.send(b"two", [blocks[0].descriptor, blocks[1].descriptor])
    one.send(bytes(100_000), [blocks[2].descriptor])
    frames = received(other)
    assert [len(frame.descriptors) for frame in frames] == [0, 2, 1]
    found = [
        np.asarray(Block.attach(blocks[0].nbytes, descriptor=descriptor, private=False))[0]
        for frame in frames
        for descriptor in frame.descriptors
    ]
    assert found == [0, 1, 2]
    for block in blocks:
        block.close_descriptor()


def test_what_does_not_go_at_once_goes_later(ends):
    one, other = ends
    payload = os.urandom(module._LARGE)
    count = 0
    while one.send(payload):
        count += 1
        assert count < 1000
    one.send(b"last")
    frames = received(other)
    while not one.flush():
        frames += received(other)
    frames += received(other)
    assert [frame.payload for frame in frames] == [payload] * (count + 1) + [b"last"]


def test_the_end_of_the_pipe_is_reported_after_what_was_sent(ends):
    one, other = ends
    one.send(b"last")
    one.close()
    assert other.receive(wait=True).payload == b"last"
    assert other.receive(wait=True) is None
    assert other.ended


def test_half_a_frame_is_no_frame(ends):
    one, other = ends
    one._socket.send(module._HEAD.pack(10, 0, 0) + b"half")
    one.close()
    assert other.receive(wait=True) is None
    assert other.ended


def test_descriptors_that_nobody_took_are_closed(ends):
    one, other = ends
    block = Block.create(10)
    one._socket.setblocking(True)
    import socket

    socket.send_fds(one._socket, [module._HEAD.pack(10, 1, 0)], [block.descriptor])
    assert other.receive() is None
    block.close_descriptor()
    other.close()  # the fixture of every test looks for descriptors that are left


def test_too_many_descriptors_are_refused(ends):
    with pytest.raises(ValueError, match="a frame takes at most 250 descriptors, got 251"):
        ends[0].send(b"", [0] * 251)


def test_descriptors_of_a_frame_that_cannot_be_attached_are_closed(ends, monkeypatch):
    def attach(nbytes, *, descriptor, private):
        os.close(descriptor)
        raise OSError(12, "no memory")

    one, other = ends
    block = Block.create(10)
    one.send(bytes(100_000), [block.descriptor, block.descriptor])
    block.close_descriptor()
    held = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(Block, "attach", attach)
    with pytest.raises(OSError, match="no memory"):
        other.receive()
    assert len(list(Path("/proc/self/fd").iterdir())) <= held


def test_descriptors_that_this_process_has_no_room_for_are_missed(ends):
    one, other = ends
    block = Block.create(10)
    one.send(b"two", [block.descriptor, block.descriptor])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="descriptors that were sent are lost"):
            other.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    block.close_descriptor()
