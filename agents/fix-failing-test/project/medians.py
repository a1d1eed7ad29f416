"""Figures of a list of numbers."""


def median(numbers):
    """The middle of the numbers; of an even count, the mean of the two in the middle."""
    if not numbers:
        raise ValueError("no numbers, no median")
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle] + ordered[middle + 1]) / 2


def spread(numbers):
    """The difference of the largest and the smallest."""
    return max(numbers) - min(numbers)
