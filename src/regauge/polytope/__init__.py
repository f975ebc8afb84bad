"""Networks that are polytopes: the star body {f <= 1} of a bias-free piecewise-linear network, exactly.

net = network([w], a, "abs")            # or read(nn.Sequential(...)), or train(dim=3, units=6).network
body = extract(net)                     # vertices, facets, f-vector, convex, bounded, volume
name(body), symmetry(body)              # icosidodecahedron, 120 isometries
save_page(body, "page.html"); save(mesh(body), "body.glb")
"""

from regauge.polytope.body import StarBody, extract
from regauge.polytope.classify import Name, Symmetry, canonical_form, describe, name, symmetry
from regauge.polytope.deep import fit, rms, train_deep
from regauge.polytope.descent import Flow, charged, descend
from regauge.polytope.export import save
from regauge.polytope.generated import Lattice, fit_lattice, generated_lattice, uniform_lattice
from regauge.polytope.hull import Polytope, hull
from regauge.polytope.mesh import Mesh, mesh, smooth_mesh
from regauge.polytope.module import Abs, MaxPieces, module, read
from regauge.polytope.net import Layer, Maxout, Network, Slopes, network, rational
from regauge.polytope.page import page, save_page, summary
from regauge.polytope.reduce import reduce
from regauge.polytope.settle import settle
from regauge.polytope.smooth import PBody, Polar, pbody, roundest
from regauge.polytope.train import Trained, train

__all__ = [
    "Abs", "Flow", "Lattice", "Layer", "MaxPieces", "Maxout", "Mesh", "Name", "Network", "PBody", "Polar",
    "Polytope", "Slopes", "StarBody", "Symmetry", "Trained", "canonical_form", "charged", "descend", "describe",
    "extract", "fit", "fit_lattice", "generated_lattice", "hull", "mesh", "module", "name", "network", "page",
    "pbody", "rational", "read", "reduce", "rms", "roundest", "save", "save_page", "settle", "smooth_mesh",
    "summary", "symmetry", "train", "train_deep", "uniform_lattice",
]  # fmt: skip
