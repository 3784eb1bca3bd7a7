//! Shannon's entropy of probabilities.
//!
//! ```text
//! H       = -sum_i p_i log p_i
//! dH/dp_i = -log p_i - 1
//! ```
//!
//! of the numbers as they are: they are not normalised. 0 log 0 is 0, its limit. The derivative
//! vanishes at 1/e: its error there is one of the logarithm, which is that of `f64`.

use super::common::Outputs;
use super::elements::Elements;
use super::unit;
use crate::error::Result;
use crate::pointwise::{Domain, Jet, Narrow, Point, Pointwise, wanted};
use crate::simd::log::{is_normal, log as narrow_log};
use crate::simd::log1p::log_of_two;
use crate::simd::two::Two;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Entropy;

impl Pointwise for Entropy {
    const DOMAIN: Domain = Domain::NotNegative;
    const MOST: u8 = wanted::FIRST;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (none, inf) = (p.x.simd_eq(c(0.0)), p.x.simd_eq(c(f64::INFINITY)));
        let two = |v: S::f64s| Two::<S, F>::of(simd, v);
        let log = log_of_two::<S, F>(simd, two(p.x));
        let log = Two::select(none, two(c(f64::NEG_INFINITY)), Two::select(inf, two(p.x), log));
        let term = Two::select(none, two(c(0.0)), two(p.x).times(simd, log));
        let [value, lost] = term.split(simd);
        // Differences from 0 rather than negations, which would leave -0.
        let (value, lost) = (c(0.0) - value, c(0.0) - lost);
        let first = -log.rounded(simd) - c(1.0);
        Jet { value, lost, first, second: c(f64::NAN) }
    }

    /// Of normal numbers and 0.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, p: S::f32s, _: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let is_zero = p.simd_eq(c(0.0));
        let log = is_zero.select(c(f32::NEG_INFINITY), narrow_log(simd, p));
        let value = is_zero.select(c(0.0), c(0.0) - p * log);
        let holds = is_zero | is_normal(simd, p);
        Some(Narrow { value, first: -log - c(1.0), second: None, holds })
    }
}

/// Computes the entropy over an axis, and the gradient where `outputs` asks for it.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; where an input is negative; and
/// where `interrupted` says so.
pub fn entropy(
    inputs: &Elements<'_>,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    unit::run(inputs, Entropy, base, outputs, interrupted)
}
