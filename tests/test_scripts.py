"""Laws of scripts: workers run whatever way the program was started, and never run it again."""

import subprocess
import sys
import textwrap

import pytest

METHODS = ["forkserver", "spawn", "fork"]
PROGRAM = """
import dataclasses, functools, os
import numpy as np
from feedline import DataLoader, Dataset

print("begun")
OFFSET = 100

@dataclasses.dataclass
class Sample:
    x: np.ndarray
    index: int

def shifted(index):
    return index + OFFSET

class Squares(Dataset):
    def __init__(self, length):
        self.length = length
        self.function = lambda index: shifted(index) - OFFSET
    def __len__(self):
        return self.length
    def __getitem__(self, index):
        return Sample(np.full(2, self.function(index) ** 2), index)
    @functools.cached_property
    def cached(self):
        return 5

def local():
    factor = 3
    class Local(Squares):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, x=sample.x * factor + self.cached)
    def transform(batch):
        return batch, os.getpid()
    return Local(8), transform

dataset, transform = local()
with DataLoader(dataset, 4, num_workers=2, backend="process", multiprocessing_context=METHOD, batch_transform=transform,
                worker_init_fn=lambda number: None) as loader:
    for epoch in range(2):
        for batch, process in loader:
            assert type(batch) is Sample and isinstance(batch, Sample), type(batch)
            assert process != os.getpid()
            print(epoch, batch.x[:, 0].tolist(), batch.index.tolist())
    dataset.length = 4
    OFFSET = 1
    print(len(list(loader)))
    try:
        list(DataLoader(dataset, 4, num_workers=1, backend="process", multiprocessing_context=METHOD,
                        collate_fn=lambda samples: samples[9]))
    except IndexError as error:
        print("IndexError")
"""
EXPECTED = """\
begun
0 [5, 8, 17, 32] [0, 1, 2, 3]
0 [53, 80, 113, 152] [4, 5, 6, 7]
1 [5, 8, 17, 32] [0, 1, 2, 3]
1 [53, 80, 113, 152] [4, 5, 6, 7]
1
IndexError
"""
NOTEBOOK = """
import sys, types
cells = {cells!r}
main = types.ModuleType("__main__")
sys.modules["__main__"] = main
for number, cell in enumerate(cells):
    exec(compile(cell, f"<ipython-input-{{number}}>", "exec"), main.__dict__)
"""


def started(how, program, tmp_path):
    """The output of a program that is started in some way."""
    command, stdin = [sys.executable, "-W", "error"], None
    if how == "script":
        path = tmp_path / "program.py"
        path.write_text(program)
        command.append(str(path))
    elif how == "command":
        command += ["-c", program]
    elif how == "stdin":
        command.append("-")
        stdin = program
    elif how == "module":
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "__init__.py").touch()
        (tmp_path / "package" / "__main__.py").write_text(program)
        command += ["-m", "package"]
    else:
        cells = [cell + "\n" for cell in program.split("\n\n")]
        path = tmp_path / "kernel.py"
        path.write_text(NOTEBOOK.format(cells=cells))
        command.append(str(path))
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["script", "command", "stdin", "module", "notebook"])
def test_a_program_without_a_guard_runs_with_workers(how, method, tmp_path):
    done = started(how, textwrap.dedent(PROGRAM).replace("METHOD", repr(method)), tmp_path)
    assert done.stderr == ""
    assert done.stdout == EXPECTED
    assert done.returncode == 0
