"""What is measured where no benchmark is named: fidelity to the target or draft, and likeness to the references."""

from typing import Any

from rlrefine.evaluation.benchmark import Benchmark, Measure


def _fidelity(label: str, **arguments: Any) -> Measure:
    return Measure(
        label=label, better="higher", place="rlrefine.evaluation.fidelity:Fidelity", arguments=arguments, of_rows=True
    )


BASIC = Benchmark(
    name="basic",
    title="fidelity",
    measures={
        "psnr": _fidelity("PSNR to the target, dB", to="targets"),
        "psnr_in_mask": _fidelity("PSNR to the target inside the mask, dB", to="targets", where="inside"),
        "psnr_outside_mask": _fidelity("PSNR to the target outside the mask, dB", to="targets", where="outside"),
        "ssim": _fidelity("SSIM to the target", measure="ssim", to="targets"),
        "draft_psnr_outside_mask": _fidelity("PSNR to the draft outside the mask, dB", to="drafts", where="outside"),
        "draft_ssim": _fidelity("SSIM to the draft", measure="ssim", to="drafts"),
    },
)
