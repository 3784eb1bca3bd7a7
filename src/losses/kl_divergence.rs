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
use super::entropy::Unit;
use crate::error::Result;
use crate::pointwise::{Argument, Jet, Point, Pointwise};
use crate::simd::apart::apart;
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct KullbackLeibler {
    unit: Unit,
}

impl Pointwise for KullbackLeibler {
    const RANGE: &str = "not below 0";

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, point: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (p, q) = (point.x, point.t);
        let d = two_sum(q, -p);
        let apart = apart::<S, F>(simd, p, [q, c(0.0)], d);
        // A share p / q of 0: also at q = 0, and at an infinite one.
        let none = p.simd_eq(c(0.0)) | d[0].simd_eq(c(f64::INFINITY));
        let by_q = none.select(c(1.0), d[0] / q);
        let count = |nats: S::f64s| self.unit.count(simd, nats);
        Jet { value: count(apart.term), first: count(c(0.0) - apart.log), second: count(by_q) }
    }

    #[inline(always)]
    fn excess<S: Isa>(_: S, p: &Point<S>) -> S::f64s {
        (-p.t).max(-p.x)
    }

    fn outside(p: f64, q: f64) -> Option<Argument> {
        negative(p, q)
    }
}

/// The first that is negative.
pub(super) fn negative(p: f64, q: f64) -> Option<Argument> {
    match (p < 0.0, q < 0.0) {
        (true, _) => Some(Argument::X),
        (false, true) => Some(Argument::T),
        _ => None,
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
    inputs.run(KullbackLeibler { unit: Unit::of(base)? }, outputs, interrupted)
}
