"""What the loader takes as a dataset, how it looks, and how it behaves in programs of their own."""

import os
import pickle
import random
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import feedline
from feedline import DataLoader, default_collate


def run(code, *, check=True, cwd=None, **how):
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert not check or done.returncode == 0, done.stderr
    return done


# ------------------------------------------------------------------------------------------------------------- datasets


def test_containers_and_arrays_are_datasets(tmp_path):
    array = np.arange(10.0).reshape(5, 2)
    np.save(tmp_path / "data.npy", array)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    for data in (array, list(array), tuple(array), dict(enumerate(array)), mapped):
        batches = list(DataLoader(data, 2))
        assert all(type(batch) is np.ndarray for batch in batches)
        assert np.concatenate(batches).tolist() == array.tolist()
    del mapped, data


def test_batches_are_the_receivers_own():
    array = np.zeros((4, 2))
    for batch in DataLoader(array, 2):
        batch[:] = 1
    assert not array.any()


def test_a_mapping_is_asked_for_what_the_sampler_names():
    (batch,) = DataLoader({"a": 1, "b": 2, "c": 3}, 3, sampler=["c", "a", "b"])
    assert batch.tolist() == [3, 1, 2]


def test_torch_tensors_give_torch_tensors():
    import torch

    for data in (torch.arange(6).reshape(3, 2), [torch.ones(2)] * 3, feedline.TensorDataset(torch.ones(3, 2))):
        batch = next(iter(DataLoader(data, 2)))
        batch = batch[0] if isinstance(batch, tuple) else batch
        assert isinstance(batch, torch.Tensor)
        assert batch.shape == (2, 2)


def test_jax_arrays_give_jax_arrays():
    import jax.numpy as jnp

    for data in (jnp.arange(6).reshape(3, 2), [jnp.ones(2)] * 3, feedline.TensorDataset(jnp.ones((3, 2)))):
        batch = next(iter(DataLoader(data, 2)))
        batch = batch[0] if isinstance(batch, tuple) else batch
        assert type(batch) is type(jnp.ones(2))
        assert batch.shape == (2, 2)


def test_any_sequence_protocol_is_enough():
    class Plain:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"x": index, "name": str(index)}

    (batch,) = DataLoader(Plain(), 3)
    assert (batch["x"].tolist(), batch["name"]) == ([0, 1, 2], ["0", "1", "2"])


@pytest.mark.parametrize("error", [TypeError, NotImplementedError])
def test_a_length_that_is_refused_is_no_length(error):
    class Unsized:
        def __len__(self):
            raise error("no length here")

        def __getitem__(self, index):
            return index

    loader = DataLoader(Unsized(), 2, sampler=[0, 1])
    assert "dataset=Unsized," in repr(loader)
    assert [batch.tolist() for batch in loader] == [[0, 1]]
    with pytest.raises(TypeError, match="dataset must have a length where no sampler is given"):
        DataLoader(Unsized())


def test_a_batch_sampler_says_what_is_in_a_batch():
    batches = [[0, 1], (2,), np.array([3, 4])]
    assert [batch.tolist() for batch in DataLoader(range(5), batch_sampler=batches)] == [[0, 1], [2], [3, 4]]


@pytest.mark.parametrize(
    ("batches", "message"),
    [([0, 1], "batch_sampler must yield lists"), ([[0], []], "batch_sampler.* empty")],
)
def test_what_a_batch_sampler_yields_wrongly_is_named(batches, message):
    with pytest.raises((TypeError, ValueError), match=message):
        list(DataLoader(range(5), batch_sampler=batches))


def test_without_batches_a_sampler_may_name_many_samples_at_once():
    loader = DataLoader(np.arange(5), None, sampler=[[0, 1], [2], [3, 4]])
    assert [sample.tolist() for sample in loader] == [[0, 1], [2], [3, 4]]


def test_collate_functions_may_be_lambdas():
    assert list(DataLoader([1, 2, 3], 2, collate_fn=lambda batch: sum(batch) + 1)) == [4, 4]


def test_collate_batch_is_the_collate_function_and_nothing_for_nothing():
    loader = DataLoader([1, 2])
    assert loader._collate_batch([]) == ()
    assert loader._collate_batch([1, 2]).tolist() == default_collate([1, 2]).tolist()


# ----------------------------------------------------------------------------------------------------------- appearance


def test_repr_tells_what_it_is():
    loader = DataLoader(range(1800), 32, shuffle=True, seed=7)
    assert repr(loader) == (
        "DataLoader(dataset=range of 1,800 samples, batch_size=32, sampler=RandomSampler, batches=57 an epoch, seed=7, "
        "num_workers=0)"
    )


def test_the_notebooks_table_escapes_what_users_name():
    evil = type("<script>alert(1)</script>", (list,), {})
    html = DataLoader(evil([1]), seed=7)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.startswith("<table>")
    assert html.count("<tr>") == html.count("</tr>") == 6


@pytest.mark.parametrize("started", [False, True])
def test_a_loader_can_be_pickled_as_torchs_can(started):
    loader = DataLoader(range(10), 2, shuffle=True, seed=1)
    if started:
        next(iter(loader))
    copy = pickle.loads(pickle.dumps(loader))
    copy.set_epoch(3)
    assert [batch.tolist() for batch in copy] == [batch.indices.tolist() for batch in loader.plan(3)]


def test_a_pickled_loader_delivers_to_its_device():
    import torch

    loader = DataLoader(np.arange(6.0), 2, device="cpu")
    next(iter(loader))
    copy = pickle.loads(pickle.dumps(loader))
    batches = list(copy)
    assert all(isinstance(batch, torch.Tensor) for batch in batches)
    assert torch.cat(batches).tolist() == [0, 1, 2, 3, 4, 5]


FIXED = ["dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers", "shard", "pin_memory"]
FIXED += ["pin_memory_device", "device", "on_error", "num_workers", "prefetch_factor", "timeout", "worker_init_fn"]
FIXED += ["multiprocessing_context", "backend", "in_order", "max_restarts", "generator"]


@pytest.mark.parametrize("name", FIXED)
def test_what_a_loader_was_built_with_is_not_set_later(name):
    loader = DataLoader(range(4))
    message = f"{name} should not be set after the loader is built; build another loader"
    for owner in (loader, pickle.loads(pickle.dumps(loader))):
        with pytest.raises(ValueError, match=message):
            setattr(owner, name, None)


def test_a_loader_may_be_subclassed():
    class Doubled(DataLoader):
        def __init__(self, data, factor, **how):
            self.factor = factor
            super().__init__(data, **how)

        def __iter__(self):
            return (batch * self.factor for batch in super().__iter__())

    loader = Doubled([1, 2], 2, batch_size=2)
    assert [batch.tolist() for batch in loader] == [[2, 4]]


# ------------------------------------------------------------------------------------------------ programs of their own


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent to the process itself")
def test_ctrl_c_in_an_epoch_is_one_traceback_and_the_loop_can_go_on():
    code = (
        "import os, signal, feedline\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "sent = []\n"
        "class Data:\n"
        "    def __len__(self): return 6\n"
        "    def __getitem__(self, index):\n"
        "        if index == 3 and not sent:\n"
        "            sent.append(1)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return index\n"
        "iterator = iter(feedline.DataLoader(Data(), 2))\n"
        "got = []\n"
        "try:\n"
        "    for batch in iterator: got.append(batch.tolist())\n"
        "except KeyboardInterrupt: pass\n"
        "got += [batch.tolist() for batch in iterator]\n"
        "print(got)\n"
        "sent.clear()\n"
        "for batch in feedline.DataLoader(Data(), 2): pass\n"
    )
    how = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", code], check=False, **how)
    assert done.stdout == "[[0, 1], [2, 3], [4, 5]]\n"
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.returncode in (130, -signal.SIGINT)


def test_a_notebooks_cell_works():
    cell = (
        "class Data:\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, index): return index\n"
        "batches = [batch.tolist() for batch in DataLoader(Data(), 2)]\n"
    )
    names = {"__name__": "__main__", "DataLoader": DataLoader}
    exec(cell, names)
    assert names["batches"] == [[0, 1], [2]]


RANK = """
import random, sys
import torch.distributed as dist
import feedline
rank, where = int(sys.argv[1]), sys.argv[2]
random.seed(rank)
dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
loader = feedline.DataLoader(range(10), 2, shuffle=True, shard="auto")
before = random.getstate()
got = [batch.tolist() for batch in loader]
assert (random.getstate() == before) == (rank != 0)
print([loader.seed, loader.state_dict()["position"], got])
dist.destroy_process_group()
"""


def test_ranks_of_torch_distributed_share_rank_zeros_seed(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    where = (tmp_path / "meet").as_uri()
    environment = {**os.environ, "PYTHONPATH": str(Path(feedline.__file__).parents[1]), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), where],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    (seed, _, first), (other, _, second) = (eval(output) for output, _ in outputs)
    assert seed == other == random.Random(0).getrandbits(63)
    assert sorted(chain(*first, *second)) == list(range(10))
