//! The entropy of one probability: of a coin that falls on one side with it.
//!
//! ```text
//! H     = -p log p - (1 - p) log(1 - p)
//! dH/dp = log(1 - p) - log p
//! ```
//!
//! Both terms of the entropy are positive. The derivative is a difference that vanishes at 1/2: its
//! error there is one of the logarithms, which are those of `f64`.

use super::common::Outputs;
use super::elements::Elements;
use super::unit;
use crate::error::Result;
use crate::float::Kind;
use crate::pointwise::{Domain, Jet, Narrow, Point, Pointwise, wanted};
use crate::simd::log::{complement, log as narrow_log, log_of_sum};
use crate::simd::log1p::{log_of_two, log1p_in_two, log1p_minus};
use crate::simd::two::{Mask64, Two};
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct BinaryEntropy;

impl Pointwise for BinaryEntropy {
    const DOMAIN: Domain = Domain::Unit;
    const MOST: u8 = wanted::FIRST;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let two = |v: S::f64s| Two::<S, F>::of(simd, v);
        let (x, rest) = (two(p.x), two(c(1.0)).plus(two(-p.x)));
        let log = log_of_two::<S, F>(simd, x);
        let log_rest = if F::KIND == Kind::F64 {
            Two::new(log1p_in_two(simd, -p.x, c(0.0)))
        } else {
            two(log1p_minus::<S, F>(simd, p.x))
        };
        let (none, all) = (p.x.simd_eq(c(0.0)), p.x.simd_eq(c(1.0)));
        let part = |none: Mask64<S>, of: Two<S, F>, log: Two<S, F>| {
            let log = Two::select(none, two(c(f64::NEG_INFINITY)), log);
            (Two::select(none, two(c(0.0)), of.times(simd, log)), log.rounded(simd))
        };
        let ((term, log), (other, log_rest)) = (part(none, x, log), part(all, rest, log_rest));
        let [value, lost] = term.plus(other).split(simd);
        // Differences from 0 rather than negations, which would leave -0.
        let (value, lost) = (c(0.0) - value, c(0.0) - lost);
        Jet { value, lost, first: log_rest - log, second: c(f64::NAN) }
    }

    /// Of normal numbers below 1.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, p: S::f32s, _: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let [rest, lost] = complement(simd, p);
        let (log, log_rest) = (narrow_log(simd, p), log_of_sum(simd, rest, lost));
        let value = c(0.0) - p.mul_add(log, rest.mul_add(log_rest, lost * log_rest));
        let holds = p.simd_ge(c(f32::MIN_POSITIVE)) & p.simd_lt(c(1.0));
        Some(Narrow { value, first: log_rest - log, second: None, holds })
    }
}

/// Computes the entropy of each probability, and the gradient where `outputs` asks for it.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; where an input is no probability;
/// and where `interrupted` says so.
pub fn binary_entropy(
    inputs: &Elements<'_>,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    unit::run(inputs, BinaryEntropy, base, outputs, interrupted)
}
