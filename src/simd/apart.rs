//! How far two masses are apart: `p log(p / q) - p + q`, the term of a divergence, and `log(q / p)`.
//!
//! With `y = (q - p) / p` the term is `p (y - log1p(y))`, which is not below 0 and vanishes where
//! the masses agree. Fdlibm's pieces of `log1p` (see [`super::log1p`]) give the difference without
//! cancellation: with `1 + y = 2^k (1 + f)`,
//!
//! ```text
//! y - log(1 + y) = (y - k ln 2 - f) + f^2/2 - s (f^2/2 + R(s^2))
//! ```
//!
//! where the first bracket is 0 for `k = 0`, and elsewhere not small against what is subtracted.

use super::log1p::{LN2_HIGH, LN2_LOW, SERIES, octave};
use super::sum::two_sum;
use super::{Element, Isa, lost, polynomial, splat};
use crate::float::Kind;
use fearless_simd::prelude::*;

/// Two masses, compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apart<S: Isa> {
    /// `p log(p / q) - p + q`, not below 0.
    pub(crate) term: S::f64s,
    /// What its last rounding took, of `F = f64`.
    pub(crate) lost: S::f64s,
    /// `log(q / p)`; 0 where both are 0.
    pub(crate) log: S::f64s,
}

/// Compares masses `p` and `q` of which also the difference `q - p` is given; `q` and the difference
/// each with what its rounding took, which only `F = f64` heeds.
#[inline(always)]
pub(crate) fn apart<S: Isa, F: Element>(
    simd: S,
    p: S::f64s,
    [q, q_low]: [S::f64s; 2],
    [d, d_low]: [S::f64s; 2],
) -> Apart<S> {
    let c = |v: f64| splat::<S, f64>(simd, v);
    let (zero, one) = (c(0.0), c(1.0));
    let wide = F::KIND == Kind::F64;

    // Of f64, quotients may leave the range: in units of 2^200 and 2^300 they do not.
    let (denominator, numerator, unit, steps) = if wide {
        let tiny = p.simd_lt(c(2f64.powi(-900)));
        let far = q.simd_lt(p * c(2f64.powi(-400)));
        (
            tiny.select(p * c(2f64.powi(200)), p),
            far.select(q * c(2f64.powi(300)), q),
            tiny.select(c(2f64.powi(200)), one),
            tiny.select(c(200.0), zero) - far.select(c(300.0), zero),
        )
    } else {
        // A share of exponentials at the end of the range has no reciprocal, and no weight either.
        (c(f64::MIN_POSITIVE).max(p), q, one, zero)
    };
    let inverse = one / denominator;
    let ratio = numerator * inverse;
    let near = d * inverse;
    // What each quotient is short of, by the division's remainder.
    let (mut near_short, mut ratio_short) = (zero, zero);
    if wide {
        let left = |n: S::f64s, low: S::f64s, quotient: S::f64s| {
            let product = quotient * denominator;
            ((n - product) - lost(simd, quotient, denominator, product) + low) * inverse
        };
        near_short = left(d, d_low, near);
        ratio_short = left(numerator, q_low, ratio);
    }

    let y = near * unit;
    let (octaves, f, whole) = octave(simd, ratio, ratio - one);
    let k = octaves + steps;
    let at_home = k.simd_eq(zero) & whole;
    let f = at_home.select(y, f);
    let short = near_short * unit;
    let correction = at_home.select(short, ratio_short) / ratio;
    let half_square = c(0.5) * (f * f);
    let s = f / (f + c(2.0));
    let z = s * s;
    let series = s * polynomial::<S, f64, _>(simd, &SERIES, z).mul_add(z, half_square);
    let little = k.mul_add(c(LN2_LOW), correction);
    let log = k.mul_add(c(LN2_HIGH), f - (half_square - (series + little)));

    let excess = if wide {
        let [a, a_lost] = two_sum(y, -(k * c(LN2_HIGH)));
        let [b, b_lost] = two_sum(a, -f);
        let [sum, sum_lost] = two_sum(b, half_square);
        let square_lost = c(0.5) * lost(simd, f, f, f * f);
        let all_lost = (a_lost + b_lost) + (sum_lost + square_lost);
        sum + ((all_lost + (short - little)) - series)
    } else {
        (y - k * c(LN2_HIGH) - f) + (half_square - series - little)
    };
    // Beyond this the logarithm adds nothing to y, and neither does p.
    let far = y.simd_gt(c(2f64.powi(60)));
    let term = far.select(d, p * excess);

    let (p_is_0, q_is_0) = (p.simd_eq(zero), q.simd_eq(zero));
    let both = p_is_0 & q_is_0;
    let infinite = d.abs().simd_eq(c(f64::INFINITY));
    let term = p_is_0.select(q, (q_is_0 | infinite).select(c(f64::INFINITY), term));
    let log = p_is_0.select(c(f64::INFINITY), q_is_0.select(c(f64::NEG_INFINITY), log));
    let log = infinite.select(d, both.select(zero, log));
    let known = d.simd_eq(d);
    let plain = known & !(far | p_is_0 | q_is_0 | infinite);
    let lost = if wide { plain.select(lost(simd, p, excess, term), zero) } else { zero };
    Apart { term: known.select(term, d), lost, log: known.select(log, d) }
}
