"""Answer a million requests of mixed lengths on two ranks: each exactly once, answers in the order of the requests.

A batch is padded to its longest request, and the model computes the padding, too. In a random order most of what it
computes is padding: one long request makes all the others in its batch as long. `LengthBucketBatchSampler` puts
requests of like length together. With ``max_tokens`` all batches cost about the same and fit in the same memory: many
short requests, or a few long ones. With ``shuffle=False`` the longest come first: memory runs out at once or never.

Each rank is a process of its own with ``Shard(rank, 2, end="exact")``: ranks are dealt batches in turn, and nothing is
repeated to make their numbers equal. Every batch brings the numbers of its requests, under which a rank writes the
answers into a file that both have mapped; so it does not matter in which order they are computed.

Run it: ``python examples/offline_inference.py``, or with another number of requests: ``... 50000``
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from feedline import DataLoader, Dataset, LengthBucketBatchSampler, Shard, pad_collate

REQUESTS = 1_000_000
RANKS = 2
MAX_TOKENS = 65_536  # of a batch, padding included
LONGEST = 2048
PADDING = 0  # no request has this token
WEIGHTS = np.arange(256) * 37 % 256  # of the "model": what each token counts; nothing for padding


class Requests(Dataset):
    """Requests in one file of tokens, one after the other: sample i is its number and its tokens, not copied."""

    uses_global_rng = False

    def __init__(self, folder: Path) -> None:
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.lengths = np.load(folder / "lengths.npy")
        self.ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[int, np.ndarray]]:
        """All samples of a batch in one call."""
        ends = self.ends[indices]
        spans = zip(indices, (ends - self.lengths[indices]).tolist(), ends.tolist(), strict=True)
        tokens = np.asarray(self.tokens)  # a slice of a memory map costs ten times as much as one of an array
        return [(index, tokens[start:end]) for index, start, end in spans]


def write_requests(folder: Path, count: int) -> None:
    """Requests of log-normal lengths, and a file for their answers, in which there are none."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(32), 1, count)).astype(np.int64).clip(1, LONGEST)
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "tokens.npy", generator.integers(1, 256, lengths.sum(), dtype=np.uint8))
    np.save(folder / "answers.npy", np.zeros(count, np.int64))
    np.save(folder / "times.npy", np.zeros(count, np.uint8))


def sampler_of(lengths: np.ndarray) -> LengthBucketBatchSampler:
    """Batches of like lengths, the longest first."""
    return LengthBucketBatchSampler(lengths, max_tokens=MAX_TOKENS, shuffle=False)


def model(tokens: np.ndarray) -> np.ndarray:
    """An answer for each row of padded tokens: the sum of (weight of the token) * (its place, from 1)."""
    return (WEIGHTS[tokens] * np.arange(1, tokens.shape[1] + 1)).sum(axis=1)


def answer(folder: Path, rank: int) -> dict[str, float]:
    """What a rank does: answer its share of the requests, and tell how many there were."""
    requests = Requests(folder)
    answers, times = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("answers", "times"))
    loader = DataLoader(
        requests,
        batch_sampler=sampler_of(requests.lengths),
        collate_fn=partial(pad_collate, value=PADDING, only=1),
        shard=Shard(rank, RANKS, end="exact"),
    )
    start = time.perf_counter()
    answered = computed = 0
    for numbers, tokens in loader:
        answers[numbers] = model(tokens)
        times[numbers] += 1
        answered += len(numbers)
        computed += tokens.size
    return {"requests": answered, "tokens": computed, "seconds": time.perf_counter() - start}


def expected(requests: Requests) -> np.ndarray:
    """The answers, computed without batches and without padding."""
    starts = requests.ends - requests.lengths
    places = np.arange(1, len(requests.tokens) + 1) - np.repeat(starts, requests.lengths)
    return np.add.reduceat(WEIGHTS[requests.tokens] * places, starts)


def main() -> None:
    """Have two processes answer the requests, check the answers and print what it took."""
    if len(sys.argv) > 2:  # a rank
        print(json.dumps(answer(Path(sys.argv[2]), int(sys.argv[1]))))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_requests(folder, count)
        start = time.perf_counter()
        commands = [[sys.executable, __file__, str(rank), name] for rank in range(RANKS)]
        ranks = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]  # noqa: S603 -- this file
        done = [json.loads(rank.communicate()[0]) for rank in ranks]
        seconds = time.perf_counter() - start
        requests = Requests(folder)
        answers, times = (np.load(folder / f"{name}.npy") for name in ("answers", "times"))
        assert (times == 1).all(), "each request is answered exactly once"
        assert (answers == expected(requests)).all(), "each answer stands at the place of its request"
        del requests.tokens  # the file cannot be removed everywhere while it is mapped
    sampler = sampler_of(requests.lengths)
    print(
        f"{count:,} requests of 1 to {requests.lengths.max():,} tokens in {len(sampler):,} batches, on {RANKS} ranks\n"
    )
    print("rank    requests      tokens computed   seconds")
    for rank, each in enumerate(done):
        print(f"{rank:4}{each['requests']:12,}{each['tokens']:21,}{each['seconds']:10.1f}")
    print(f"\n{count / seconds:,.0f} requests and {requests.lengths.sum() / seconds:,.0f} tokens a second")
    waste = sampler.padding_waste(), sampler.padding_waste(bucketed=False)
    print(f"padding: {waste[0]:.1%} of what was computed; in batches of shuffled requests {waste[1]:.1%}")
    print("each request was answered exactly once, and the answers stand in the order of the requests")


if __name__ == "__main__":
    main()
