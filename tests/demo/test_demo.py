"""The whole of the demo: what it prints about what it finds."""

import re

import pytest

from feedline import CorruptSample, demo


def run(capsys, data, **settings):
    demo.run(data, **{"epochs": 3, "batch_size": 4, "seed": 1} | settings)
    return capsys.readouterr().out


def epochs(output):
    return re.findall(r"^ +(\d+)   (\d+\.\d{6}) +(\d+\.\d)%$", output, flags=re.MULTILINE)


@pytest.mark.parametrize("compress", [False, True])
def test_mnist_is_named_and_learned(tmp_path, write_mnist, capsys, compress):
    write_mnist(tmp_path, "train", 40, compress=compress)
    write_mnist(tmp_path, "t10k", 10, compress=compress)
    output = run(capsys, tmp_path)
    assert output.startswith(f"MNIST, from {tmp_path}\n40 images to learn from, 10 to check with; 28 x 28 pixels, 10 ")
    assert [number for number, _, _ in epochs(output)] == ["1", "2", "3"]


def test_cifar_10_is_named_and_learned(tmp_path, write_cifar, capsys):
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        write_cifar(tmp_path / f"{name}.bin", 10)
    output = run(capsys, tmp_path)
    assert output.startswith("CIFAR-10, from")
    assert "50 images to learn from, 10 to check with; 32 x 32 x 3 pixels, 10 classes" in output
    assert len(epochs(output)) == 3


def test_a_tree_of_images_is_named_and_learned(tmp_path, write_tree, capsys):
    """Bright against dark: all are told right."""
    write_tree(tmp_path / "pets", 15)
    output = run(capsys, tmp_path / "pets", epochs=8)
    assert output.startswith("pets, from")
    assert "24 images to learn from, 6 to check with; 32 x 32 x 3 pixels, 2 classes" in output
    assert "6 of 6 images are told right: 100.0%" in output


def test_the_command_that_is_shown_gives_the_same_losses_again(tmp_path, write_tree, capsys):
    folder = tmp_path / "my pets"
    write_tree(folder, 5)
    output = run(capsys, folder, batch_size=3)
    again = f"feedline demo --data '{folder}' --epochs 3 --batch-size 3 --seed 1\n"
    assert output.endswith(f"  seed     1: the same losses again by {again}")
    assert epochs(run(capsys, folder, batch_size=3)) == epochs(output)


def test_what_is_the_default_is_not_in_the_command(capsys):
    demo.run(None, epochs=None, batch_size=demo.BATCH_SIZE, seed=5)
    output = capsys.readouterr().out
    assert output.endswith(" by feedline demo --seed 5\n")
    assert len(epochs(output)) == 20


def test_one_epoch_is_not_many(capsys):
    demo.run(None, epochs=1, seed=0)
    assert "A network in NumPy, 1 epoch in batches of 32, seed 0\n" in capsys.readouterr().out


def test_the_summary_adds_up(capsys):
    output = run(capsys, None, epochs=2, batch_size=32)
    correct, checked, accuracy = re.search(
        r"^(\d+) of (\d+) images are told right: (.+)%$", output, re.MULTILINE
    ).groups()
    assert checked == "359"
    assert accuracy == epochs(output)[-1][2] == f"{int(correct) / 359:.1%}"[:-1]
    assert re.search(r"^  trained  2,876 samples in \d+\.\d\d s: [\d,]+ samples/s$", output, re.MULTILINE)
    waited, share = re.search(
        r"^  waited   (\d+\.\d\d) s for data: (\d+\.\d)% of that time$", output, re.MULTILINE
    ).groups()
    assert float(waited) >= 0
    assert 0 < float(share) < 100


def test_names_from_outside_cannot_change_the_terminal(tmp_path, write_tree, capsys):
    folder = tmp_path / "a\x1b[31m[bold]b"
    write_tree(folder, 2)
    assert "\na?[31m[bold]b, from " in "\n" + run(capsys, folder)


def test_a_damaged_image_is_named(tmp_path, write_tree, capsys):
    write_tree(tmp_path, 10)
    damaged = tmp_path / "cat" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(CorruptSample, match=re.escape(str(damaged))):
        run(capsys, tmp_path)
