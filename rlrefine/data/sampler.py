"""Which rows a step trains on: a pure function of the seed and the step, so there is no position to save."""

from rlrefine.draws import permutation


def rows_of_step(seed: int, step: int, count: int, total: int) -> list[int]:
    """The rows of one step, from an endless sequence of shuffled epochs that is cut into steps.

    Every row comes once in an epoch; a step may span two of them.

    Args:
        seed: of the run.
        step: of the stage.
        count: rows of a step, over all processes.
        total: rows of the data set.

    >>> sorted(rows_of_step(0, 0, 3, 6) + rows_of_step(0, 1, 3, 6))
    [0, 1, 2, 3, 4, 5]
    """
    places = range(step * count, (step + 1) * count)
    epochs = {place // total for place in places}
    orders = {epoch: permutation(total, seed, "epoch", epoch) for epoch in epochs}
    return [orders[place // total][place % total] for place in places]
