"""Quantum mechanics as a statistical sum over network parameters: maps, measures, samplers with honest errors, exact
answers."""

from regauge.pathsum.elliptical import elliptical
from regauge.pathsum.hmc import hmc
from regauge.pathsum.independent import GaussianPrior, MixturePrior, reweight
from regauge.pathsum.instanton import InstantonPrior, fit_instantons
from regauge.pathsum.lattice import Axis, Lattice, action, field_lattice, path_lattice
from regauge.pathsum.maps import LinearMap, bridge, random_cosine, relu, step, whitened
from regauge.pathsum.nuts import nuts
from regauge.pathsum.observables import table
from regauge.pathsum.oracle import Spectrum, spectrum
from regauge.pathsum.potential import Potential, potential
from regauge.pathsum.reference import covering, gap_equation
from regauge.pathsum.sample import Average, ChainSample, WeightedSample, average, derived
from regauge.pathsum.solve import PathSum, solve
from regauge.pathsum.target import Target
from regauge.pathsum.tempering import annealed, tempering
from regauge.pathsum.transfer import LatticeExact, lattice_exact

__all__ = [
    "Average",
    "Axis",
    "ChainSample",
    "GaussianPrior",
    "InstantonPrior",
    "Lattice",
    "LatticeExact",
    "LinearMap",
    "MixturePrior",
    "PathSum",
    "Potential",
    "Spectrum",
    "Target",
    "WeightedSample",
    "action",
    "annealed",
    "average",
    "bridge",
    "covering",
    "derived",
    "elliptical",
    "field_lattice",
    "fit_instantons",
    "gap_equation",
    "hmc",
    "lattice_exact",
    "nuts",
    "path_lattice",
    "potential",
    "random_cosine",
    "relu",
    "reweight",
    "solve",
    "spectrum",
    "step",
    "table",
    "tempering",
    "whitened",
]
