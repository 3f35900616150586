"""What the workers run. It imports nothing, so that a worker that runs these shows what procflow itself imports."""


def double(x):
    return x * 2


def add(x, y=0):
    return x + y


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


def same(x):
    return x


def imported(_):
    import sys

    return sorted(sys.modules)
