//! What is written for each class of a row, from its exponential, its logit and its mass.

use super::mass::Parts;
use super::settle::Coefficients;
use crate::simd::{Element, Isa, V, splat};
use fearless_simd::prelude::*;

/// An output, elementwise; `e` is the exponential in units, `x` the logit, `q` the mass.
pub(crate) trait Map: Copy + 'static {
    /// Whether it reads the logit.
    const LOGIT: bool;
    /// Whether it reads the mass.
    const MASS: bool = false;
    /// Whether it reads the exponential.
    const EXP: bool = true;
    /// Whether it reads the coefficient `c`.
    const MORE: bool = false;
    /// Whether the target's exponential is another than the class's, across rows; along a row it is
    /// replaced where it is kept.
    const TARGET: bool = false;

    fn apply<S: Isa, F: Element>(
        simd: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        q: V<F, S>,
    ) -> V<F, S>;
}

/// `a e`, and no further from 0 than `c`: softmax, and the gradient where the target is one class. What
/// the rounding of its exponential takes beyond its bound is no probability, nor a difference of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaled;

impl Map for Scaled {
    const LOGIT: bool = false;
    const MORE: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        _: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        _: V<F, S>,
        _: V<F, S>,
    ) -> V<F, S> {
        let v = c.a * e;
        // Not by a minimum, which may be no NaN where one is.
        let v = v.simd_gt(c.c).select(c.c, v);
        v.simd_lt(-c.c).select(-c.c, v)
    }
}

/// [`Scaled`] with the target's exponential replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targeted;

impl Map for Targeted {
    const LOGIT: bool = false;
    const MORE: bool = true;
    const TARGET: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        simd: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        q: V<F, S>,
    ) -> V<F, S> {
        Scaled::apply::<S, F>(simd, c, e, x, q)
    }
}

/// `a e + b q`, and `at_max` at the maximum: the gradient where the target is spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread<P>(std::marker::PhantomData<P>);

impl<P: Parts> Map for Spread<P> {
    const LOGIT: bool = true;
    const MASS: bool = true;
    const TARGET: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        _: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        q: V<F, S>,
    ) -> V<F, S> {
        let at_max = x.simd_eq(c.max);
        at_max.select(c.at_max, c.a.mul_add(e, c.b * q))
    }
}

/// `a e (1 - b e)`, and `at_max` at the maximum: the Hessian's diagonal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Curvature;

impl Map for Curvature {
    const LOGIT: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        _: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        _: V<F, S>,
    ) -> V<F, S> {
        let ae = c.a * e;
        x.simd_eq(c.max).select(c.at_max, ae - ae * (c.b * e))
    }
}

/// `a e (c ((max - x) - b) - at_max)`: the gradient of `c` times the entropy, `b` being the mean of
/// `max - x`, plus `at_max` times the log-probability of a class elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tilted;

impl Map for Tilted {
    const LOGIT: bool = true;
    const MORE: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        simd: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        _: V<F, S>,
    ) -> V<F, S> {
        // The exponential has room for the gap, which a probability may not have.
        c.a * (e * (c.c * above_mean::<S, F>(simd, c, x) - c.at_max))
    }
}

/// `a e ((1 - 2 p) ((max - x) - b) - (1 - p))` where `p = c e`, and `at_max` at the maximum: the
/// diagonal of the entropy's Hessian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bent;

impl Map for Bent {
    const LOGIT: bool = true;
    const MORE: bool = true;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        simd: S,
        c: &Coefficients<V<F, S>>,
        e: V<F, S>,
        x: V<F, S>,
        _: V<F, S>,
    ) -> V<F, S> {
        let one = splat::<S, F>(simd, F::of(1.0));
        let p = c.c * e;
        let inner = ((one - p) - p) * above_mean::<S, F>(simd, c, x) - (one - p);
        x.simd_eq(c.max).select(c.at_max, c.a * (e * inner))
    }
}

/// How far the gap to the maximum is above its mean.
#[inline(always)]
fn above_mean<S: Isa, F: Element>(simd: S, c: &Coefficients<V<F, S>>, x: V<F, S>) -> V<F, S> {
    // An infinite gap has no probability; any finite one will do.
    let gap = c.max - x;
    gap.simd_lt(splat::<S, F>(simd, F::of(f64::INFINITY))).select(gap, c.b) - c.b
}

/// `(x - max) + at_max`: the log-softmax.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogProbability;

impl Map for LogProbability {
    const LOGIT: bool = true;
    const EXP: bool = false;
    #[inline(always)]
    fn apply<S: Isa, F: Element>(
        _: S,
        c: &Coefficients<V<F, S>>,
        _: V<F, S>,
        x: V<F, S>,
        _: V<F, S>,
    ) -> V<F, S> {
        // Not by the difference alone: at a maximum of +inf there is none.
        x.simd_eq(c.max).select(c.at_max, (x - c.max) + c.at_max)
    }
}
