//! Binary cross-entropy between targets and probabilities.
//!
//! ```text
//! loss = -(t max(log p, -100) + (1 - t) max(log(1 - p), -100))
//! d/dp = (p - t) / max(p (1 - p), 1e-12)
//! ```
//!
//! with torch's clamps. The logarithms are those of the probability as it is: `log(1 - p)` at a small
//! `p` is `log1p(-p)`, `log p` near 1 is `log1p(p - 1)` with an exact difference.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;
use crate::pointwise::{Domain, Jet, Narrow, Point, Pointwise, wanted};
use crate::simd::log::{complement, log_in_parts, log_of_sum};
use crate::simd::log1p::log_probability;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

/// The least logarithm, and the least denominator of a gradient.
const LEAST_LOG: f64 = -100.0;
const LEAST_VARIANCE: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct OfProbabilities;

impl Pointwise for OfProbabilities {
    const DOMAIN: Domain = Domain::Unit;
    const MOST: u8 = wanted::FIRST;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (one, t) = (c(1.0), p.t);
        let rest = one - p.x;
        // In this order a NaN stays one.
        let clamp = |log: S::f64s| c(LEAST_LOG).max(log);
        let is_one = t.simd_eq(one);
        let value = if (is_one | t.simd_eq(c(0.0))).all_true() {
            // Where targets are sure, one logarithm is enough.
            let (u, less_one) = (is_one.select(p.x, rest), is_one.select(p.x - one, -p.x));
            c(0.0) - clamp(log_probability::<S, F>(simd, u, less_one))
        } else {
            let log = clamp(log_probability::<S, F>(simd, p.x, p.x - one));
            let log_rest = clamp(log_probability::<S, F>(simd, rest, -p.x));
            c(0.0) - t.mul_add(log, (one - t) * log_rest)
        };
        let variance = c(LEAST_VARIANCE).max(p.x * rest);
        let first = (p.x - t) * F::reciprocal::<S>(simd, variance);
        Jet { value, lost: c(0.0), first, second: c(f64::NAN) }
    }

    /// Of normal numbers below 1, whose logarithms no clamp is for, and targets in [0, 1].
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, p: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let (zero, one) = (c(0.0), c(1.0));
        let [rest, lost] = complement(simd, p);
        let is_one = t.simd_eq(one);
        let mut holds = p.simd_ge(c(f32::MIN_POSITIVE)) & p.simd_lt(one);
        let value = if (is_one | t.simd_eq(zero)).all_true() {
            zero - log_of_sum(simd, is_one.select(p, rest), is_one.select(zero, lost))
        } else {
            holds &= t.simd_ge(zero) & t.simd_le(one);
            // Roundings of logarithms would be doubled where the loss is just below a power of two.
            let ([log, tail], [log_rest, tail_rest]) =
                (log_in_parts(simd, p, zero), log_in_parts(simd, rest, lost));
            let [other, other_lost] = complement(simd, t);
            let tails = t.mul_add(tail, other.mul_add(tail_rest, other_lost * log_rest));
            zero - t.mul_add(log, other.mul_add(log_rest, tails))
        };
        let first = (p - t) / c(LEAST_VARIANCE as f32).max(p * rest);
        Some(Narrow { value, first, second: None, holds })
    }
}

/// Computes the loss, and the gradient where `outputs` asks for it. Returns the reduced loss, or the
/// sum of the losses where they are not reduced.
///
/// # Errors
/// Where shapes do not fit, before anything is written; where an input is no probability; and where
/// `interrupted` says so.
pub fn binary_cross_entropy(
    inputs: &Elements<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.run(OfProbabilities, outputs, interrupted)
}
