"""Laws of nested samples: taking, replacing, rebuilding."""

import collections
import dataclasses
import types
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.tree import Kind, child_place, get_item, keys_of, kind_of, rebuild, replace_item, values_of


class Point(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    image: object
    label: object = 0

    def __post_init__(self):
        if self.image == "bad":
            raise ValueError("a bad image")


@dataclasses.dataclass
class Derived:
    x: int
    double: int = dataclasses.field(init=False)

    def __post_init__(self):
        self.double = 2 * self.x


class Frozen(Mapping):
    """A mapping whose type cannot be rebuilt: its constructor takes no mapping."""

    def __init__(self, a, b):
        self._data = {"a": a, "b": b}

    def __getitem__(self, key):
        return self._data[key]

    def __iter__(self):
        return iter(self._data)

    def __len__(self):
        return len(self._data)


class Pair(tuple):
    """A tuple whose constructor takes no iterable."""

    __slots__ = ()

    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


CONTAINERS = [
    (1, 2),
    [1, 2],
    {"a": 1, "b": 2},
    {0: 1, -1: 2},
    Point(1, 2),
    Record(1, 2),
    OrderedDict(a=1, b=2),
    defaultdict(list, a=1, b=2),
    Counter(a=1, b=2),
    UserDict(a=1, b=2),
    UserList([1, 2]),
    deque([1, 2]),
]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: type(c).__name__)
def test_rebuild_keeps_type_and_keys_and_leaves_the_container_as_it_was(container):
    before = values_of(container)
    rebuilt = rebuild(container, ["new", "values"])
    assert type(rebuilt) is type(container)
    assert keys_of(rebuilt) == keys_of(container)
    assert values_of(rebuilt) == ["new", "values"]
    assert values_of(container) == before == [1, 2]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: type(c).__name__)
def test_replace_item_changes_one_element_of_a_copy(container):
    for key in keys_of(container):
        replaced = replace_item(container, key, "new")
        assert type(replaced) is type(container)
        assert get_item(replaced, key) == "new"
        assert [get_item(replaced, k) for k in keys_of(container) if k != key] == [
            get_item(container, k) for k in keys_of(container) if k != key
        ]
    assert values_of(container) == [1, 2]


def test_a_defaultdict_keeps_its_factory():
    assert rebuild(defaultdict(list, a=1), [2])["missing"] == []


@pytest.mark.parametrize(
    ("container", "plain"),
    [
        (Frozen(1, 2), {"a": "x", "b": "y"}),
        (range(2), ["x", "y"]),
        (Pair(1, 2), ("x", "y")),
    ],
)
def test_what_cannot_be_rebuilt_comes_back_as_a_plain_container(container, plain):
    assert rebuild(container, ["x", "y"][: len(keys_of(container))]) == plain


def test_a_sequence_that_drops_elements_comes_back_as_a_list():
    assert rebuild(deque([1], maxlen=1), [2]) == deque([2])

    class Unique(UserList):
        def __init__(self, values=()):
            super().__init__(dict.fromkeys(values))

    assert rebuild(Unique([1, 2]), [None, None]) == [None, None]


def test_a_read_only_mapping_is_rebuilt_by_its_constructor():
    rebuilt = rebuild(types.MappingProxyType({"a": 1}), [2])
    assert type(rebuilt) is types.MappingProxyType
    assert rebuilt == {"a": 2}


def test_a_dict_that_refuses_assignment_comes_back_as_a_dict():
    class ReadOnly(dict):
        def __setitem__(self, key, value):
            raise RuntimeError("read only")

    assert rebuild(ReadOnly(a=1), [2]) == {"a": 2}


def test_a_dataclass_is_rebuilt_without_its_checks_and_replaced_with_them():
    assert rebuild(Record(1), ["bad", 0]).image == "bad"
    with pytest.raises(ValueError, match="a bad image"):
        replace_item(Record(1), "image", "bad")
    assert replace_item(Derived(1), "x", 5).double == 10
    assert rebuild(Derived(1), [5, 6]).double == 6
    with pytest.raises((TypeError, ValueError), match="double"):  # ValueError before Python 3.13
        replace_item(Derived(1), "double", 5)


@given(st.lists(st.integers(), min_size=1), st.data())
def test_positions_count_from_either_end_as_in_python(values, data):
    key = data.draw(st.integers(-len(values), len(values) - 1))
    changed = [*values]
    changed[key] = "new"
    for cls in (list, tuple, deque):
        assert get_item(cls(values), key) == values[key]
        assert replace_item(cls(values), key, "new") == cls(changed)


def test_a_named_tuple_is_read_by_position_and_by_name():
    assert get_item(Point(1, 2), -1) == get_item(Point(1, 2), "y") == 2
    assert replace_item(Point(1, 2), 0, 5) == replace_item(Point(1, 2), "x", 5) == Point(5, 2)


def test_a_key_equal_to_a_position_is_replaced_once():
    assert replace_item([1, 1.0, True], 1, "new") == [1, "new", True]


@pytest.mark.parametrize("function", [get_item, lambda sample, key: replace_item(sample, key, 0)])
@pytest.mark.parametrize(
    ("sample", "key", "error", "message"),
    [
        ({"a": 1, "b": 2}, "c", KeyError, "key must be one of 'a', 'b', got 'c'"),
        (UserDict(a=1), "c", KeyError, "key must be one of 'a', got 'c'"),
        (Point(1, 2), "z", KeyError, "key must be one of the fields 'x', 'y' of Point, got 'z'"),
        (Record(1), 0, KeyError, "key must be one of the fields 'image', 'label' of Record, got 0"),
        ((1, 2), 2, IndexError, "key must be a position from -2 to 1 in a tuple of 2, got 2"),
        ([1], -2, IndexError, "key must be a position from -1 to 0 in a list of 1, got -2"),
        ((), 0, IndexError, "of an element, of which there is none, in a tuple of 0, got 0"),
        ((1, 2), "x", TypeError, "key must be an integer for a sample of type tuple, got 'x'"),
        ([1, 2], True, TypeError, "key must be an integer for a sample of type list, got True"),
        (5, 0, TypeError, "sample must be a tuple, list, mapping, .* got int; use key=None"),
        ("text", 0, TypeError, "got str; use key=None"),
    ],
)
def test_a_key_that_names_nothing_is_refused(function, sample, key, error, message):
    with pytest.raises(error, match=message):
        function(sample, key)


def test_a_long_list_of_keys_is_cut_in_the_message():
    with pytest.raises(KeyError, match=r"'k19', \.\.\., got 'x'"):
        get_item({f"k{i}": i for i in range(30)}, "x")


@pytest.mark.parametrize("function", [keys_of, values_of, lambda leaf: rebuild(leaf, [])])
def test_a_leaf_has_no_elements(function):
    with pytest.raises(TypeError, match="sample must be a tuple, list, mapping"):
        function("text")


def test_rebuild_refuses_another_number_of_values():
    with pytest.raises(ValueError, match="one value for each of the 2 elements of the dict, got 1"):
        rebuild({"a": 1, "b": 2}, [1])


def test_places_read_as_the_code_that_reaches_them():
    sample = {"image": [Point(1, Record(2))]}
    place = child_place("sample", sample, "image")
    place = child_place(place, sample["image"], 0)
    place = child_place(place, sample["image"][0], "y")
    assert child_place(place, sample["image"][0].y, "label") == "sample['image'][0].y.label"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"", None),
        (bytearray(), None),
        (memoryview(b""), None),
        (Record, None),
        ({1}, None),
        (Point(1, 2), Kind.NAMED_TUPLE),
        (collections.ChainMap(), Kind.MAPPING),
        (range(3), Kind.SEQUENCE),
        (Record(1), Kind.DATACLASS),
    ],
)
def test_kinds(value, kind):
    assert kind_of(value) is kind
