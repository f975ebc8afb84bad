"""Data sets and small flow-matching models for the flow benchmarks: trained from scratch, one minute each at most."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Sampler = Callable[[int, torch.Generator], Tensor]


def checkerboard(n: int, rng: torch.Generator) -> Tensor:
    """Uniform on the eight dark squares of a 4 x 4 board on [-2, 2]^2."""
    column = torch.randint(0, 4, (n,), generator=rng)
    row = 2 * torch.randint(0, 2, (n,), generator=rng) + column % 2
    corner = torch.stack([column, row], -1).float() - 2
    return corner + torch.rand(n, 2, generator=rng)


def moons(n: int, rng: torch.Generator) -> Tensor:
    """Two interleaved half circles with noise 0.08, centred, of about unit scale."""
    angle = torch.pi * torch.rand(n, generator=rng)
    upper = torch.rand(n, generator=rng) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x - 0.5, y - 0.25], -1) * 1.5
    return points + 0.08 * torch.randn(n, 2, generator=rng)


def mixture(n: int, rng: torch.Generator) -> Tensor:
    """Eight Gaussians of width 0.15 on a circle of radius 2."""
    angle = torch.randint(0, 8, (n,), generator=rng) * (2 * torch.pi / 8)
    return 2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.15 * torch.randn(n, 2, generator=rng)


def _digits() -> Tensor:
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().data, dtype=torch.float64)
    centred = pixels - pixels.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:16]
    scores = centred @ axes.T
    return (scores / scores.std(0)[0]).float()


def digits(n: int, rng: torch.Generator) -> Tensor:
    """scikit-learn's 1797 digits on 16 principal axes (the first of unit variance), drawn with replacement."""
    global _CACHE
    if _CACHE is None:
        _CACHE = _digits()
    return _CACHE[torch.randint(0, len(_CACHE), (n,), generator=rng)]


_CACHE: Tensor | None = None
DATA: dict[str, tuple[int, Sampler]] = {
    "checkerboard": (2, checkerboard),
    "moons": (2, moons),
    "mixture": (2, mixture),
    "digits": (16, digits),
}


class Velocity(nn.Module):
    """u(t, x): three hidden layers of width 128; t enters as (t, cos 2 pi t, sin 2 pi t)."""

    def __init__(self, dim: int, width: int = 128) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Sequential(
            nn.Linear(dim + 3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dim),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        t = t.to(x.dtype).expand(x.shape[:-1]).unsqueeze(-1)
        wave = 2 * torch.pi * t
        return self.net(torch.cat([x, t, wave.cos(), wave.sin()], -1))


def train(name: str, seed: int, iterations: int = 4000, batch: int = 512) -> Velocity:
    """Conditional flow matching on the straight (CondOT) path x_t = (1 - t) x_0 + t x_1."""
    dim, sample = DATA[name]
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(1000 + seed)
    model = Velocity(dim)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    for _ in range(iterations):
        x1 = sample(batch, rng)
        x0 = torch.randn(batch, dim, generator=rng)
        t = torch.rand(batch, generator=rng)
        xt = (1 - t)[:, None] * x0 + t[:, None] * x1
        loss = (model(t, xt) - (x1 - x0)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return model.requires_grad_(False).eval()


def trained(name: str, seed: int, cache: Path) -> Velocity:
    """From the cache directory, or trained now and kept there."""
    path = cache / f"{name}-{seed}.pt"
    if path.exists():
        model = Velocity(DATA[name][0])
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.requires_grad_(False).eval()
    model = train(name, seed)
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x-y| - E|x-x'| - E|y-y'| (unbiased), zero iff the laws agree."""
    n, m = len(x), len(y)
    cross = torch.cdist(x, y).mean()
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * cross - within)
