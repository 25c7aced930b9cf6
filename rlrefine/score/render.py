"""Findings for people: tables, histograms of block characters, and what to take care of."""

from collections.abc import Iterator

from rlrefine.score.findings import Finding, Findings
from rlrefine.score.measuring import Preference
from rlrefine.score.statistics import PERCENTILES, Distribution
from rlrefine.tables import columns

BLOCKS = " ▁▂▃▄▅▆▇█"
ALIKE = 0.95  # correlation above which two rewards say about the same


def render(findings: Findings) -> str:
    """Everything that was found, as text."""
    size = findings.request.size
    pixels = f"{size[0]} × {size[1]} pixels" if size else "each at its own size"
    of = findings.request.data
    head = f"{findings.images} images ({findings.pictures.kind}) of {of}, {pixels}, scored on {findings.device}"
    parts = [head, _scores(findings), _histograms(findings), _checks(findings), _agreement(findings)]
    notes = list(warnings(findings))
    return "\n\n".join([part for part in parts if part] + (["\n".join(notes)] if notes else []))


def warnings(findings: Findings) -> Iterator[str]:
    """What somebody who wants to train with these rewards should know first."""
    if findings.pictures.others:
        yield f"warning: {len(findings.pictures.others)} images of the folder belong to no row and were not scored"
    for label, found in findings.rewards.items():
        kinds = sorted({failure.kind for failure in found.failures.values()})
        if found.failures:
            yield f"warning: {label} failed for {len(found.failures)} of {findings.images} images ({', '.join(kinds)})"
        if not found.applicable.any():
            yield f"warning: {label} applies to none of the images: no row has what it uses"
        if found.steadiness is not None and not found.steadiness.deterministic:
            yield f"warning: {label} is not deterministic: the same images scored otherwise a second time"
        if found.distribution is not None and found.distribution.std == 0 and found.scored > 1:
            yield f"warning: {label} gives all of these images the same score"
        if found.preference is not None and found.preference.higher < 0.5 and found.preference.difference < 0:
            yield f"warning: {label} likes drafts better than targets: alone it teaches to change nothing"
    for pair in findings.correlations:
        if pair.spearman is not None and abs(pair.spearman) > ALIKE:
            yield f"warning: {pair.first} and {pair.second} order the images almost alike ({pair.spearman:+.2f})"


def _scores(findings: Findings) -> str:
    percents = [f"{percent} %" if percent != 50 else "median" for percent in PERCENTILES]
    lines = [["reward", "mean", "std", "min", *percents, "max", "failed", "n/a"]]
    for label, found in findings.rewards.items():
        said = found.distribution
        numbers = [said.mean, said.std, said.min, *said.percentiles.values(), said.max] if said else []
        cells = [_number(number) for number in numbers] or ["-"] * 9
        shares = (len(found.failures), int((~found.applicable).sum()))
        lines.append([label, *cells, *(f"{share / findings.images:.1%}" if share else "0" for share in shares)])
    return columns(lines)


def _histograms(findings: Findings) -> str:
    known = {label: said for label, found in findings.rewards.items() if (said := found.distribution) is not None}
    lines = [[label, _number(said.min), histogram(said), _number(said.max)] for label, said in known.items()]
    return columns([["distribution", "from", "", "to"], *lines], left=(0, 2, 3)) if lines else ""


def histogram(said: Distribution) -> str:
    """Bins as bars of one character each; any image at all shows.

    >>> from rlrefine.score.statistics import Distribution
    >>> histogram(Distribution(mean=0, std=0, min=0, max=1, percentiles={}, edges=(), counts=(0, 1, 50, 100)))
    ' ▁▄█'
    """
    most = max(said.counts)
    return "".join(BLOCKS[max(count > 0, 8 * count // most)] for count in said.counts)


def _checks(findings: Findings) -> str:
    lines = [["reward", "images / CPU s", "again", "rearranged", "deterministic", "target above draft"]]
    for label, found in findings.rewards.items():
        lines.append([label, _speed(found), *_steady(found), _preferred(found.preference)])
    return columns(lines)


def _speed(found: Finding) -> str:
    if not found.scored or not found.seconds.cpu:
        return "-"
    rate = found.scored / found.seconds.cpu
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _steady(found: Finding) -> list[str]:
    steady = found.steadiness
    if steady is None or not found.scored:
        return ["-"] * 3
    return [f"{steady.again:.1g}", f"{steady.rearranged:.1g}", "yes" if steady.deterministic else "NO"]


def _preferred(preference: Preference | None) -> str:
    if preference is None:
        return "-"
    equal = f", {preference.equal:.0%} equal" if preference.equal else ""
    return f"{preference.higher:.0%} of {preference.rows}{equal}"


def _agreement(findings: Findings) -> str:
    pairs = findings.correlations
    lines = [["correlation", "Pearson", "Spearman", "images"]]
    for pair in pairs:
        numbers = ["-" if value is None else f"{value:+.2f}" for value in (pair.pearson, pair.spearman)]
        lines.append([f"{pair.first} – {pair.second}", *numbers, str(pair.n)])
    return columns(lines) if pairs else ""


def _number(value: float) -> str:
    return f"{value:.4g}"
