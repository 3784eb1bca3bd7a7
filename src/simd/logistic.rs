//! The logistic function and its logarithm, from one exponential.
//!
//! With `e = exp(-|x|)`, which is in (0, 1] and loses nothing at either end,
//!
//! ```text
//! sigmoid(-|x|) = e / (1 + e),    sigmoid(|x|) = 1 / (1 + e),    softplus(-|x|) = log(1 + e)
//! ```
//!
//! are ratios and a logarithm of positive numbers: nothing cancels. `f64` lanes, in what precision
//! the type of the caller's numbers needs.

use super::exp::Shift;
use super::log1p::{log1p, polynomial};
use super::{Element, Isa, splat};
use crate::float::Kind;
use fearless_simd::prelude::*;

/// Of `log(1 + e) / e` in [0, 1]: relative error 2^-30.3.
const SHORT: [f64; 11] = [
    0.999_999_999_256_51,
    -0.499_999_814_274_633_9,
    0.333_325_594_229_829_16,
    -0.249_872_682_943_254_4,
    0.198_907_310_483_481_06,
    -0.161_056_294_282_372_97,
    0.124_182_951_986_894_97,
    -0.082_439_773_942_730_86,
    0.041_476_547_546_028_9,
    -0.013_406_740_620_983_643,
    0.002_030_083_633_015_621,
];

/// The logistic function at some `x`.
#[derive(Clone, Copy)]
pub(crate) struct Logistic<S: Isa, F: Element> {
    x: S::f64s,
    /// `exp(-|x|)`, and for `f64` what its rounding took.
    e: [S::f64s; 2],
    /// `1 / (1 + e)`.
    large: S::f64s,
    precision: std::marker::PhantomData<F>,
}

impl<S: Isa, F: Element> Logistic<S, F> {
    #[inline(always)]
    pub(crate) fn at(simd: S, x: S::f64s) -> Self {
        Self::near(simd, x, splat::<S, f64>(simd, 0.0))
    }

    /// At `x + short`, a sum that `x` is rounded from.
    #[inline(always)]
    pub(crate) fn near(simd: S, x: S::f64s, short: S::f64s) -> Self {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let constants = F::wide_exp_constants::<S>();
        let y = -x.abs();
        let e = if F::KIND == Kind::F64 {
            // In a unit of 2^-64, so that what is subnormal is rounded once.
            let shift = Shift::<S, f64>::new(simd, c(0.0), c(-64.0));
            let [e, low] = shift.exp_in_two(simd, constants, y);
            let short = x.simd_lt(c(0.0)).select(short, -short);
            let low = e.mul_add(short, low);
            let sum = e + low;
            let unit = c(2f64.powi(-64));
            [sum * unit, (low - (sum - e)) * unit]
        } else {
            let shift = Shift::<S, f64>::new(simd, c(0.0), c(0.0));
            [shift.exp_by::<false>(simd, constants, y), c(0.0)]
        };
        let large = F::reciprocal::<S>(simd, e[0] + c(1.0));
        Self { x, e, large, precision: std::marker::PhantomData }
    }

    /// `sigmoid(-|x|)`.
    #[inline(always)]
    pub(crate) fn small(&self) -> S::f64s {
        self.e[0] * self.large
    }

    /// `log(1 + exp(-|x|))`.
    #[inline(always)]
    pub(crate) fn log(&self, simd: S) -> S::f64s {
        let [e, low] = self.e;
        if F::KIND == Kind::F64 {
            return log1p(simd, e, low);
        }
        polynomial(simd, &SHORT, e) * e
    }

    /// `a` where `x > 0`, else `b`; `b` at a NaN.
    #[inline(always)]
    pub(crate) fn by_sign(&self, simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        self.x.simd_gt(splat::<S, f64>(simd, 0.0)).select(a, b)
    }

    /// `sigmoid(x)`.
    #[inline(always)]
    pub(crate) fn sigmoid(&self, simd: S) -> S::f64s {
        self.by_sign(simd, self.large, self.small())
    }

    /// `sigmoid(-x)`.
    #[inline(always)]
    pub(crate) fn against(&self, simd: S) -> S::f64s {
        self.by_sign(simd, self.small(), self.large)
    }

    /// `sigmoid(x) sigmoid(-x)`, the derivative of the sigmoid.
    #[inline(always)]
    pub(crate) fn slope(&self) -> S::f64s {
        self.small() * self.large
    }
}
