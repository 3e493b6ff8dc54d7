"""Every row works with every other: ways of choosing samples, ends of a shard, backends, resumes, endless loops.

Each test walks the ways with one of the others, so that every pair comes; `test_elastic.py` draws the combinations at
random.
"""

import json
from dataclasses import replace
from itertools import chain, cycle

import numpy as np
import pytest
from elastic_law import LoaderRank, Stage, check_elastic, check_endless
from elastic_ways import ENDLESS, OWN, STREAMS, WAYS, by_loaders, by_stage, endless, one_batch_size, samples

from feedline import DataLoader, InfiniteDataLoader, add_digests
from feedline.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:num_workers=")  # more than there are CPUs, where there are few

ENDS = ["pad", "drop", "exact"]
BACKENDS = ["serial", "thread", "process"]
WITH_ENDS = list(zip(WAYS, cycle(ENDS), strict=False))  # every way meets every end below, without processes


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("backend", ["serial", "thread"])
def test_ways_ends_backends_and_a_resume(kind, end, backend):
    workers = None if backend == "serial" else backend
    plan = [Stage(3, 4, end, workers=workers, rounds=2), Stage(2, 5, end, workers=workers)]
    check_elastic(by_loaders(kind, 61, 1), one_batch_size(kind, plan))


@pytest.mark.parametrize(("kind", "end"), WITH_ENDS)
def test_process_workers_change_nothing(kind, end):
    """Stages with workers of both kinds, and none, in one epoch: the state knows nothing of them."""
    plan = [Stage(2, 4, end, workers=workers, rounds=1) for workers in ("thread", "process", None)]
    plan.append(Stage(1, 7, end, workers="process"))
    check_elastic(by_loaders(kind, 61, 1), one_batch_size(kind, plan))


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_endless_loops_over_all_ways_with_all_backends(kind, backend):
    workers = None if backend == "serial" else backend
    plan = [Stage(2, 4, workers=workers, rounds=5), Stage(1, 7, "exact", workers=workers, rounds=9)]
    check_endless(WAYS[kind], 31, endless(kind, 31), 4, one_batch_size(kind, plan))


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("reshuffle", ["pass", "virtual_epoch"])
def test_a_loop_without_an_end_draws_the_same_on_any_ranks(kind, reshuffle):
    plan = [Stage(3, 2, rounds=5), Stage(1, 7, "exact", workers="thread", rounds=9), Stage(2, 3, "drop", rounds=4)]
    got, one = (
        check_endless(WAYS[kind], 31, None, None, one_batch_size(kind, stages), reshuffle)
        for stages in (plan, [Stage(1, 2, rounds=90)])
    )
    assert got == one[: len(got)]


@pytest.mark.parametrize("kind", [kind for kind in WAYS if kind not in ENDLESS])
def test_an_endless_loop_says_of_what_it_has_none(kind):
    with pytest.raises(TypeError, match="InfiniteDataLoader"):
        InfiniteDataLoader(**WAYS[kind].arguments(31, Stage(1, 4)))


def digest(kind, plan, number=0):
    """The sum of the digests of all ranks in all stages."""
    state, parts = None, []
    for stage in one_batch_size(kind, plan):
        ranks = [LoaderRank(WAYS[kind], 61, stage, rank, number) for rank in range(stage.world)]
        for rank in ranks:
            if state is not None:
                rank.resume(json.loads(json.dumps(state)))
            taken = 0
            while taken != stage.rounds and rank.take() is not None:
                taken += 1
            parts.append(rank.loader.digest())
        state = ranks[0].state()
        for rank in ranks:
            rank.close()
    return add_digests(*parts)


@pytest.mark.parametrize("kind", WAYS)
def test_the_sum_of_digests_knows_nothing_of_workers(kind):
    plan = [Stage(3, 4, rounds=2), Stage(2, 5)]
    summed = digest(kind, plan)
    assert summed == digest(kind, [replace(stage, workers="thread") for stage in plan])
    assert summed != digest(kind, [Stage(3, 4, rounds=1), Stage(2, 5)])


@pytest.mark.parametrize("kind", WAYS)
def test_digests_of_the_parts_of_a_run_add_up_to_that_of_the_whole(kind):
    whole = digest(kind, [Stage(2, 3, "exact")], number=1)
    parts = [Stage(2, 3, "exact", workers="thread", rounds=rounds) for rounds in (2, 1, None)]
    assert digest(kind, parts, number=1) == whole


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", [kind for kind in WAYS if kind not in STREAMS])
def test_plans_and_places_are_what_is_delivered(kind, end):
    """Or, of an order that is the user's own, an error that says so."""
    (stage,) = one_batch_size(kind, [Stage(3, 4, end)])
    asked = {}
    for rank in range(3):
        loader = DataLoader(**WAYS[kind].arguments(61, stage), **stage.how(rank))
        if kind in OWN:
            with pytest.raises(TypeError, match="plan"):
                loader.plan(0)
            with pytest.raises(TypeError, match="plan"):
                loader.where(0, 0)
            continue
        batches = [batch.indices.tolist() for batch in loader.plan(0)]
        values = [[int(loader.dataset[index][0]) for index in batch] for batch in batches]
        assert [batch[0].tolist() for batch in loader] == values
        for step, batch in enumerate(batches):
            for index in batch:
                asked[index] = min(asked.get(index, (step, rank)), (step, rank))
    for index, place in asked.items():
        assert loader.where(index, 0) == place


@pytest.mark.parametrize("kind", WAYS)
def test_every_state_is_explained(kind, tmp_path, capsys):
    (stage,) = one_batch_size(kind, [Stage(2, 4, rounds=2)])
    rank = LoaderRank(WAYS[kind], 61, stage, 0, 0)
    rank.take(), rank.take()
    text = json.dumps(rank.state())
    assert len(text) < 1024
    (tmp_path / "state.json").write_text(text)
    main(["verify", str(tmp_path / "state.json")])
    assert "a valid state" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "backend"),
    [*((kind, "thread") for kind in WAYS), *((kind, "process") for kind in ("tokens", "stateful", "shards, shuffled"))],
)
def test_batches_as_they_are_ready_are_the_same_ones_and_resume(kind, backend):
    (stage,) = one_batch_size(kind, [Stage(2, 3, "exact")])
    whole = sorted(map(str, by_stage(samples, kind, 61, 0)(stage)))
    got = []
    for rank in range(2):
        how = stage.how(rank) | {"in_order": False, "num_workers": 2, "backend": backend}
        with DataLoader(**WAYS[kind].arguments(61, stage), **how) as loader:
            iterator = iter(loader)
            got += [next(iterator) for _ in range(3)]
            state = json.loads(json.dumps(loader.state_dict()))
        with DataLoader(**WAYS[kind].arguments(61, stage), **how) as resumed:
            resumed.load_state_dict(state)
            got += resumed
    plain = [batch[0].tolist() for batch in got]
    assert sorted(map(str, map(tuple, plain) if WAYS[kind].has_batches else chain(*plain))) == whole


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("action", ["skip", "replace"])
def test_a_sample_that_fails_is_passed_over_or_replaced(kind, action):
    (stage,) = one_batch_size(kind, [Stage(2, 3, "exact")])
    if action == "replace" and kind in STREAMS:
        with pytest.raises(ValueError, match="on_error='replace' needs a dataset with __getitem__"):
            DataLoader(**WAYS[kind].arguments(61, stage), on_error=action)
        return

    def fragile(sample):
        if sample[0] == bad:
            raise ValueError("bad")
        return sample

    whole = by_stage(samples, kind, 61, 0)(stage)
    flat = list(chain(*whole)) if WAYS[kind].has_batches else list(whole)
    bad = max(whole, key=len)[1] if WAYS[kind].has_batches else flat[5]  # no batch is bad as a whole
    found = []
    for workers in (None, "thread"):
        got = []
        for rank in range(2):
            how = WAYS[kind].arguments(61, stage) | replace(stage, workers=workers).how(rank)
            how["dataset"] = how["dataset"].map(fragile)
            with DataLoader(**how, on_error=action) as loader:
                got += [np.stack(batch).tolist() for batch in loader]
        found.append(got)
        values = list(chain(*(batch[0] for batch in got)))
        assert bad not in values
        assert len(values) == len(flat) - (flat.count(bad) if action == "skip" else 0)
    assert found[0] == found[1]
