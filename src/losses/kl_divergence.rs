//! The Kullback-Leibler divergence of one distribution from another.
//!
//! ```text
//! KL(p, q) = sum_i p_i log(p_i / q_i) - p_i + q_i
//! d/dp_i   = log(p_i / q_i),      d/dq_i = 1 - p_i / q_i
//! ```
//!
//! For distributions, whose sums agree, the last two terms cancel; with them no term is below 0, so
//! that nothing cancels in the sum and the divergence of a distribution from itself is 0 (Csiszár,
//! "Why least squares and maximum entropy?", 1991, the I-divergence).

use super::common::Outputs;
use super::elements::Elements;
use super::unit;
use crate::error::Result;
use crate::pointwise::{Domain, Jet, Point, Pointwise};
use crate::simd::apart::apart;
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct KullbackLeibler;

impl Pointwise for KullbackLeibler {
    const DOMAIN: Domain = Domain::NotNegative;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, point: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (p, q) = (point.x, point.t);
        let d = two_sum(q, -p);
        let apart = apart::<S, F>(simd, p, [q, c(0.0)], d);
        // A share p / q of 0: also at q = 0, and at an infinite one.
        let none = p.simd_eq(c(0.0)) | d[0].simd_eq(c(f64::INFINITY));
        let by_q = (none & q.simd_eq(q)).select(c(1.0), d[0] / q);
        Jet { value: apart.term, lost: apart.lost, first: c(0.0) - apart.log, second: by_q }
    }
}

/// Computes the divergence over an axis, and the gradients that `outputs` asks for.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; where an input is negative; and
/// where `interrupted` says so.
pub fn kl_divergence(
    inputs: &Elements<'_>,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    unit::run(inputs, KullbackLeibler, base, outputs, interrupted)
}
