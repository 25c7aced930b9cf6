"""A benchmark as data: what is measured, which way is better, and what its authors published. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower"]
PICTURE = "picture_file"
"""The column in which a measure finds the file of each picture; none of drafts."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of each edited picture.

        value = factor · score

    Args:
        label: what tables call it.
        better: which way.
        place: ``module:class`` of what scores pictures as a reward does.
        arguments: everything that may be set of it, with the values of the benchmark.
        factor: turns a score, of which more is better, into the value; negative for an error.
        packages: that have to be installed besides those of the extra ``rewards``.
        of_rows: it is left out, without a word, where rows lack what it needs.
    """

    label: str
    better: Better
    place: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    packages: tuple[str, ...] = ()
    of_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class Final:
    """One number of several measures, each with its own rows: the mean of their means.

        value = (1/M) Σ_m factor_m · mean_m

    Args:
        label: what tables call it.
        factors: measure → what its mean is multiplied by, to bring all to one scale.
    """

    label: str
    factors: Mapping[str, float]

    def of(self, means: Mapping[str, float]) -> float | None:
        """The value, or none where one of the means is missing.

        >>> Final(label="both", factors={"a": 1.0, "b": 0.5}).of({"a": 0.25, "b": 1.5})
        0.5
        """
        if any(name not in means for name in self.factors):
            return None
        return sum(factor * means[name] for name, factor in self.factors.items()) / len(self.factors)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number from elsewhere: on other data, and never to be compared with ours as if it were on these rows.

    Args:
        measure: beside which it is shown, or which final.
        note: what is not known about it.
    """

    method: str
    measure: str
    value: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A set of measures with what is known of others.

    Args:
        title: in tables.
        measures: by name, in the order of the table.
        published: other people's numbers.
        source: where these are from.
        by: columns of the rows, or ``references`` for their number, that tables are divided by.
        finals: by name, what several measures come to.
    """

    name: str
    title: str
    measures: Mapping[str, Measure]
    published: tuple[Published, ...] = ()
    source: str = ""
    by: tuple[str, ...] = ()
    finals: Mapping[str, Final] = field(default_factory=dict)

    def published_beside(self, measure: str) -> tuple[Published, ...]:
        """What others report of a measure."""
        return tuple(entry for entry in self.published if entry.measure == measure)
