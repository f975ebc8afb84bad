"""Fields and gauges that several tests share. All float64."""

import torch

from regauge import flow


class Net(torch.nn.Module):
    """A smooth time-dependent field on R^d, times scalar or per sample."""

    def __init__(self, dim=3, seed=0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.a = torch.nn.Parameter(torch.randn(8, dim, generator=rng, dtype=torch.float64) / 2)
        self.b = torch.nn.Parameter(torch.randn(8, generator=rng, dtype=torch.float64))
        self.c = torch.nn.Parameter(torch.randn(dim, 8, generator=rng, dtype=torch.float64) / 2)

    def forward(self, t, x):
        phase = self.b * (1 + (t if t.dim() == 0 else t.unsqueeze(-1)))
        return torch.tanh(x @ self.a.T + phase) @ self.c.T


def states(n=7, dim=3, seed=5):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _randomise(module, seed, size):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p.dtype))
    return module.double()


def diffeos(dim=3):
    """One of every kind, none of them trivial."""
    rng = torch.Generator().manual_seed(11)
    frame = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64)).Q
    turn = torch.randn(dim, dim, generator=rng, dtype=torch.float64)
    turn = turn - turn.T
    one = torch.eye(dim, dtype=torch.float64)
    scale = flow.ScaleDiffeo(lambda r: torch.sin(2 * r))
    channels = _randomise(flow.BernsteinScale(4, dim, frame, dim, centred=True), 1, 0.4)
    affine = flow.AffineDiffeo(
        lambda r: torch.linalg.matrix_exp(r[..., None, None] * turn) * (1 + r[..., None, None] ** 2),
        lambda r: torch.stack([torch.cos(r), r, r**2], -1)[..., :dim],
    )
    low = _randomise(flow.LowRankDiffeo(torch.randn(dim, 2, generator=rng, dtype=torch.float64)), 2, 0.4)
    coupling = _randomise(flow.CouplingDiffeo(dim, 2, 8, frame), 3, 0.2)
    pull_only = flow.PullDiffeo(
        lambda r, y: y + 0.2 * torch.sin(y @ (one + 0.1 * turn).T) * (r if r.dim() == 0 else r.unsqueeze(-1)),
        tolerance=1e-9,
    )
    return {
        "scale": scale,
        "channels": channels,
        "affine": affine,
        "low_rank": low,
        "coupling": coupling,
        "pull_only": pull_only,
        "composed": flow.ComposedDiffeo(coupling, affine),
        "inverse": flow.InverseDiffeo(coupling),
        "reclocked": flow.ReclockedDiffeo(affine, flow.PowerClock(2.0)),
    }
