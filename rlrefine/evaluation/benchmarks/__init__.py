"""The benchmarks by name. A further one is a file beside these and a line here. No torch here."""

from collections.abc import Mapping

from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmark import Benchmark
from rlrefine.evaluation.benchmarks.basic import BASIC
from rlrefine.evaluation.benchmarks.omniref import OMNIREF
from rlrefine.evaluation.benchmarks.spie import SPIE
from rlrefine.recipe.problems import closest

BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (BASIC, OMNIREF, SPIE)}


def find_benchmark(name: str) -> Benchmark:
    """
    Raises:
        UsageError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"--benchmark {name}: there is no such benchmark; {closest(name, BENCHMARKS)}")
    return BENCHMARKS[name]
