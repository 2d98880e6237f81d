"""The last norm's gains against a direct least-squares fit of the centred logits."""

import torch

from tercet.calibrate.final_norm import fit_gains, fit_sureness


def test_least_squares_of_the_centred_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    quantized, original = torch.randn(2, 200, 12, generator=generator)
    gains, head = torch.rand(12, generator=generator) + 0.5, torch.randn(50, 12, generator=generator) + 3
    centred = head - head.mean(0)
    design = torch.einsum("td,vd->tvd", quantized, centred).reshape(-1, 12)
    target = ((gains * original) @ centred.T).reshape(-1)
    best = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    found = fit_gains([(quantized[:90], original[:90]), (quantized[90:], original[90:])], gains, head)
    assert torch.allclose(found, best, atol=5e-3)  # the hold pulls by a thousandth


def test_nothing_changes_where_nothing_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, gains = torch.randn(200, 12, generator=generator), torch.rand(12, generator=generator)
    head = torch.randn(50, 12, generator=generator)
    assert torch.allclose(fit_gains([(rows, rows)], gains, head), gains, atol=1e-5)


def test_the_factor_is_where_kl_is_least() -> None:
    generator = torch.Generator().manual_seed(0)
    original, noise = torch.randn(2, 300, 12, generator=generator)
    head = torch.randn(50, 12, generator=generator)
    quantized = original + noise

    def kl(factor: float) -> float:
        apart = (original @ head.T).log_softmax(1) - (quantized @ head.T * factor).log_softmax(1)
        return float(((original @ head.T).softmax(1) * apart).sum(1).mean())

    found = fit_sureness(quantized, original, head)
    assert found < 0.8  # noise makes too sure
    assert kl(found) < min(kl(found * 0.97), kl(found * 1.03))
    assert abs(fit_sureness(original, original, head) - 1) < 0.01
