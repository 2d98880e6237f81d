"""The last norm's gains against a direct least-squares fit of the centred logits."""

import torch

from tercet.calibrate.final_norm import fit_gains


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
