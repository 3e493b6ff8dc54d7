"""The command line: ``feedline demo``, ``feedline verify``, ``feedline --version``.

Guarantee: what goes wrong for a reason that the user can mend (a folder, a file, an extra that is not installed) is
one line on the standard error and exit status 1; a wrong argument is exit status 2, Ctrl-C 130. Importing this module
needs no optional package.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import feedline
from feedline import demo
from feedline.errors import FeedlineError
from feedline.insight.verifying import verified
from feedline.seeding import checked_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_DRAWN_SEED_BITS = 32  # short enough to type again
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is returned.

    Args:
        argv: the arguments; None for those of the process.

    Raises:
        SystemExit: the arguments are wrong (2), or ask for help or the version (0).
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            # Where in the code it arose tells the user of a command nothing.
            warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
            arguments.run(arguments)
    except KeyboardInterrupt:
        _say("stopped")
        return _INTERRUPTED
    except (FeedlineError, ImportError, OSError) as error:
        _say(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedline", description="Training batches that are there before the step asks."
    )
    parser.add_argument("--version", action="version", version=f"feedline {feedline.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits, or on a folder of images",
        description="Train a small network, written in NumPy, on handwritten digits or on a folder of images, "
        "and tell what loading them cost.",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder of MNIST or Fashion-MNIST (IDX files), of CIFAR-10 (binary version), or with a folder of "
        "images for each class; default: the 1,797 digits that come with feedline",
    )
    command.add_argument(
        "--epochs", type=_positive, metavar="N", help="how often to go through the images; default: by their number"
    )
    command.add_argument(
        "--batch-size",
        type=_positive,
        default=demo.BATCH_SIZE,
        metavar="N",
        help="images in a batch; default: %(default)s",
    )
    command.add_argument("--seed", type=_seed, metavar="N", help="gives the same run again; default: drawn, and shown")
    command.set_defaults(run=_demo)
    command = commands.add_parser(
        "verify",
        help="check a saved state of a loader, and say what it means",
        description="Check what loader.state_dict() gave, and say how far the loader had come and what a resume does. "
        "Exit status 0: the state is valid; 1: it is damaged, or the file holds none.",
    )
    command.add_argument(
        "state",
        type=Path,
        metavar="FILE",
        help="a JSON file: a state, or a checkpoint that has states in it, at any depth",
    )
    command.set_defaults(run=_verify)
    return parser


def _demo(arguments: argparse.Namespace) -> None:
    seed = random.getrandbits(_DRAWN_SEED_BITS) if arguments.seed is None else arguments.seed
    demo.run(arguments.data, epochs=arguments.epochs, batch_size=arguments.batch_size, seed=seed)


def _verify(arguments: argparse.Namespace) -> None:
    sys.stdout.write(f"{verified(arguments.state)}\n")


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def _seed(text: str) -> int:
    try:
        return checked_seed(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**64 - 1, got {text}") from error


def _say(text: str) -> None:
    sys.stderr.write(f"feedline: {' '.join(text.splitlines())}\n")
