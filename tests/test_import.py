"""Importing feedline is quick and imports no framework; what is missing is named when it is needed."""

import importlib
import subprocess
import sys

import pytest

OPTIONAL = ["torch", "jax", "cv2", "numba", "PIL", "rich"]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_feedline_imports_no_optional_package():
    found = run(f"import sys, feedline\nprint([name for name in {OPTIONAL} if name in sys.modules])")
    assert found == "[]\n"


def test_a_loader_of_numpy_arrays_imports_no_framework():
    found = run(
        "import sys, numpy as np, feedline\n"
        "data = feedline.TensorDataset(np.zeros((4, 2)), np.arange(4)).map(lambda x: x + 1, key=0)\n"
        "parts = feedline.random_split(data, [0.5, 0.5], seed=0)\n"
        "list(feedline.DataLoader(parts[0], 2, shuffle=True))\n"
        f"print([name for name in {OPTIONAL} if name in sys.modules])"
    )
    assert found == "[]\n"


def test_importing_feedline_after_numpy_and_cloudpickle_is_quick():
    code = "import time, numpy, cloudpickle\nt = time.process_time()\nimport feedline\nprint(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.15


@pytest.mark.parametrize(
    ("module", "extra", "code"),
    [
        ("torch", "torch", "feedline.DataLoader([1], device='cpu')"),
        ("cv2", "image", "feedline.transforms.Resize(8)(np.zeros((4, 4), np.uint8))"),
        ("PIL", "image", "feedline.datasets.image_files.ImageFiles(['no.png'], [0])[0]"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module, extra, code):
    out = run(
        f"import sys\nsys.modules[{module!r}] = None\nimport numpy as np, feedline, feedline.datasets.image_files\n"
        f"try:\n    {code}\nexcept ImportError as error:\n    print(error)"
    )
    assert module in out
    assert f"pip install 'feedline[{extra}]'" in out


def test_every_public_name_is_there():
    assert (
        run("from feedline import *\nimport feedline\nassert all(hasattr(feedline, n) for n in feedline.__all__)") == ""
    )


@pytest.mark.parametrize("module", ["feedline", "feedline.datasets"])
def test_a_name_that_is_not_there_is_named_with_its_module(module):
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute 'no_such'$"):
        importlib.import_module(module).no_such
