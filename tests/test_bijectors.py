"""Bijectors: one table of all of them, then what is special to one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi.bijectors import (
    Bijector,
    Chain,
    CorrCholesky,
    Interval,
    Simplex,
    UnitVector,
    corr_cholesky,
    correlation,
    cov_cholesky,
    covariance,
    greater_than,
    interval,
    less_than,
    negative,
    ordered,
    positive,
    positive_ordered,
    real,
    simplex,
    unit_interval,
    unit_vector,
    zero_sum,
)
from bbvi.testing import check_bijector, jacobian_log_det


def one_minus_alpha(params, data):
    return 1 - params["alpha"]


def all_but_last(y):
    return y[..., :-1]


def strict_lower_triangle(y):
    return y[..., *np.tril_indices(y.shape[-1], -1)]


def lower_triangle(y):
    return y[..., *np.tril_indices(y.shape[-1])]


def log_volume(function, x):
    """The log volume factor of a map into a space of more dimensions."""
    jacobian = jax.jacfwd(function)(x)
    return 0.5 * jnp.linalg.slogdet(jacobian.T @ jacobian)[1]


def unit_vector_log_det(x):
    """By the augmented map to (y, |x|), where the length has a chi distribution."""

    def augmented(x):
        return jnp.append(unit_vector.forward(x), jnp.linalg.norm(x))

    r = jnp.linalg.norm(x)
    log_chi = jax.scipy.stats.chi2.logpdf(r**2, x.size) + jnp.log(2 * r)
    return log_volume(augmented, x) + log_chi


@dataclass(frozen=True)
class Row:
    """A bijector and what it is tested with."""

    bijector: Bijector
    shape: tuple[int, ...]
    # y -> the entries that log_det refers to, or a reference log-determinant as a function of x
    free: Callable | None = None
    log_det: Callable | None = None
    outside: tuple[Any, ...] = ()
    # numpyro's name of the constraint with its arguments; whether its map is the same
    numpyro: tuple[Any, ...] | None = None
    same_map: bool = False
    # whether a float32 can hold what lies inside the support at x = +-50
    inside_at_50: bool = True

    def reference(self):
        if self.free is None:
            return self.log_det
        return lambda x: jacobian_log_det(lambda x: self.free(self.bijector.forward(x)), x)


K = 4
NOT_SYMMETRIC = np.array([[1.0, 0.5], [0.4, 1.0]])
SINGULAR = np.ones((2, 2))
NOT_TRIANGULAR = np.array([[1.0, 0.1], [0.0, 1.0]])

ROWS = [
    Row(real, (3,), outside=([0.0, np.inf],), numpyro=("real",), same_map=True),
    Row(positive, (), outside=(0.0, -1.0, np.inf), numpyro=("positive",), same_map=True),
    Row(negative, (2, 3), outside=(np.zeros((2, 3)),)),
    Row(
        greater_than([-1.0, 2.0]),
        (3, 2),
        outside=(np.full((3, 2), 1.0), np.full((3, 2), [-1.0, 3.0])),
        numpyro=("greater_than", np.array([-1.0, 2.0])),
        same_map=True,
    ),
    Row(less_than(-2), (3,), outside=([-3.0, -2.0, -4.0],), numpyro=("less_than", -2.0)),
    Row(unit_interval, (), outside=(0.0, 1.0), numpyro=("unit_interval",), same_map=True),
    Row(
        interval(np.array([-3.0, -1.0]), 0),
        (2,),
        outside=([-1.0, -1.0], [-1.0, 0.0], [-3.5, -0.5]),
        numpyro=("interval", np.array([-3.0, -1.0]), 0.0),
        same_map=True,
    ),
    Row(
        simplex,
        (K,),
        free=all_but_last,
        outside=([0.5, 0.5, 0.5, -0.5], [0.5, 0.5, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2]),
        numpyro=("simplex",),
    ),
    Row(simplex, (2, 2, 3), free=all_but_last, outside=(np.full((2, 2, 3), 0.3),)),
    Row(
        ordered,
        (K,),
        outside=([0.0, 1.0, 1.0, 2.0], [0.0, 2.0, 1.0, 3.0]),
        numpyro=("ordered_vector",),
        same_map=True,
    ),
    Row(
        positive_ordered,
        (K,),
        outside=([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 3.0]),
        numpyro=("positive_ordered_vector",),
    ),
    Row(
        zero_sum,
        (K,),
        log_det=lambda x: log_volume(zero_sum.forward, x),
        outside=([1.0, -1.0, 1.0, 0.0],),
        numpyro=("zero_sum", 1),
    ),
    Row(
        unit_vector,
        (K,),
        log_det=unit_vector_log_det,
        outside=([0.0, 0.0, 0.0, 0.0], [1.0, 0.1, 0.0, 0.0]),
    ),
    Row(
        corr_cholesky,
        (K, K),
        free=strict_lower_triangle,
        outside=(NOT_TRIANGULAR, [[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.6, -0.8]]),
        numpyro=("corr_cholesky",),
        same_map=True,
    ),
    Row(
        correlation,
        (K, K),
        free=strict_lower_triangle,
        outside=(NOT_SYMMETRIC, SINGULAR, 2 * np.eye(2), [[1.0, 1.1], [1.1, 1.0]]),
        numpyro=("corr_matrix",),
        same_map=True,
        inside_at_50=False,
    ),
    Row(
        cov_cholesky,
        (K, K),
        free=lower_triangle,
        outside=(NOT_TRIANGULAR, -np.eye(2), np.tril(SINGULAR, -1)),
        numpyro=("lower_cholesky",),
    ),
    Row(
        covariance,
        (K, K),
        free=lower_triangle,
        outside=(NOT_SYMMETRIC, SINGULAR, -np.eye(2)),
        numpyro=("positive_definite",),
        inside_at_50=False,
    ),
    Row(
        Chain((ordered, unit_interval)),
        (3,),
        outside=([0.1, 0.3, 0.2], [0.1, 0.5, 1.0]),
        inside_at_50=False,
    ),
]


def over(rows):
    return pytest.mark.parametrize("row", [pytest.param(r, id=row_id(r)) for r in rows])


def row_id(row):
    return f"{row.bijector.name}-{row.shape}"


def unconstrained(row, low=-2.0, high=2.0, seed=0):
    shape = row.bijector.unconstrained_shape(row.shape)
    return np.random.default_rng(seed).uniform(low, high, shape)


@over(ROWS)
@pytest.mark.parametrize("bits", [32, 64])
def test_conforms(row, bits, request):
    if bits == 64:
        request.getfixturevalue("x64")
    with jax.numpy_rank_promotion("raise"):
        check_bijector(row.bijector, row.shape, log_det=row.reference())


@over([r for r in ROWS if r.bijector != unit_vector])
@pytest.mark.usefixtures("x64")
def test_round_trip(row):
    x = unconstrained(row, -3, 3)
    back = jax.jit(lambda x: row.bijector.inverse(row.bijector.forward(x)))(x)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-9)


@over([r for r in ROWS if r.numpyro])
@pytest.mark.usefixtures("x64")
def test_agrees_with_numpyro(row):
    distributions = pytest.importorskip("numpyro.distributions")
    name, *arguments = row.numpyro
    constraint = getattr(distributions.constraints, name)
    theirs = distributions.biject_to(constraint(*arguments) if arguments else constraint)

    def to_theirs(x):
        return theirs.inv(row.bijector.forward(x))

    @jax.jit
    def compare(x):
        y, log_det = row.bijector.forward_and_log_det(x)
        their_x = to_theirs(x)
        their_log_det = jnp.sum(theirs.log_abs_det_jacobian(their_x, y))
        return their_x, log_det, their_log_det + jacobian_log_det(to_theirs, x)

    x = jnp.asarray(unconstrained(row))
    their_x, log_det, expected = compare(x)
    np.testing.assert_allclose(log_det, expected, rtol=1e-9, atol=1e-9)
    if row.same_map:
        np.testing.assert_allclose(their_x, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bijector", [ordered, simplex, corr_cholesky], ids=lambda b: b.name)
def test_runs_inside_scan(bijector):
    xs = jnp.linspace(-1, 1, 6).reshape(2, 3)

    def step(total, x):
        y, log_det = bijector.forward_and_log_det(x)
        return total + log_det, y

    total, ys = jax.jit(lambda xs: jax.lax.scan(step, jnp.zeros(()), xs))(xs)
    y, log_det = jax.jit(bijector.forward_and_log_det)(xs)
    np.testing.assert_allclose(total, log_det, rtol=1e-6)
    np.testing.assert_allclose(ys, y, rtol=1e-6)


@over(ROWS)
def test_contains_is_false_outside(row):
    assert row.outside
    for y in row.outside:
        assert not row.bijector.contains(np.asarray(y))


@over([r for r in ROWS if r.inside_at_50])
def test_stays_inside_far_out(row):
    """In float32, where sigmoid(50) rounds to 1 and 5 + exp(-50) to 5."""
    inside = jax.jit(lambda x: row.bijector.contains(row.bijector.forward(x)))
    signs = np.sign(unconstrained(row)).astype(np.float32)
    for x in (50 * signs, -50 * signs, np.full_like(signs, 50), np.full_like(signs, -50)):
        assert inside(x)


@pytest.mark.parametrize("bijector", [simplex, zero_sum, corr_cholesky, correlation])
def test_smallest_size_has_no_freedom(bijector):
    shape = (1,) * bijector.event_ndim
    assert bijector.unconstrained_shape(shape) == (0,)

    @jax.jit
    def evaluate(x):
        y, log_det = bijector.forward_and_log_det(x)
        return y, log_det, bijector.contains(y), bijector.inverse(y)

    y, log_det, inside, back = evaluate(np.zeros(0, np.float32))
    assert y.shape == shape and log_det == 0 and inside and back.shape == (0,)


# Hash and equality


@pytest.mark.parametrize(
    "make",
    [
        lambda: Simplex(),
        lambda: CorrCholesky(),
        lambda: interval(0, np.array([1.0, 2.0])),
        lambda: greater_than([0.5, 1.5]),
        lambda: less_than(one_minus_alpha),
        lambda: Chain([ordered, interval(0.0, [1.0, 2.0])]),
    ],
)
def test_equal_by_value(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_bounds_are_equal_in_any_container():
    same = [[1, 2], (1.0, 2.0), np.array([1.0, 2.0], np.float32), jnp.array([1, 2])]
    assert len({greater_than(bound) for bound in same}) == 1
    assert (
        greater_than(-0.0) == greater_than(np.float32(0)) == greater_than(jnp.zeros(())) == positive
    )
    assert interval(0, 1) == unit_interval
    different = [greater_than(1), greater_than([1]), less_than(1), greater_than([[1]]), real]
    assert len(set(different)) == len(different)


def test_equal_bijectors_share_a_trace():
    traces = []

    def forward(bijector, x):
        traces.append(bijector)
        return bijector.forward(x)

    forward = jax.jit(forward, static_argnums=0)
    for _ in range(2):
        forward(interval(0.0, np.array([1.0, 2.0])), jnp.zeros(2))
    assert len(traces) == 1
    forward(interval(0.0, np.array([1.0, 3.0])), jnp.zeros(2))
    assert len(traces) == 2


# Bounds


def test_dependent_bound():
    bijector = interval(0.0, one_minus_alpha)
    assert bijector.functions == (one_minus_alpha,)
    assert unit_interval.functions == () and unit_interval.bind({}, None) is unit_interval

    @jax.jit
    def evaluate(alpha, x):
        return bijector.bind({"alpha": alpha}, None).forward_and_log_det(x)

    x = jnp.array([-1.0, 0.5])
    y, log_det = evaluate(0.25, x)
    expected_y, expected_log_det = jax.jit(interval(0.0, 0.75).forward_and_log_det)(x)
    np.testing.assert_allclose(y, expected_y, rtol=1e-6)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-6)
    assert y.dtype == x.dtype and not y.weak_type and not log_det.weak_type
    slope = jax.jit(jax.grad(lambda alpha: evaluate(alpha, x)[1]))(0.25)
    np.testing.assert_allclose(slope, -2 / 0.75, rtol=1e-6)


def test_dependent_bound_reads_data_and_may_be_an_array():
    bijector = Chain([ordered, greater_than(lambda params, data: data["low"])])
    assert len(bijector.functions) == 1
    low = np.array([1.0, 2.0])
    y = bijector.bind(None, {"low": low}).forward(jnp.array([0.0, 0.0]))
    np.testing.assert_allclose(y, low + np.exp([0.0, 1.0]), rtol=1e-6)


def test_derivative_by_the_bound_survives_rounding():
    """Where y is rounded to the float next to a bound, it still moves with the bound."""

    def y(bound, make, x):
        return make(lambda params, data: params).bind(bound, None).forward(x)

    slope = jax.jit(jax.grad(y), static_argnums=(1, 2))
    assert slope(5.0, greater_than, -50.0) == 1
    assert slope(5.0, less_than, -50.0) == 1
    assert slope(5.0, lambda upper: interval(0.0, upper), 50.0) == 1
    assert slope(5.0, lambda lower: interval(lower, 7.0), -50.0) == 1


def test_empty_dependent_interval_is_nan_and_no_error():
    _, log_det = interval(0.0, one_minus_alpha).bind({"alpha": 2.0}, None).forward_and_log_det(0.0)
    assert jnp.isnan(log_det)


def test_bound_from_an_enclosing_trace():
    y = jax.jit(lambda upper: interval(0.0, upper).forward(jnp.zeros(2)))(4.0)
    np.testing.assert_array_equal(y, [2.0, 2.0])


def test_interval_keeps_digits_near_an_upper_bound_of_zero():
    x = jnp.array([10.0, 40.0])
    y = interval(-1.0, 0.0).forward(x)
    np.testing.assert_allclose(y, -np.exp(-np.float64(x)) / (1 + np.exp(-np.float64(x))), rtol=1e-6)
    np.testing.assert_allclose(interval(-1.0, 0.0).inverse(y), x, rtol=1e-6)


# Vectors


def test_simplex_treats_elements_alike():
    np.testing.assert_allclose(simplex.forward(jnp.zeros(4)), 0.2, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_zero_sum_basis_is_orthonormal():
    basis = np.asarray(jax.jit(jax.jacfwd(zero_sum.forward))(np.zeros(6)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-14)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-14)


def test_ordered_moves_only_what_rounding_made_equal():
    forward = jax.jit(ordered.forward)
    x = np.array([1, -50, -50, 0], np.float32)
    eps = np.finfo(np.float32).eps
    expected = np.array([1, 1 + eps, 1 + 2 * eps, 2], np.float32)
    np.testing.assert_array_equal(forward(x), expected)
    expected = np.array([-1, -1 + eps / 2, -1 + eps, 0], np.float32)
    np.testing.assert_array_equal(forward(x - [2, 0, 0, 0]), expected)
    x = np.array([-2, 0, 0, np.log(2)], np.float32)
    np.testing.assert_array_equal(forward(x), [-2, -1, 0, 2])


def test_ordered_derivative_is_not_touched_by_the_move():
    slopes = jax.jit(jax.jacfwd(ordered.forward))(np.array([1, -50, 0], np.float32))
    np.testing.assert_allclose(slopes[:, 0], 1)
    np.testing.assert_allclose(slopes[:, 1], [0, np.exp(-50), np.exp(-50)], rtol=1e-5)


def test_unit_vector_keeps_the_evidence():
    """The integral over x on a grid equals the known integral over the circle."""
    kappa = 1.5
    x = (np.arange(-400, 400) + 0.5) / 50
    grid = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2).astype(np.float32)

    @jax.jit
    @jax.vmap
    def density(x):
        y, log_det = unit_vector.forward_and_log_det(x)
        return jnp.exp(kappa * y[0] + log_det)

    integral = np.sum(np.asarray(density(grid), np.float64)) / 50**2
    np.testing.assert_allclose(integral, 2 * math.pi * np.i0(kappa), rtol=1e-4)


def test_unit_vector_at_and_near_the_origin():
    value_and_slopes = jax.jit(
        lambda x: (unit_vector.forward(x), jax.jacfwd(unit_vector.forward)(x))
    )
    y, slopes = value_and_slopes(np.zeros(3, np.float32))
    np.testing.assert_array_equal(y, [1, 0, 0])
    np.testing.assert_array_equal(slopes, np.zeros((3, 3)))
    for size in (1e-30, 1e30):
        y, slopes = value_and_slopes(np.full(3, size, np.float32))
        np.testing.assert_allclose(y, math.sqrt(1 / 3), rtol=1e-6)
        expected = (np.eye(3) - 1 / 3) / (math.sqrt(3) * size)
        np.testing.assert_allclose(slopes, expected, rtol=1e-5)


def test_unit_vector_inverse_has_the_most_likely_length():
    y = jnp.array([0.0, 0.6, -0.8])
    np.testing.assert_allclose(unit_vector.inverse(y), math.sqrt(2) * y, rtol=1e-6)


def test_corr_cholesky_inverse_near_a_correlation_of_one():
    x = np.array([8, -12, 15], np.float32)
    back = jax.jit(lambda x: corr_cholesky.inverse(corr_cholesky.forward(x)))(x)
    np.testing.assert_allclose(back, x, rtol=1e-5)


# Chains


def test_chain_applies_the_first_part_first():
    x = jnp.array([0.3, -0.2])
    expected = jax.nn.sigmoid(jnp.array([0.3, 0.3 + math.exp(-0.2)]))
    np.testing.assert_allclose(Chain((ordered, unit_interval)).forward(x), expected, rtol=1e-6)


def test_chain_takes_over_what_its_parts_say():
    chain = Chain((ordered, corr_cholesky))
    assert chain.event_ndim == 2 and chain.redundant
    assert chain.unconstrained_shape((5, 3, 3)) == (5, 3)
    assert chain.name == "ordered then corr_cholesky"
    assert chain.bind({}, None) is chain


# Errors

ERRORS = {
    "empty interval": (lambda: interval(1, 0.5), "the lower bound 1.0 is not below the upper 0.5"),
    "equal bounds": (lambda: interval(1, 1), "the lower bound 1.0 is not below the upper 1.0"),
    "empty somewhere": (
        lambda: interval([0, 3], [1, 2]),
        r"interval\(\[0.0, 3.0\], \[1.0, 2.0\]\): the lower bound 3.0 is not below the upper 2.0",
    ),
    "shapes": (lambda: interval([0, 3], [1, 2, 3]), r"shapes \(2,\) and \(3,\) do not broadcast"),
    "nan": (lambda: interval(np.nan, 1), r"interval\(nan, 1.0\): a bound is NaN"),
    "nan in array": (lambda: less_than([0, np.nan]), "a bound is NaN"),
    "half-infinite": (lambda: interval(0, np.inf), r"interval\(0.0, inf\): .*use `greater_than`"),
    "infinite": (lambda: greater_than(-np.inf), r"greater_than\(-inf\): .*use `real`"),
    "unbound": (
        lambda: interval(0.0, one_minus_alpha).forward(jnp.zeros(2)),
        r"interval\(0.0, one_minus_alpha\) has a bound that is a function; call bind",
    ),
    "bound's shape": (
        lambda: greater_than(np.zeros(3)).unconstrained_shape((3, 2)),
        r"a bound of shape \(3,\) does not broadcast to the parameter's shape \(3, 2\)",
    ),
    "bound's rank": (
        lambda: greater_than(np.zeros((3, 2))).unconstrained_shape((2,)),
        r"a bound of shape \(3, 2\) does not broadcast to the parameter's shape \(2,\)",
    ),
    "evaluated bound's shape": (
        lambda: less_than(lambda p, d: np.zeros(9)).bind(0, 0).forward(jnp.zeros(2)),
        r"less_than\(<evaluated, shape \(9,\)>\): a bound of shape \(9,\) does not broadcast",
    ),
    "long array": (lambda: less_than(np.full(9, np.nan)), r"less_than\(<array of shape \(9,\)>\)"),
    "scalar simplex": (lambda: simplex.unconstrained_shape(()), r"simplex needs a vector .*\(\)"),
    "empty simplex": (lambda: simplex.unconstrained_shape((0,)), "at least one element"),
    "scalar order": (lambda: ordered.unconstrained_shape(()), "ordered needs a vector"),
    "short sphere": (lambda: unit_vector.unconstrained_shape((1,)), "at least two elements"),
    "vector matrix": (lambda: covariance.unconstrained_shape((3,)), "needs a matrix"),
    "not square": (
        lambda: corr_cholesky.unconstrained_shape((3, 2)),
        r"corr_cholesky needs a square matrix, not shape \(3, 2\)",
    ),
    "no triangle": (
        lambda: correlation.forward(jnp.zeros(2)),
        "correlation: 2 numbers do not fill a triangle",
    ),
    "no triangle with diagonal": (
        lambda: cov_cholesky.forward(jnp.zeros(5)),
        "cov_cholesky: 5 numbers do not fill a triangle",
    ),
    "empty chain": (lambda: Chain(()), "at least one bijector"),
    "chain after redundant": (
        lambda: Chain((simplex, positive)),
        "simplex has more entries than degrees of freedom",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_value_errors(case):
    action, text = ERRORS[case]
    with pytest.raises(ValueError, match=text):
        action()


def test_type_errors():
    with pytest.raises(TypeError, match="a bound must be a number, an array or a function|A bound"):
        greater_than("low")
    with pytest.raises(TypeError, match="is not one"):
        Chain((positive, jnp.exp))
    with pytest.raises(TypeError, match="unhashable"):
        hash(less_than(one_minus_alpha).bind({"alpha": 0.5}, None))


# The checker itself


@dataclass(frozen=True)
class Exp(Bijector):
    """A correct bijector, to be broken."""

    factor: float = 1.0

    name = "exp"

    def forward_and_log_det(self, x):
        return jnp.exp(x), self.factor * jnp.sum(x)

    def inverse(self, y):
        return jnp.log(y)

    def contains(self, y):
        return jnp.all(y > 0)


@dataclass(frozen=True)
class NotSummed(Exp):
    def forward_and_log_det(self, x):
        return jnp.exp(x), x


@dataclass(frozen=True)
class MeanedOverBatch(Exp):
    def forward_and_log_det(self, x):
        return jnp.exp(x), jnp.sum(jnp.mean(x.reshape(-1, x.shape[-1]), 0))


@dataclass(frozen=True)
class WrongInverse(Exp):
    def inverse(self, y):
        return jnp.log(y) + 0.1


@dataclass(frozen=True)
class WrongForward(Exp):
    def forward(self, x):
        return jnp.exp(x) + 0.1


@dataclass(frozen=True)
class ContainsEverything(Exp):
    def contains(self, y):
        return jnp.asarray(True)


@dataclass(frozen=True)
class ContainsNothing(Exp):
    def contains(self, y):
        return jnp.asarray(False)


@dataclass(frozen=True)
class Overflows(Exp):
    def forward_and_log_det(self, x):
        return jnp.exp(2 * x), jnp.sum(2 * x) + x.size * math.log(2)

    def inverse(self, y):
        return jnp.log(y) / 2


@dataclass(frozen=True)
class HalfPrecision(Exp):
    def forward_and_log_det(self, x):
        return jnp.exp(x), jnp.sum(x).astype(jnp.float16)


@dataclass(frozen=True)
class WrongRay(UnitVector):
    def inverse(self, y):
        return -y


class Undecorated(Exp):
    pass


@pytest.mark.parametrize(
    "bijector, text",
    [
        (Exp(2.0), "log_det is off"),
        (NotSummed(), r"log_det has shape \(3,\) and not \(\)"),
        (MeanedOverBatch(), "log_det is not summed over a batch"),
        (WrongInverse(), r"inverse\(forward\(x\)\) is .* and not x"),
        (WrongForward(), "forward gives another y"),
        (ContainsEverything(), "true of NaN"),
        (ContainsNothing(), r"false of forward\(x\)"),
        (Overflows(), "y is not finite"),
        (HalfPrecision(), "log_det has dtype float16 and not float32"),
        (Undecorated(), "decorated with @dataclass"),
        (less_than(one_minus_alpha), "check it with a number"),
        (simplex, "simplex maps 2 numbers to 3: pass log_det="),
    ],
)
def test_checker_finds(bijector, text):
    with pytest.raises(AssertionError, match=text):
        check_bijector(bijector, (3,))


def test_checker_finds_a_wrong_ray():
    with pytest.raises(AssertionError, match=r"forward\(inverse\(y\)\) is not y"):
        check_bijector(WrongRay(), (3,), log_det=unit_vector_log_det)


def test_checker_accepts():
    check_bijector(Exp(), (3,), key=jax.random.key(1))
    check_bijector(replace(Interval(0.0, 1.0), lower=-1.0), (3,))
