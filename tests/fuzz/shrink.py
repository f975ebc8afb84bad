"""A smaller network with the same fault: steps are bypassed while the fault stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.fuzz.networks import TIME, Network, alive


def shrunk(network: Network, faulty: Callable[[Network], bool]) -> Network:
    """The first fixed point of bypassing single steps; every network on the way is faulty."""
    again = True
    while again:
        again = False
        for smaller in candidates(network):
            if faulty(smaller):
                network, again = smaller, True
                break
    return network


def candidates(network: Network) -> Iterator[Network]:
    """Fewer outputs, an earlier output, or one step replaced by an earlier value of its shape."""
    if len(network.outputs) > 1:
        for o in network.outputs:
            yield alive(replace(network, outputs=(o,)))
    shapes = [(TIME,) if network.tokens else (TIME, network.width), *(s.shape for s in network.steps)]
    first = 1 if network.tokens else 0
    if len(network.outputs) == 1:
        for o in network.steps[network.outputs[0] - 1].args if network.outputs[0] else ():
            if o >= max(first, 1):
                yield alive(replace(network, outputs=(o,)))
    for i in range(len(network.steps), first, -1):
        for j in range(i - 1, first - 1, -1):
            if shapes[j] == shapes[i]:
                steps = tuple(replace(s, args=tuple(j if a == i else a for a in s.args)) for s in network.steps)
                outputs = tuple(j if o == i else o for o in network.outputs)
                if any(outputs):
                    yield alive(replace(network, steps=steps, outputs=outputs))
