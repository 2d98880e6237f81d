"""The loop: what a step does, that stopping and going on changes no bit, and what stops it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import resource
import signal
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import training
from tercet import fsio
from tercet.errors import StorageError, TrainError
from tercet.quantizers import freeze
from tercet.quantizers.learned import Learned
from tercet.recipe import Distil
from tercet.train import load_weights, train
from tercet.train.data import Batches
from tercet.train.journal import Journal, read_journal


def run(folder: Path, **changed: Any) -> Any:
    options = {name: changed.pop(name) for name in ("resume", "evaluate", "progress", "identified") if name in changed}
    return train(training.task(), training.windows(), training.settings(**changed), folder, **options)


@pytest.fixture(autouse=True)
def _no_plug_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "_sync", lambda _: None)


class Stop(Exception):
    """In place of a kill."""


def stopped_at(folder: Path, step: int, **changed: Any) -> None:
    """Trains, and dies after the journal's line of that step, before a checkpoint."""

    def progress(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise Stop

    with pytest.raises(Stop):
        run(folder, progress=progress, **changed)


def test_sgd_is_the_plain_rule_and_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    plain = {"optimizer": "sgd", "warmup": 0.0, "clip": 1e9, "lr": 0.5, "scale_lr": 0.25, "norm_lr": 0.125}
    task, made = training.task(noise=0.0), training.settings(steps=1, **plain)
    batches = Batches({"ids": training.windows()}, made)(0)
    by = {name: torch.zeros_like(value) for name, value in task.named_parameters() if value.requires_grad}
    for batch in batches:
        task(batch)["loss"].backward()
    for name, value in task.named_parameters():
        if name in by:
            assert value.grad is not None
            rate = 0.25 if name.endswith((".scale", ".shift")) else 0.5 if value.ndim > 1 else 0.125
            by[name] = value.detach() - rate * value.grad / len(batches)
            value.grad = None
    train(task, training.windows(), made, tmp_path / "one")
    trained = dict(task.named_parameters())
    for name, wanted in by.items():
        torch.testing.assert_close(trained[name].detach(), wanted, rtol=1e-4, atol=1e-6)
    run(tmp_path / "whole", **plain)
    stopped_at(tmp_path / "stopped", 7, **plain)
    run(tmp_path / "stopped", **plain)
    assert training.weights(tmp_path / "stopped") == training.weights(tmp_path / "whole")


def test_a_run_without_checkpoints_leaves_its_journal_and_saves_when_it_is_stopped(tmp_path: Path) -> None:
    run(tmp_path, checkpoint_every=None)
    assert len(read_journal(tmp_path / "journal.jsonl")) == 12
    assert not list((tmp_path / "checkpoints").glob("step-*"))

    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, checkpoint_every=None, progress=stop)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] != []


def test_it_learns_what_it_should(tmp_path: Path) -> None:
    task = training.task(noise=0.0)
    before = {name: value.detach().clone() for name, value in task.named_parameters()}
    made = training.settings(steps=40, lr=1e-2, scale_lr=1e-3, norm_lr=1e-2, checkpoint_every=40)
    result = train(task, training.windows(4), made, tmp_path)
    losses = [record["loss"] for record in read_journal(tmp_path / "journal.jsonl")]
    assert losses[-1] < losses[0] / 3
    assert result.step == 40
    for name, value in task.named_parameters():
        moved = not torch.equal(before[name], value)
        assert moved == ("embed" not in name and "teacher" not in name), name
    assert not task.training


def test_rates_warm_up_and_fall_by_group(tmp_path: Path) -> None:
    run(tmp_path, steps=10, warmup=0.3, lr=1.0e-3, scale_lr=2.0e-5, norm_lr=3.0e-6)
    rates = [record["rates"] for record in read_journal(tmp_path / "journal.jsonl")]
    shares = [1 / 3, 2 / 3, 1.0] + [(1 + np.cos(np.pi * k / 7)) / 2 for k in range(7)]
    assert np.allclose([rate["weights"] for rate in rates], 1e-3 * np.array(shares))
    assert np.allclose([rate["scales"] for rate in rates], 2e-5 * np.array(shares))
    assert np.allclose([rate["vectors"] for rate in rates], 3e-6 * np.array(shares))


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    made = {}
    for batch, accumulation in ((4, 1), (1, 4)):
        task = training.task(torch.float64, noise=0.0)
        settings = training.settings(batch=batch, accumulation=accumulation)
        train(task, training.windows(), settings, tmp_path / str(batch))
        made[batch] = [record["loss"] for record in read_journal(tmp_path / str(batch) / "journal.jsonl")]
    assert np.allclose(made[4], made[1], rtol=0, atol=1e-9)


def test_gradient_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "again", gradient_checkpointing=True)
    assert training.weights(tmp_path / "plain") == training.weights(tmp_path / "again")


def test_bfloat16_products(tmp_path: Path) -> None:
    run(tmp_path / "bfloat16", precision="bfloat16")
    run(tmp_path / "float32", precision="float32")
    low, high = (read_journal(tmp_path / name / "journal.jsonl")[0]["loss"] for name in ("bfloat16", "float32"))
    assert low != high
    assert low == pytest.approx(high, rel=2e-2)


def test_quantizers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def after_step(_: Learned, latent: Tensor) -> None:
        latent.clamp_(-0.1, 0.1)
        assert not torch.is_grad_enabled()

    monkeypatch.setattr(Learned, "schedule", lambda _, progress: told.append(progress))
    monkeypatch.setattr(Learned, "after_step", after_step)
    task = training.task()
    train(task, training.windows(), training.settings(steps=4), tmp_path)
    assert sorted(set(told)) == [0, 0.25, 0.5, 0.75, 1]
    up_proj = task.student.get_submodule("model.layers.0.mlp.up_proj")
    assert up_proj.parametrizations.weight.original.abs().max() <= 0.1


@pytest.mark.parametrize("step", [1, 4, 5, 11, 12])
def test_stopped_anywhere_it_ends_the_same(tmp_path: Path, step: int) -> None:
    def evaluate(task: torch.nn.Module) -> dict[str, float]:
        assert not task.training
        assert not torch.is_grad_enabled()
        return {"draw": float(torch.rand(1))}  # random states are part of the state

    options = {"evaluate": evaluate, "evaluate_every": 3}
    run(tmp_path / "whole", **options)
    stopped_at(tmp_path / "again", step, **options)
    result = run(tmp_path / "again", **options)
    assert result.resumed == (step - 1) // 4 * 4
    assert training.weights(tmp_path / "whole") == training.weights(tmp_path / "again")


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = training.weights(tmp_path)
    again = run(tmp_path)
    assert (again.step, again.resumed, again.record) == (12, 12, first.record)
    assert training.weights(tmp_path) == before


def test_without_resuming_it_begins_again(tmp_path: Path) -> None:
    run(tmp_path, lr=1e-2)
    result = run(tmp_path, resume=False)
    run(tmp_path.parent / "fresh")
    assert result.resumed == 0
    assert training.weights(tmp_path) == training.weights(tmp_path.parent / "fresh")


def test_a_torn_journal_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    stopped_at(tmp_path / "again", 7)
    with (tmp_path / "again/journal.jsonl").open("ab") as file:
        file.write(b'{"step": 8, "lo')
    run(tmp_path / "again")
    assert training.weights(tmp_path / "whole") == training.weights(tmp_path / "again")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 1e-3}, "settings.lr 0.003, now it is 0.001"),
        ({"steps": 13}, "settings.steps 12, now it is 13"),
        ({"identified": {"recipe": {"kl": 2}}}, "others.recipe.kl 1, now it is 2"),
    ],
)
def test_another_runs_checkpoint_is_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    run(tmp_path, **{"identified": {"recipe": {"kl": 1}}})
    options = {"identified": {"recipe": {"kl": 1}}, **changed}
    with pytest.raises(TrainError) as caught:
        run(tmp_path, **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run(tmp_path, resume="anyway", **options).resumed == 12


def test_other_data_modules_or_frozen_weights_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    other = training.task()
    with torch.no_grad():
        other.teacher[0].weight[0, 0] = 0.5
    with pytest.raises(TrainError, match=r"task\.frozen"):
        train(other, training.windows(), training.settings(), tmp_path)
    with pytest.raises(TrainError, match=r"data\.sha256"):
        train(training.task(), training.windows(seed=1), training.settings(), tmp_path)
    with pytest.raises(TrainError, match=r"task\.modules"):
        train(training.task(rms_norm_eps=1e-3), training.windows(), training.settings(), tmp_path)
    other = training.task()
    other.settings = Distil(kl=0.5)
    with pytest.raises(TrainError, match=r"task\.activations"):
        train(other, training.windows(), training.settings(), tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(TrainError, match=r"machine\.threads"):
            run(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert run(tmp_path, checkpoint_every=5).resumed == 12  # no result depends on it


class Poisoned(training.TinyTask):
    """Its loss, or its gradient alone, is not finite at the n-th pass."""

    def __init__(self, at: int, loss: float, factor: float) -> None:
        made = training.task()
        super().__init__(made.student, 0.1)
        self.left, self.loss, self.factor = at, loss, factor

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().forward(batch)
        self.left -= 1
        if self.left == 0:
            norm = self.student.weight("model.norm.weight")
            zero = (norm - norm.detach()).abs().sqrt().sum()  # 0, and its gradient 0/0
            losses["loss"] = losses["loss"] * self.loss + self.factor * zero
        return losses


@pytest.mark.parametrize(("loss", "factor"), [(float("nan"), 0), (float("inf"), 0), (1, 1)])
@pytest.mark.parametrize("at", [1, 13, 14])
def test_what_is_not_finite_stops_the_step(tmp_path: Path, at: int, loss: float, factor: float) -> None:
    task = Poisoned(at, loss, factor)
    step = -(-at // 2)
    with pytest.raises(TrainError, match=rf"^step {step}: .*(loss|gradient) (nan|inf)[^\n]*$"):
        train(task, training.windows(), training.settings(), tmp_path)
    assert all(parameter.isfinite().all() for parameter in task.parameters())
    saved = sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))
    assert saved == (["step-00000004"] if step > 4 else [])
    if step > 4:
        assert train(Poisoned(0, 1, 0), training.windows(), training.settings(), tmp_path).resumed == 4


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    task = training.task()

    def progress(record: Mapping[str, Any]) -> None:
        if record["step"] == 8:  # after its update, before its checkpoint
            task.student.weight("model.norm.weight").data[3] = float("inf")

    with pytest.raises(TrainError, match=r"^step 8: weights are not finite, and not saved; [^\n]*$"):
        train(task, training.windows(), training.settings(), tmp_path, progress=progress)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_full_disk_is_one_line_and_the_checkpoint_stays(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    stopped_at(tmp_path / "again", 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (4 << 10, 200 << 10):  # the journal has no room; the weights have none
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(StorageError, match=r"^cannot write [^\n]*File too large; raise the file size limit"):
                run(tmp_path / "again", checkpoint_every=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "again/checkpoints").iterdir()] == ["step-00000004"]
    run(tmp_path / "again")
    assert training.weights(tmp_path / "whole") == training.weights(tmp_path / "again")


def test_a_damaged_newest_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "whole")
    stopped_at(tmp_path / "again", 10)
    path = tmp_path / "again/checkpoints/step-00000008/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path / "again").resumed == 4
    assert len(caplog.messages) == 1
    assert training.weights(tmp_path / "whole") == training.weights(tmp_path / "again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_leaves(tmp_path: Path, number: int) -> None:
    run(tmp_path / "whole")

    def progress(record: Mapping[str, Any]) -> None:
        if record["step"] == 6:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "again", progress=progress)
    assert signal.getsignal(number) is before
    last = max((tmp_path / "again/checkpoints").iterdir()).name
    assert last == "step-00000007"  # the flag is looked at within a step
    assert run(tmp_path / "again").resumed == 7
    assert training.weights(tmp_path / "whole") == training.weights(tmp_path / "again")


def test_ctrl_c_twice_leaves_at_once(tmp_path: Path) -> None:
    def progress(record: Mapping[str, Any]) -> None:
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=progress)
    assert max((tmp_path / "checkpoints").iterdir()).name == "step-00000004"


def test_trained_weights_go_into_another_task(tmp_path: Path) -> None:
    task = training.task()
    train(task, training.windows(), training.settings(), tmp_path)
    fresh = training.task()
    assert load_weights(fresh, tmp_path) == 12
    for (name, one), other in zip(freeze(task).items(), freeze(fresh).values(), strict=True):
        assert np.array_equal(one.codes, other.codes), name
        assert np.array_equal(one.scale, other.scale)
    with pytest.raises(TrainError, match="the checkpoint has student"):
        load_weights(training.task(hidden_size=32), tmp_path)
    with pytest.raises(TrainError, match="no checkpoint"):
        load_weights(fresh, tmp_path / "nowhere")


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to train"):
        train(training.task().requires_grad_(False), training.windows(), training.settings(), tmp_path)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_trackio_gets_a_copy_and_may_fail(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    tracker: Any = types.ModuleType("trackio")
    tracker.init = lambda **options: print("hello", options["name"])
    tracker.finish = lambda: print("bye")

    def log(numbers: dict[str, float], step: int) -> None:
        if step == 3:
            raise OSError("no network")
        logged.append((step, numbers))

    tracker.log = log
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    run(tmp_path / "name")
    assert [step for step, _ in logged] == [1, 2]
    assert logged[0][1]["parts.ce"] == read_journal(tmp_path / "name/journal.jsonl")[0]["parts"]["ce"]
    assert capsys.readouterr().out == ""
    assert [line for line in caplog.messages if "no network" in line] == caplog.messages[:1]


def test_the_journal(tmp_path: Path) -> None:
    run(tmp_path, evaluate=lambda _: {"perplexity": float("inf"), "kl": 0.5}, evaluate_every=6)
    records = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(13))
    assert [r["step"] for r in records if "evaluation" in r] == [0, 6, 12]
    assert records[0]["evaluation"] == {"perplexity": None, "kl": 0.5}
    last = records[-1]
    assert last["tokens"] == 12 * 4 * training.CONTEXT
    assert last["epoch"] == 12 * 4 / 20
    assert last["loss"] == pytest.approx(last["parts"]["ce"] + last["parts"]["penalty"])
    assert 0.2 < last["zeros"] < 0.6
    assert 0 <= last["flips"] < 0.1
    assert last["scale"]["min"] < last["scale"]["mean"] < last["scale"]["max"]
    assert all(a["seconds"] < b["seconds"] for a, b in itertools.pairwise(records))
    assert all(a["cpu_seconds"] <= b["cpu_seconds"] for a, b in itertools.pairwise(records))


def test_two_trainings_of_one_run_are_kept_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", None, {})
    with pytest.raises(StorageError, match="another process is training the same run; wait for it"):
        run(tmp_path)
    journal.close()
    run(tmp_path)
