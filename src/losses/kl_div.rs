//! The Kullback-Leibler divergence as torch has it, element by element: the input holds
//! log-probabilities, the target probabilities or their logarithms.
//!
//! ```text
//! loss = t (log t - x),       d/dx = -t
//! loss = exp(t) (t - x),      d/dx = -exp(t)        where the target holds logarithms
//! ```
//!
//! A mass of 0 adds nothing, whatever its logarithm. The difference vanishes where input and target
//! agree: its error there is one of its terms.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;
use crate::pointwise::{Jet, Point, Pointwise};
use crate::simd::exp::exp_anywhere;
use crate::simd::log1p::log;
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
        Jet { value, first: -mass, second: zero }
    }
}

/// Computes the divergence, and the gradient where `outputs` asks for it. Returns the reduced loss, or
/// the sum of the losses where they are not reduced.
///
/// # Errors
/// Where shapes do not fit, before anything is written; and where `interrupted` says so.
pub fn kl_div(
    inputs: &Elements<'_>,
    log_target: bool,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    if log_target {
        inputs.run(Divergence::<true>, outputs, interrupted)
    } else {
        inputs.run(Divergence::<false>, outputs, interrupted)
    }
}
