"""A run is a folder, tensors and a number: what it keeps, and what it refuses."""

import json

import pytest
import torch

from steerable.training.loop import Run


def run(folder, value=0.0, **options):
    return Run(folder, {"sum": torch.full((2,), value)}, {"lr": 0.1, **options})


def adding(one):
    """Step i adds i, so that the sum tells which steps were taken."""

    def step(number):
        one.tensors["sum"].add_(number)
        return {"number": torch.tensor(float(number))}

    return step


def test_a_run_goes_on_from_its_checkpoint_with_the_next_step(tmp_path):
    first = run(tmp_path)
    first.take(20, adding(first), log_every=5, save_every=10)
    second = run(tmp_path)
    assert second.resume() and second.done == 20
    second.take(30, adding(second), log_every=5, save_every=10)
    assert second.tensors["sum"].tolist() == [sum(range(30))] * 2


def test_nothing_is_there_to_resume_at_first(tmp_path):
    assert not run(tmp_path).resume()


def test_the_log_has_the_options_and_mean_losses(tmp_path):
    one = run(tmp_path)
    one.take(10, adding(one), log_every=5, save_every=5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["options"] == {"lr": 0.1}
    assert [(line["step"], line["number"]) for line in lines[1:]] == [(5, 2), (10, 7)]


def test_log_lines_after_the_checkpoint_are_dropped_on_resuming(tmp_path):
    one = run(tmp_path)
    one.take(10, adding(one), log_every=5, save_every=5)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 15, "number": 99}\n{"step": 20, "num')
    again = run(tmp_path)
    again.resume()
    again.take(15, adding(again), log_every=5, save_every=5)
    steps = [json.loads(line).get("step") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [None, 5, 10, 15]


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path):
    one = run(tmp_path)

    def step(number):
        one.tensors["sum"].add_(1)
        return {"edit": torch.tensor(float("nan") if number >= 12 else 1.0)}

    with pytest.raises(ValueError, match='the loss "edit" is nan at step 15.*The last good state is kept in .*checkpoint.safetensors'):
        one.take(20, step, log_every=5, save_every=5)
    again = run(tmp_path)
    assert again.resume() and again.done == 10 and again.tensors["sum"].tolist() == [10, 10]


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    one = run(tmp_path, float("inf"))
    with pytest.raises(ValueError, match="Nothing was kept yet"):
        one.take(5, adding(one), log_every=5, save_every=5)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_other_options_are_refused_by_name(tmp_path):
    run(tmp_path).save()
    with pytest.raises(ValueError, match="was begun with lr 0.1, now lr is 0.2: give it the options it had, or another --out"):
        run(tmp_path, lr=0.2).resume()
    with pytest.raises(ValueError, match="begun with way null, now way is"):
        run(tmp_path, way="plain").resume()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint of a training") as caught:
        run(tmp_path).resume()
    assert "\n" not in str(caught.value)


def test_half_written_files_of_a_kill_are_removed(tmp_path):
    (tmp_path / ".checkpoint.safetensors.12ab34cd.part").write_bytes(b"half")
    one = run(tmp_path)
    one.take(5, adding(one), log_every=5, save_every=5)
    assert not list(tmp_path.glob(".*.part"))


def test_intervals_have_to_fit(tmp_path):
    with pytest.raises(ValueError, match="save_every 7 is no multiple of log_every 5"):
        run(tmp_path).take(10, lambda number: {}, log_every=5, save_every=7)


def test_tensorboard_has_the_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = run(tmp_path)
    one.take(10, adding(one), log_every=5, save_every=5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/number")] == [(5, 2), (10, 7)]
