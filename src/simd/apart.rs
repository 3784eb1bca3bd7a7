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
//!
//! For `f32` one division does for all: with `t = 2^k p` near `q` and `s = (q - t) / (q + t)`,
//!
//! ```text
//! log(q / p) = k ln 2 + 2 artanh s,    p (y - log1p(y)) = (q - p) s - p (2 artanh s - 2 s)
//! ```
//!
//! where the latter, of `k = 0`, is by `y = 2 s / (1 - s)`, and within 2^-30 of itself; elsewhere
//! `(q - p) - p log(q / p)` is at least an eighth of what it is subtracted from.

use super::log1p::{ARTANH, LN2_HIGH, LN2_LOW, SERIES, octave, small_float};
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
    if F::KIND == Kind::F64 { exact(simd, p, [q, q_low], [d, d_low]) } else { short(simd, p, q, d) }
}

/// As `f64` needs it.
#[inline(always)]
fn exact<S: Isa>(
    simd: S,
    p: S::f64s,
    [q, q_low]: [S::f64s; 2],
    [d, d_low]: [S::f64s; 2],
) -> Apart<S> {
    let c = |v: f64| splat::<S, f64>(simd, v);
    let (zero, one) = (c(0.0), c(1.0));

    // Quotients may leave the range: in units of 2^200 and 2^300 they do not.
    let tiny = p.simd_lt(c(2f64.powi(-900)));
    let low = q.simd_lt(p * c(2f64.powi(-400)));
    let denominator = tiny.select(p * c(2f64.powi(200)), p);
    let numerator = low.select(q * c(2f64.powi(300)), q);
    let unit = tiny.select(c(2f64.powi(200)), one);
    let steps = tiny.select(c(200.0), zero) - low.select(c(300.0), zero);
    let inverse = one / denominator;
    let ratio = numerator * inverse;
    let near = d * inverse;
    // What each quotient is short of, by the division's remainder.
    let left = |n: S::f64s, low: S::f64s, quotient: S::f64s| {
        let product = quotient * denominator;
        ((n - product) - lost(simd, quotient, denominator, product) + low) * inverse
    };
    let near_short = left(d, d_low, near);
    let ratio_short = left(numerator, q_low, ratio);

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

    let [a, a_lost] = two_sum(y, -(k * c(LN2_HIGH)));
    let [b, b_lost] = two_sum(a, -f);
    let [sum, sum_lost] = two_sum(b, half_square);
    let square_lost = c(0.5) * lost(simd, f, f, f * f);
    let all_lost = (a_lost + b_lost) + (sum_lost + square_lost);
    let excess = sum + ((all_lost + (short - little)) - series);
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
    let lost = plain.select(lost(simd, p, excess, term), zero);
    Apart { term: known.select(term, d), lost, log: known.select(log, d) }
}

/// As `f32` needs it.
#[inline(always)]
fn short<S: Isa>(simd: S, p: S::f64s, q: S::f64s, d: S::f64s) -> Apart<S> {
    let c = |v: f64| splat::<S, f64>(simd, v);
    let (zero, two, infinity) = (c(0.0), c(2.0), c(f64::INFINITY));
    // Two masses of 0 agree; of one the answer is known, whatever its octaves. Where q alone is below
    // the normal range, which no f32 is, nor a mean of masses, the logarithm would be wrong.
    let [low_p, low_q] = [p, q].map(
        #[inline(always)]
        |mass| c(f64::MIN_POSITIVE).max(mass),
    );
    let (from, to) = (low_p.bitcast::<S::u64s>(), low_q.bitcast::<S::u64s>());
    // The bits of a float are its logarithm in fixed point, to 0.09; 1024 octaves keep a difference
    // above 0.
    let (half, up) = (1_u64 << 51, 1024_u64 << 52);
    let k = (to - from + (half + up)) >> 52;
    let t = (from + (k << 52) - up).bitcast::<S::f64s>();
    let k = small_float(simd, k) - c(1024.0);
    let at_home = k.simd_eq(zero);
    let s = at_home.select(d, q - t) / (q + t);
    let z = s * s;
    // 2 artanh s - 2 s
    let rest = s * (z * polynomial::<S, f64, _>(simd, &ARTANH, z));
    let log = k.mul_add(c(std::f64::consts::LN_2), two.mul_add(s, rest));
    let term = at_home.select(d * s - p * rest, d - p * log);

    let gone = q.simd_eq(zero) & p.simd_gt(zero);
    let infinite = d.abs().simd_eq(infinity);
    let new = p.simd_eq(zero) & q.simd_gt(zero);
    let log = gone.select(-infinity, new.select(infinity, infinite.select(d, log)));
    // No bits say that a mass is none.
    let log = d.simd_eq(d).select(log, d);
    Apart { term: (gone | infinite).select(infinity, term), lost: zero, log }
}
