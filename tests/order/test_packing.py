"""Packing puts every sequence into one row, as the textbook's algorithms do, and describes the rows consistently."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import feedline
from feedline import seeding
from feedline.order import Packing, pack_sequences
from feedline.order.packing import _COMPILED_FROM
from feedline.order.packing_kernels import KERNELS, _build, compiled

STRATEGIES = ["best-fit", "first-fit"]


@st.composite
def problems(draw, longest=1):
    """Lengths, up to ``longest`` rows each, and the length of a row; many equal lengths, or hardly any."""
    row_length = draw(st.one_of(st.integers(1, 12), st.integers(1, 300)))
    return draw(st.lists(st.integers(1, longest * row_length), max_size=80)), row_length


def textbook(lengths, row_length, choose):
    """Rows of sequence indices: by descending length, ``choose(rooms, length)`` names the row or None for a new one."""
    rows, rooms, since = [], [], []
    for time, index in enumerate(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))):
        row = choose(rooms, since, lengths[index])
        if row is None:
            row = len(rows)
            rows.append([])
            rooms.append(row_length)
            since.append(time)
        rows[row].append(index)
        rooms[row] -= lengths[index]
        since[row] = time
    return rows


def first_with_room(rooms, since, length):
    return next((row for row, room in enumerate(rooms) if room >= length), None)


def fullest_with_room(rooms, since, length):
    fitting = [row for row, room in enumerate(rooms) if room >= length]
    return min(fitting, key=lambda row: (rooms[row], -since[row]), default=None)


def fullest_with_room_or_the_first_of_them(rooms, since, length):
    fitting = [row for row, room in enumerate(rooms) if room >= length]
    return min(fitting, key=lambda row: rooms[row], default=None)


def rows_of(packing):
    bounds = packing.offsets.tolist()
    return [packing.sequences[begin:end].tolist() for begin, end in itertools.pairwise(bounds)]


def log_normal(count, median, row_length):
    """Lengths, log-normal with sigma 1: those longer than a row drawn anew, and truncated to one."""
    words = seeding.bulk_words(1, 0, seeding.Stream.PERMUTATION.word(0), 0, 8 * count)
    radius, angle = seeding.uniform(words[::2]), seeding.uniform(words[1::2])
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    lengths = np.ceil(median * np.exp(normal)).astype(np.int64)
    return lengths[lengths <= row_length][:count], np.minimum(lengths, row_length)[:count]


# -------------------------------------------------------------------------------------------------- the packing


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(problem=problems())
def test_every_sequence_is_in_one_row_whole(strategy, problem):
    lengths, row_length = problem
    packing = pack_sequences(lengths, row_length, strategy=strategy)
    assert sorted(packing.sequences.tolist()) == list(range(len(lengths)))
    assert packing.lengths.tolist() == [lengths[index] for index in packing.sequences]
    assert not packing.starts.any()


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(problem=problems(longest=4))
def test_split_sequences_are_in_pieces_that_make_them_up(strategy, problem):
    lengths, row_length = problem
    packing = pack_sequences(lengths, row_length, strategy=strategy, split=True)
    pieces = zip(packing.sequences.tolist(), packing.starts.tolist(), packing.lengths.tolist(), strict=True)
    expected = [
        (index, start, min(row_length, length - start))
        for index, length in enumerate(lengths)
        for start in range(0, length, row_length)
    ]
    assert sorted(pieces) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(problem=problems(longest=2))
def test_no_row_is_overfull_or_empty(strategy, problem):
    lengths, row_length = problem
    packing = pack_sequences(lengths, row_length, strategy=strategy, split=True)
    assert packing.offsets[0] == 0
    assert packing.offsets[-1] == len(packing.sequences)
    assert packing.num_rows == len(packing.offsets) - 1
    filled = [sum(packing.lengths[begin:end]) for begin, end in zip(packing.offsets, packing.offsets[1:], strict=False)]
    assert all(0 < positions <= row_length for positions in filled)
    if filled:
        assert packing.waste == pytest.approx(1 - sum(lengths) / (len(filled) * row_length), abs=1e-12)
        assert len(filled) <= 2 * sum(lengths) / row_length + 1


@given(problems())
@example(([3, 3, 2, 2, 2], 6))
def test_first_fit_is_the_textbooks(problem):
    packing = pack_sequences(*problem, strategy="first-fit")
    assert rows_of(packing) == textbook(*problem, first_with_room)


@given(problems())
@example(([5, 5, 4, 1, 1], 8))
def test_best_fit_is_the_textbooks(problem):
    packing = pack_sequences(*problem)
    assert rows_of(packing) == textbook(*problem, fullest_with_room)
    # Among rows of equal room, which one is taken changes no row's room.
    assert packing.num_rows == len(textbook(*problem, fullest_with_room_or_the_first_of_them))


def test_best_fit_may_need_fewer_rows_than_first_fit():
    lengths = [20, 18, 16, 14, 11, 11, 10, 8, 7, 5, 4, 3, 3, 1]
    assert [pack_sequences(lengths, 22, strategy=strategy).num_rows for strategy in STRATEGIES] == [6, 7]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_equal_lengths_is_that_of_the_sequences(strategy):
    packing = pack_sequences([2] * 7, 6, strategy=strategy)
    assert rows_of(packing) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_packs_into_no_row(strategy):
    packing = pack_sequences([], 8, strategy=strategy)
    assert (packing.num_rows, packing.waste, packing.offsets.tolist()) == (0, 0.0, [0])
    assert {array.dtype for array in (packing.sequences, packing.starts, packing.lengths)} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    "lengths", [[3, 200, 7], (3, 200, 7), np.array([3, 200, 7], np.uint8), np.array([3, 200, 7.0]).astype(">i8")]
)
def test_lengths_of_any_integer_type_pack_alike(lengths):
    packing = pack_sequences(lengths, np.int16(207))
    assert rows_of(packing) == [[1, 2], [0]]
    assert type(packing.row_length) is int


@pytest.mark.parametrize("row_length", [255, 256, 65_535, 65_536, 70_000])
def test_rows_of_any_length_are_packed_by_descending_length(row_length):
    """Sort keys are as narrow as the row's length allows: at the widths' borders, too."""
    lengths = [1, row_length, row_length - 1, row_length]
    assert rows_of(pack_sequences(lengths, row_length)) == [[1], [3], [2, 0]]


def test_what_is_returned_is_read_only_and_the_lengths_are_left_alone():
    lengths = np.array([3, 1, 2])
    packing = pack_sequences(lengths, 4)
    for array in (packing.sequences, packing.starts, packing.lengths, packing.offsets):
        assert array.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert lengths.flags.writeable
    assert lengths.tolist() == [3, 1, 2]


def test_the_surface_has_it():
    assert feedline.pack_sequences is pack_sequences
    assert type(pack_sequences([1], 1)) is Packing


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("median", "most"), [(0.1, 0.01), (0.25, 0.01), (0.45, 0.01), (0.6, 0.02), (1.0, 0.02)])
def test_waste_is_small_on_log_normal_lengths(strategy, median, most):
    """Whether those longer than a row are drawn anew or truncated."""
    for lengths in log_normal(10_000, median * 2048, 2048):
        assert len(lengths) == 10_000
        assert pack_sequences(lengths, 2048, strategy=strategy).waste <= most


# ------------------------------------------------------------------------------------------------- rows described


@given(problems(longest=2))
def test_segments_positions_and_cumulative_lengths_agree(problem):
    packing = pack_sequences(*problem, split=True)
    for row in range(packing.num_rows):
        lengths = packing.lengths[packing.offsets[row] : packing.offsets[row + 1]].tolist()
        padding = [0] * (packing.row_length - sum(lengths))
        ids, positions, bounds = packing.segment_ids(row), packing.positions(row), packing.cu_seqlens(row)
        assert ids.tolist() == [n for n, length in enumerate(lengths, 1) for _ in range(length)] + padding
        assert positions.tolist() == [place for length in lengths for place in range(length)] + padding
        assert bounds.tolist() == [sum(lengths[:count]) for count in range(len(lengths) + 1)]
        assert packing.max_seqlen(row) == max(lengths)
        assert type(packing.max_seqlen(row)) is int
        assert ids.dtype == positions.dtype == bounds.dtype == np.int32
        for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
            assert (ids[begin:end] == number).all()


@pytest.mark.parametrize("method", ["segment_ids", "positions", "cu_seqlens", "max_seqlen"])
@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there_is_an_index_error_with_the_number_of_rows(method, row):
    packing = pack_sequences([3, 4], 4)
    with pytest.raises(IndexError, match=re.escape(f"row must satisfy 0 <= row < 2 (num_rows), got {row}")):
        getattr(packing, method)(row)


# --------------------------------------------------------------------------------------------------- both builds


def placed_by(kernel, strategy, lengths, row_length, *, on_lists):
    descending = -np.sort(-np.asarray(lengths, dtype=np.int64))
    buffers = [descending, np.zeros(len(lengths), dtype=np.int64), *KERNELS[strategy][1](descending, row_length)]
    if on_lists:
        buffers = [buffer.tolist() for buffer in buffers]
    return kernel(*buffers), [np.asarray(buffer).tolist() for buffer in buffers]


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=300)
@given(problem=problems().filter(lambda problem: problem[0]))
def test_the_compiled_build_places_as_the_reference(strategy, problem):
    """Rows, their number, and all that is left in the buffers."""
    pytest.importorskip("numba")
    reference = placed_by(KERNELS[strategy][0], strategy, *problem, on_lists=True)
    assert placed_by(compiled(strategy), strategy, *problem, on_lists=False) == reference


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_many_sequences_pack_alike_with_and_without_numba(strategy):
    """Where numba is absent, the first half is the second."""
    count = _COMPILED_FROM
    code = (
        "import sys, zlib, feedline, numpy as np\n"
        "if {hidden}: sys.modules['numba'] = None\n"
        f"lengths = np.arange(1, {count} + 1) ** 2 % 1009 + 1\n"
        f"packing = feedline.pack_sequences(lengths, 2048, strategy={strategy!r})\n"
        "print(packing.num_rows, zlib.crc32(packing.sequences), zlib.crc32(packing.offsets))"
    )
    seen = [
        subprocess.run([sys.executable, "-c", code.format(hidden=hidden)], check=True, capture_output=True, text=True)
        for hidden in (False, True)
    ]
    assert seen[0].stdout == seen[1].stdout != ""


def test_a_kernel_is_compiled_where_nothing_can_be_kept_on_disk():
    """A function without a file has no place for its cache, as one in folders that cannot be written."""
    numba = pytest.importorskip("numba")
    names = {}
    exec("def double(number):\n    return 2 * number", names)
    assert _build(numba, names["double"])(21) == 42


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], 0), "row_length must be a positive integer, got 0"),
        (([1], 8.0), "row_length must be a positive integer, got 8.0"),
        (([1], 2**31), "row_length must be at most 2147483647 (positions are int32), got 2147483648"),
        (([[1, 2]], 8), "lengths must be one-dimensional, one a sequence, got shape (1, 2)"),
        (
            ({1, 2}, 8),
            "lengths must be a one-dimensional sequence or array, one a sequence, got set: give a list of them",
        ),
        (([[1], [1, 2]], 8), "lengths must be one-dimensional, one a sequence, got sequences of different lengths"),
        ((3, 8), "lengths must be one-dimensional, one a sequence, got shape ()"),
        (([1.0, 2.0], 8), "lengths must be integers, got dtype float64"),
        (([True], 8), "lengths must be integers, got dtype bool"),
        (([4, 0, -1], 8), "lengths must be from 1 to 2**63 - 1, got 0 at index 1"),
        ((np.array([2**63], np.uint64), 8), "lengths must be from 1 to 2**63 - 1, got 9223372036854775808 at index 0"),
        (
            ([8, 9, 10], 8),
            "lengths must be at most row_length (8), got 9 at index 1: truncate it, drop it or pass split=True",
        ),
    ],
)
def test_wrong_arguments_are_a_value_error_that_names_them(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pack_sequences(*arguments)


def test_an_unknown_strategy_is_a_value_error_that_names_the_known():
    for strategy in ("next-fit", ["best-fit"]):
        message = f'strategy must be "best-fit" or "first-fit", got {strategy!r}'
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            pack_sequences([1], 8, strategy=strategy)


def test_whether_to_split_is_true_or_false():
    with pytest.raises(ValueError, match=r"^split must be True or False, got 'no'$"):
        pack_sequences([9], 8, split="no")


@pytest.mark.parametrize("row", [None, 1.0, True, "0"])
def test_a_row_that_is_no_integer_is_a_type_error(row):
    packing = pack_sequences([1, 2], 8)
    for ask in (packing.cu_seqlens, packing.segment_ids, packing.positions, packing.max_seqlen):
        with pytest.raises(TypeError, match=rf"^row must be an integer, got {row!r} \({type(row).__name__}\)$"):
            ask(row)
