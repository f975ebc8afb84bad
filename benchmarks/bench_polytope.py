"""Extraction of polytopes: ratio to `relucent` on the same nets, growth with the number of facets; generated lattices.

    python benchmarks/bench_polytope.py

Both programs run in this process, one after the other, on the same float64 weights. relucent finds the activation
regions by local search with exact facet certificates, so it is timed without its final verification and compared with
both of our modes; the numbers of regions must agree, or the run stops.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from regauge.flow import exact_flow, integrate, knot_gauge, transport
from regauge.polytope import extract, fit_lattice, network, read

NETS = [(3, (6,), 1), (3, (10,), 1), (4, (6,), 1), (3, (6, 6), 0), (3, (4, 4), 1)]  # dimension, widths, seed
UNITS = [32, 58, 101, 142, 225, 317, 448]
DEEP = [(3, (16, 16)), (3, (32, 32)), (3, (64, 64)), (4, (8, 8)), (4, (14, 14)), (4, (20, 20))]


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    best = math.inf
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def model_of(dim: int, widths: tuple[int, ...], seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for n, m in zip((dim, *widths), widths, strict=False):
        parts += [nn.Linear(n, m, bias=False), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], 1, bias=False)).double()


def against_relucent() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import relucent
    except ImportError:
        print("relucent is not installed (pip install relucent), so there is nothing to compare with")
        return
    print(f"{'net':>14} {'regions':>8} {'relucent s':>11} {'floating s':>11} {'exact s':>9} {'ratio':>7} {'exact':>7}")
    for dim, widths, seed in NETS:
        model = model_of(dim, widths, seed)
        start = np.random.default_rng(0).normal(size=dim)
        found: list[int] = []

        def search(model: nn.Sequential = model, start: np.ndarray = start, found: list[int] = found) -> None:
            complex_ = relucent.Complex(model)
            complex_.bfs(start=start, verify=False, verbose=0)
            found.append(len(complex_))

        label = f"{dim}-{'-'.join(map(str, widths))}-1"
        net = read(model)
        try:
            theirs = seconds(search)
        except Exception as error:  # its own refusal of walls that coincide, which ours merges
            counts = extract(net).regions.fan.counts
            print(f"{label:>14} {counts[-1]:>8} refused by relucent: {type(error).__name__}")
            continue
        ours = seconds(lambda net=net: extract(net), 3)
        exact = seconds(lambda net=net: extract(net, exact=True), 3)
        regions = extract(net).regions.fan.counts[-1]
        if found[0] < regions or (len(widths) == 1 and found[0] != regions):
            raise SystemExit(f"relucent found {found[0]} regions, extraction {regions}: one of them is wrong")
        ratios = f"{theirs / ours:>7.0f} {theirs / exact:>7.0f}"
        print(f"{label:>14} {regions:>8} {theirs:>11.2f} {ours:>11.4f} {exact:>9.4f} {ratios}")


def growth() -> None:
    print(f"\n{'one layer, d = 3':>18} {'facets':>8} {'seconds':>8} {'us a facet':>11}")
    sizes, times = [], []
    for units in UNITS:
        rng = np.random.default_rng(units)
        net = network([rng.normal(size=(units, 3))], np.ones(units), "abs")
        took = seconds(lambda net=net: extract(net), 2)
        facets = extract(net).f_vector[-1]
        sizes.append(facets)
        times.append(took)
        print(f"{units:>12} units {facets:>8} {took:>8.3f} {1e6 * took / facets:>11.1f}")
    print(f"seconds grow as facets^{np.polyfit(np.log(sizes), np.log(times), 1)[0]:.2f}")
    print(f"\n{'deeper':>18} {'regions':>8} {'seconds':>8} {'us a face':>11}")
    for dim, widths in DEEP:
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=(m, n)) for n, m in zip((dim, *widths), widths, strict=False)]
        net = network(list(weights), np.ones(widths[-1]), "relu")
        took = seconds(lambda net=net: extract(net))
        counts = extract(net).regions.fan.counts
        label = f"{dim}-{'-'.join(map(str, widths))}"
        print(f"{label:>18} {counts[-1]:>8} {took:>8.3f} {1e6 * took / sum(counts):>11.1f}")


def lattices() -> None:
    """Euler on generated and on uniform lattices, for a flow-matching model of a checkerboard that is trained here."""
    torch.manual_seed(0)
    noise, fresh = torch.randn(2048, 2), torch.randn(4096, 2)
    parts = [nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)]
    model = nn.Sequential(*parts)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(1500):
        cell = torch.randint(0, 8, (512,))
        data = torch.stack([cell // 2 - 2, 2 * (cell % 2) + (cell // 2) % 2 - 2], dim=1) + torch.rand(512, 2)
        start, t = torch.randn(512, 2), torch.rand(512, 1)
        loss = (model(torch.cat([(1 - t) * start + t * data, t], dim=1)) - (data - start)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.requires_grad_(False)

    def field(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return model(torch.cat([x, t.expand(len(x), 1)], dim=1))

    exact, target = exact_flow(field, noise), exact_flow(field, fresh)
    print(f"\n{'Euler, checkerboard':>20} {'uniform':>9} {'generated':>10} {'ratio':>6}   rms from the exact flow")
    for steps in (4, 8, 16):
        lattice = fit_lattice(field, noise, exact, steps, iterations=300)
        moved = transport(field, knot_gauge(lattice.times, lattice.scales))
        ends = (integrate(field, fresh, "euler", steps), integrate(moved, fresh, "euler", steps))
        error = [float((found - target).square().mean().sqrt()) for found in ends]
        print(f"{steps:>14} steps {error[0]:>9.4f} {error[1]:>10.4f} {error[0] / error[1]:>6.1f}")


if __name__ == "__main__":
    against_relucent()
    growth()
    lattices()
