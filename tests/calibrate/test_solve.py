"""Each closed form does what it says: it is the optimum, or never worse than what it starts from."""

import numpy as np
import pytest
import torch

from tercet.calibrate.descent import sweep
from tercet.calibrate.feedback import error_feedback
from tercet.calibrate.keep import rounded
from tercet.calibrate.refit import refit
from tercet.calibrate.solve import solve
from tercet.calibrate.statistics import Statistics, damped
from tercet.quantizers import (
    AbsMeanConfig,
    BinaryConfig,
    CatQConfig,
    CrulisConfig,
    DltConfig,
    ItfConfig,
    L2Config,
    LearnedConfig,
    Levels,
    LrQatConfig,
    QuantizerConfig,
    SeqConfig,
)
from tercet.recipe import Planned

CONFIGS = [L2Config(group_size=32), BinaryConfig(group_size=32), ItfConfig(group_size=32), L2Config(group_size="row")]
BY_NAME = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.group_size}")


def _case(rows: int = 24, cols: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, and the damped Hessian of correlated inputs of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(cols, cols, generator=generator) * torch.logspace(-1, 0.5, cols)
    x = torch.randn(4 * cols, cols, generator=generator) @ mixing
    return torch.randn(rows, cols, generator=generator), damped(x.T @ x, 0.01)


def _error(weight: torch.Tensor, hessian: torch.Tensor, levels: Levels) -> float:
    apart = (weight - levels.dequantize()).double()
    return float(((apart @ hessian.double()) * apart).sum())


@BY_NAME
def test_error_feedback_beats_rounding_and_descent_never_loses(config: QuantizerConfig) -> None:
    weight, hessian = _case()
    quantizer = config.build()
    rounded = quantizer.solve(weight)
    codes = error_feedback(weight, hessian, rounded, binary=quantizer.binary)
    levels = Levels(codes, rounded.scale, rounded.shift)
    errors = [_error(weight, hessian, rounded), _error(weight, hessian, levels)]
    assert errors[1] < 0.8 * errors[0]
    for _ in range(3):
        codes = sweep(weight, hessian, levels, binary=quantizer.binary)
        levels = Levels(codes, levels.scale, levels.shift)
        errors.append(_error(weight, hessian, levels))
        assert errors[-1] <= errors[-2] * (1 + 1e-5)
    if quantizer.binary:
        assert set(codes.unique().tolist()) == {-1, 1}


@pytest.mark.parametrize("begin", [0, 63, 64, 127])
def test_a_sweep_moves_each_column_to_its_best_level(begin: int) -> None:
    """After the sweep's last column is set nothing else has moved, so no other level of it may be better."""
    weight, hessian = _case()
    order = torch.cat([torch.arange(begin + 1, 128), torch.arange(begin + 1)])  # `begin` comes last
    weight, hessian = weight[:, order], hessian[order][:, order]
    levels = L2Config(group_size="row").build().solve(weight)
    levels = Levels(sweep(weight, hessian, levels, binary=False), levels.scale)
    for code in (-1, 0, 1):
        other = levels.codes.clone()
        other[:, -1] = code
        apart = [(weight - Levels(c, levels.scale).dequantize()).double() for c in (levels.codes, other)]
        mine, theirs = (((a @ hessian.double()) * a).sum(1) for a in apart)
        assert (mine <= theirs * (1 + 1e-6)).all()


@BY_NAME
def test_refit_is_the_least_squares_answer(config: QuantizerConfig) -> None:
    weight, hessian = _case()
    quantizer = config.build()
    start = quantizer.solve(weight)
    levels = refit(weight, hessian, start, binary=quantizer.binary)
    root = torch.linalg.cholesky(hessian).T.double()  # |root w|^2 = w H w
    groups = start.scale.shape[1]
    member = torch.repeat_interleave(torch.eye(groups), weight.shape[1] // groups, dim=1)
    for row in range(len(weight)):
        bases = [start.codes[row] * member] if start.shift is None else [start.codes[row] * member, member]
        design = root @ torch.cat(bases).T.double()
        target = root @ weight[row].double()
        best = target - design @ torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
        mine = root @ (weight[row] - levels.dequantize()[row]).double()
        assert mine.norm() <= best.norm() * 1.01  # the hold on the old scales, and float16


@pytest.mark.parametrize(
    "config",
    [
        LearnedConfig(group_size=32, shift=True),
        LearnedConfig(group_size=32, binary=True),
        DltConfig(group_size=32),
        SeqConfig(group_size=32),
        SeqConfig(group_size=32, binary=True),
        CatQConfig(group_size=32),
        CrulisConfig(group_size=32),
        LrQatConfig(group_size=32),
    ],
    ids=lambda config: f"{config.name}{'-binary' if config.two_levels else ''}",
)
def test_trained_quantizers_are_calibrated_from_their_own_start_and_start_from_that(config: QuantizerConfig) -> None:
    weight, hessian = _case()
    plain = rounded(weight.numpy(), Planned(config, None, 32, "t2"))
    levels = solve(weight, hessian, config, damping=0.01, sweeps=1)
    assert _error(weight, hessian, levels) < 0.8 * _error(weight, hessian, Levels.from_tensor(plain))
    quantizer = config.build()
    frozen = quantizer.freeze(quantizer.start(weight, levels))
    if config.name == "catq":
        assert np.array_equal(frozen.codes, levels.codes)
        assert np.allclose(frozen.scale, levels.scale, rtol=2e-3)
    else:
        assert frozen.equals(levels.to_tensor())


def test_groups_of_zeros_keep_their_scale() -> None:
    weight, hessian = _case()
    weight[:, :32] = 0
    levels = solve(weight, hessian, AbsMeanConfig(group_size=32), damping=0.01, sweeps=1)
    assert np.isfinite(levels.dequantize().numpy()).all()


def test_the_correction_answers_what_both_streams_lack() -> None:
    generator = torch.Generator().manual_seed(0)
    quantized, original = torch.randn(2, 1, 512, 16, generator=generator)
    lacking = torch.randn(1, 512, 8, generator=generator)
    weight = torch.randn(8, 16, generator=generator)
    for inputs, residual in ((1.0, 1.0), (0.5, 0.75), (0.0, 0.0)):
        statistics = Statistics({"a": weight, "b": weight}, inputs=inputs, residual=residual)
        for at in (slice(0, 200), slice(200, 512)):
            statistics.add(quantized[:, at], original[:, at], {"a": lacking[:, at]})
        assert torch.allclose(statistics.hessian, quantized[0].T @ quantized[0], atol=1e-3)
        target = (quantized[0] + inputs * (original[0] - quantized[0])) @ weight.T
        for name, wanted in (("a", target + residual * lacking[0]), ("b", target)):
            best = torch.linalg.lstsq(quantized[0], wanted).solution
            assert torch.allclose(statistics.corrected(name, 1e-7).T, best, atol=1e-4)


def test_unseen_tokens_choose_how_far_the_weights_go() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, weight = torch.randn(2, 8, 32, generator=generator)

    def sums(tokens: int, noise: float) -> Statistics:
        """What should change is W' = truth, seen through noise."""
        x = torch.randn(1, tokens, 32, generator=generator)
        lacking = x @ (truth - weight).T + noise * torch.randn(1, tokens, 8, generator=generator)
        made = Statistics({"a": weight}, inputs=1, residual=1)
        made.add(x, x, {"a": lacking})
        return made

    def error(found: Statistics, unseen: Statistics) -> tuple[float, float]:
        chosen, fixed = found.chosen("a", unseen), found.corrected("a")
        return float((chosen - truth).square().mean()), float((fixed - truth).square().mean())

    chosen, fixed = error(sums(2000, 0.0), sums(500, 0.0))  # nothing to fear: all of the way
    assert chosen < 1e-3
    assert chosen <= fixed
    chosen, fixed = error(sums(40, 10.0), sums(500, 10.0))  # more noise than signal, and few tokens
    assert chosen < 0.5 * fixed
    only_noise = sums(40, 10.0)
    truth.copy_(weight)  # what is unseen asks for no change
    assert torch.allclose(only_noise.chosen("a", sums(5000, 0.0)), weight)


def test_a_hessian_wider_than_a_strip_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tercet.calibrate.statistics.STRIP", 10)
    x = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    statistics = Statistics({"a": torch.zeros(4, 32)}, inputs=1, residual=1)
    statistics.add(x, x, {})
    assert torch.allclose(statistics.hessian, x[0].T @ x[0], atol=1e-4)
