//! The Kullback-Leibler divergence as torch has it, element by element: the input holds
//! log-probabilities, the target probabilities or their logarithms.
//!
//! ```text
//! loss = t (log t - x),       d/dx = -t
//! loss = exp(t) (t - x),      d/dx = -exp(t)        where the target holds logarithms
//! ```
//!
//! A mass of 0 adds nothing, whatever its logarithm. The difference vanishes where input and target
//! agree: its error there is one of its terms. Logarithms are natural ones; a base is that of the answer.

use super::common::Outputs;
use super::elements::Elements;
use super::unit;
use crate::error::Result;
use crate::pointwise::{Jet, Narrow, Point, Pointwise};
use crate::simd::exp::{NORMAL, exp_anywhere, exp_normal};
use crate::simd::log::{FAR, is_normal, log as narrow_log};
use crate::simd::log1p::log;
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Divergence<const LOG_TARGET: bool>;

impl<const LOG_TARGET: bool> Pointwise for Divergence<LOG_TARGET> {
    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let zero = c(0.0);
        let (mass, log) = if LOG_TARGET {
            (exp_anywhere::<S, F>(simd, p.t), p.t)
        } else {
            (p.t, log::<S, F>(simd, p.t))
        };
        // Not at a NaN.
        let nothing = mass.simd_eq(zero) & p.x.simd_eq(p.x);
        let value = nothing.select(zero, mass * (log - p.x));
        Jet { value, lost: zero, first: -mass, second: zero }
    }

    /// Of finite log-probabilities, and masses that are normal numbers or 0.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let zero = c(0.0);
        let (mass, log, normal, far) = if LOG_TARGET {
            // Products with the largest mass are finite.
            (exp_normal(simd, t)[0], t, t.abs().simd_lt(c(NORMAL)), 1e3)
        } else {
            (t, narrow_log(simd, t), is_normal(simd, t) | t.simd_eq(zero), FAR)
        };
        let [gap, gap_lost] = two_sum(log, -x);
        let value = mass.simd_eq(zero).select(zero, mass.mul_add(gap, mass * gap_lost));
        Some(Narrow { value, first: -mass, second: None, holds: normal & x.abs().simd_lt(c(far)) })
    }
}

/// Computes the divergence, and the gradient where `outputs` asks for it. Returns the reduced loss, or
/// the sum of the losses where they are not reduced.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; and where `interrupted` says so.
pub fn kl_div(
    inputs: &Elements<'_>,
    log_target: bool,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    if log_target {
        unit::run(inputs, Divergence::<true>, base, outputs, interrupted)
    } else {
        unit::run(inputs, Divergence::<false>, base, outputs, interrupted)
    }
}
