"""Master: the linear programme over the paths that are known so far, by whichever solver suits its size.

    maximise   sum over paths of value[demand of the path] x rate
    subject to sum of the rates over an arc <= its capacity, floor <= sum of the rates of a demand <= what it asks,
    rates >= 0

Small ones are solved exactly by HiGHS (scipy); large ones by PDLP (Applegate et al., NeurIPS 2021; OR-Tools, the extra
``solve``), which starts from an earlier answer and violates its bounds a little: `repaired` mends that. Where OR-Tools
is not installed HiGHS solves everything, slower.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tieline.network.graph import Floats

SMALL = 40_000  # uses of arcs by paths up to which the exact solver is the quicker one
LEEWAY = 1e-6  # of a floor: what may be missing of it
MOST_ITERATIONS = 20_000  # of PDLP; what it has by then is repaired and bounded as ever


class Programme(NamedTuple):
    """One linear programme. ``by_arc``: arcs x paths, ``by_demand``: demands x paths, both sparse (CSC)."""

    by_arc: Any
    by_demand: Any
    capacity: Floats
    asked: Floats
    value: Floats  # of each path
    floor: Floats | None = None  # what each demand keeps at least; some rates must be known that do


class Solved(NamedTuple):
    """Rates of the paths, and what one more unit would be worth on each arc (at least 0) and to each demand: below 0
    where its floor holds it up."""

    rate: Floats
    arc_price: Floats
    demand_price: Floats


def solved(programme: Programme, precision: float, start: Solved | None = None) -> Solved:
    """The optimum, to a relative ``precision`` where the programme is large. ``start`` may have fewer paths."""
    if not len(programme.value):
        return Solved(np.zeros(0), np.zeros(len(programme.capacity)), np.zeros(len(programme.asked)))
    if is_exact(programme):
        return _exact(programme)
    return _first_order(programme, precision, start)


def is_exact(programme: Programme) -> bool:
    """Whether it is solved exactly, whatever precision is asked for."""
    return bool(programme.by_arc.nnz <= SMALL) or not _has_pdlp()


def repaired(programme: Programme, rate: Floats) -> Floats:
    """Rates within every bound: scaled down to what each demand asks, then each path by its worst overload."""
    by_arc, by_demand = programme.by_arc, programme.by_demand
    if not len(rate):
        return rate
    rate = np.maximum(rate, 0.0)
    rate = rate * (by_demand.T @ np.minimum(1.0, programme.asked / np.maximum(by_demand @ rate, 1e-12)))
    load = by_arc @ rate
    # An arc without capacity carries nothing at all.
    over = np.where(load > 0, load / np.maximum(programme.capacity, 1e-12), 1.0)
    return rate / np.maximum.reduceat(np.maximum(over, 1.0)[by_arc.indices], by_arc.indptr[:-1])


@cache
def _has_pdlp() -> bool:
    return importlib.util.find_spec("ortools") is not None


def _exact(programme: Programme) -> Solved:
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    arcs, demands = len(programme.capacity), len(programme.asked)
    floor = np.zeros(demands) if programme.floor is None else programme.floor
    held = np.flatnonzero(floor > 0)
    scale = _middling(programme.asked)
    rows = vstack([programme.by_arc, programme.by_demand, -programme.by_demand.tocsr()[held]]).tocsc()
    for leeway in (0.0, LEEWAY):  # floors that fill an arc to the last bit may be out of reach of a solver's arithmetic
        bounds = np.concatenate([programme.capacity, programme.asked, -floor[held] * (1.0 - leeway)]) / scale
        answer = linprog(-programme.value, A_ub=rows, b_ub=bounds, bounds=(0, None), method="highs")
        if answer.status == 0:
            break
    else:  # without floors 0 is always feasible, and every rate is bounded by a demand
        raise ArithmeticError(f"the solver gave up: {answer.message}")
    price = np.maximum(-answer.ineqlin.marginals, 0.0)
    demand_price = price[arcs : arcs + demands].copy()
    demand_price[held] -= price[arcs + demands :]
    return Solved(np.asarray(answer.x) * scale, price[:arcs], demand_price)


def _middling(bounds: Floats) -> float:
    """A unit in which most numbers are near 1: solvers' tolerances are absolute."""
    some = bounds[bounds > 0]
    return float(np.median(some)) if len(some) else 1.0


def _first_order(programme: Programme, precision: float, start: Solved | None) -> Solved:
    from ortools.pdlp import solvers_pb2
    from ortools.pdlp.python import pdlp
    from scipy.sparse import csc_matrix, vstack

    paths, bounds = len(programme.value), np.concatenate([programme.capacity, programme.asked])
    scale = float(bounds.max()) or 1.0  # the solver's criteria are absolute too
    asked = pdlp.QuadraticProgram()
    asked.resize_and_initialize(paths, len(bounds))
    asked.objective_vector = -programme.value
    asked.constraint_matrix = csc_matrix(vstack([programme.by_arc, programme.by_demand]))
    arcs, demands = len(programme.capacity), len(programme.asked)
    floor = np.zeros(demands) if programme.floor is None else programme.floor
    is_held = floor > 0
    asked.constraint_lower_bounds = np.r_[np.full(arcs, -np.inf), np.where(is_held, floor / scale, -np.inf)]
    asked.constraint_upper_bounds = bounds / scale
    asked.variable_lower_bounds = np.zeros(paths)
    asked.variable_upper_bounds = np.full(paths, np.inf)
    how = solvers_pb2.PrimalDualHybridGradientParams(num_threads=2, use_feasibility_polishing=False)
    how.termination_criteria.iteration_limit = MOST_ITERATIONS
    how.termination_criteria.simple_optimality_criteria.eps_optimal_relative = precision
    how.termination_criteria.simple_optimality_criteria.eps_optimal_absolute = precision
    if start is None:
        answer = pdlp.primal_dual_hybrid_gradient(asked, how)
    else:
        warm = pdlp.PrimalAndDualSolution()
        warm.primal_solution = np.concatenate([start.rate, np.zeros(paths - len(start.rate))]) / scale
        warm.dual_solution = -np.concatenate([start.arc_price, start.demand_price])
        answer = pdlp.primal_dual_hybrid_gradient(asked, how, initial_solution=warm)
    price = -np.asarray(answer.dual_solution)
    demand_price = np.where(is_held, price[arcs:], np.maximum(price[arcs:], 0.0))
    return Solved(
        np.maximum(np.asarray(answer.primal_solution), 0.0) * scale, np.maximum(price[:arcs], 0.0), demand_price
    )
