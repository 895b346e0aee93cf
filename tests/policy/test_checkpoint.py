"""Checkpoints: bit for bit, and never believed unless whole."""

import errno
from collections import namedtuple

import pytest
import torch
from torch import nn

from policy import checkpoint

Usage = namedtuple("Usage", ["total", "used", "free"])


class Tied(nn.Module):
    """Two names for one weight, and a buffer, as language models have."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.tensor(0.0))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def test_weights_and_state_come_back_bit_for_bit(tmp_path):
    model = Tied()
    model.seen.fill_(7.0)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.head(model.embedding(torch.tensor([1]))).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "beta": 0.25, "words": ["ä"]}
    checkpoint.save(tmp_path, 12, modules={"model": model}, state=state)

    found = checkpoint.latest([tmp_path])
    other = Tied()
    found.restore("model", other)
    assert (found.step, found.run_directory) == (12, tmp_path)
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert other.head.weight is other.embedding.weight
    assert other.seen.item() == 7.0
    assert (found.state["beta"], found.state["words"]) == (0.25, ["ä"])
    restored = torch.optim.AdamW(other.parameters(), fused=True)
    restored.load_state_dict(found.state["optimizer"])
    moments = restored.state[other.embedding.weight]
    assert torch.equal(moments["exp_avg"], optimizer.state[model.embedding.weight]["exp_avg"])


def test_the_newest_two_are_kept_and_all_folders_are_looked_at(tmp_path):
    first, second = tmp_path / "attempt-1", tmp_path / "attempt-2"
    first.mkdir()
    second.mkdir()
    for step in (9, 10, 100):
        checkpoint.save(first, step, modules={}, state={"at": step})
    checkpoint.save(second, 50, modules={}, state={"at": 50})
    names = sorted(path.name for path in (first / "checkpoints").iterdir())
    assert names == ["newest", "step-000010", "step-000100"]
    assert checkpoint.latest([second, first]).step == 100
    assert checkpoint.latest([second, tmp_path / "absent"]).step == 50
    assert checkpoint.latest([tmp_path]) is None


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "no manifest", "empty manifest"])
def test_a_harmed_checkpoint_gives_way_to_the_one_before(tmp_path, harm, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, modules={"m": nn.Linear(2, 2)}, state={})
    folder = tmp_path / "checkpoints" / "step-000002"
    weights, manifest = folder / "m.safetensors", folder / "manifest.json"
    whole = weights.read_bytes()
    if harm == "cut":
        weights.write_bytes(whole[:-3])
    elif harm == "flip":
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "remove":
        weights.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("")
    assert checkpoint.latest([tmp_path]).step == 1
    (said,) = caplog.messages
    assert str(folder) in said
    what = "manifest" if "manifest" in harm else "m.safetensors is not what was saved"
    assert what in said
    # Saved again, it is whole again.
    checkpoint.save(tmp_path, 2, modules={"m": nn.Linear(2, 2)}, state={})
    assert checkpoint.latest([tmp_path]).step == 2


def test_what_the_pointer_does_not_know_of_was_not_saved_to_the_end(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, modules={}, state={})
    pointer = tmp_path / "checkpoints" / "newest"
    assert pointer.read_text() == "step-000002"
    pointer.write_text("step-000001")  # a kill between the rename and the pointer
    assert checkpoint.latest([tmp_path]).step == 1
    pointer.write_text("nonsense")
    assert checkpoint.latest([tmp_path]).step == 2


def test_a_millionth_step_is_newer_than_the_one_before(tmp_path):
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, modules={}, state={})
    assert checkpoint.latest([tmp_path]).step == 1_000_000


def test_a_fingerprint_tells_the_last_bit_and_not_the_order_of_names():
    state = {"a": torch.tensor([1.0, 2.0]), "b": [1, "x", None], "c": torch.tensor(True)}
    same = {"c": torch.tensor(True), "b": [1, "x", None], "a": torch.tensor([1.0, 2.0])}
    assert checkpoint.fingerprint(state) == checkpoint.fingerprint(same)
    for other in (
        {"a": torch.nextafter(torch.tensor([1.0, 2.0]), torch.tensor(9.0))},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"b": [1, "x", 0]},
        {"b": [[1, "x"], None]},
    ):
        assert checkpoint.fingerprint(state | other) != checkpoint.fingerprint(state)


def test_what_a_kill_left_half_written_is_not_a_checkpoint(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    checkpoint.save(tmp_path, 1, modules={}, state={})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, modules={}, state={})
    assert checkpoint.latest([tmp_path]).step == 1
    checkpoint.save(tmp_path, 2, modules={}, state={})
    assert checkpoint.latest([tmp_path]).step == 2


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match="other weights"):
        checkpoint.load_tensors(Tied(), {"embedding.weight": torch.zeros(5, 3)})


def test_a_disk_without_room_is_told_of_before_anything_is_written(tmp_path, monkeypatch):
    model = nn.Linear(3, 2)  # 8 numbers of 4 bytes
    state = {"step": 1, "moments": [{"a": torch.zeros(5, dtype=torch.float64)}, (torch.zeros(2),)]}
    for free in (79, 80):
        monkeypatch.setattr(
            checkpoint.shutil, "disk_usage", lambda folder, free=free: Usage(200, 0, free)
        )
        if free == 80:
            checkpoint.save(tmp_path, 1, modules={"model": model}, state=state)
            break
        with pytest.raises(OSError, match=r"0\.0 MB to save, 0\.0 MB free") as refused:
            checkpoint.save(tmp_path, 1, modules={"model": model}, state=state)
        assert refused.value.errno == errno.ENOSPC
        assert list(tmp_path.iterdir()) == []
    assert checkpoint.latest([tmp_path]).step == 1
