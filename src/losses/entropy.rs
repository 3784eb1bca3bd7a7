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
use crate::error::{Error, Result};
use crate::pointwise::{Argument, Jet, Point, Pointwise};
use crate::simd::log1p::log;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Entropy {
    unit: Unit,
}

impl Pointwise for Entropy {
    const RANGE: &str = "not below 0";

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let log = log(simd, p.x);
        // A difference from 0 rather than a negation, which would leave -0.
        let value = p.x.simd_eq(c(0.0)).select(c(0.0), c(0.0) - p.x * log);
        let first = -log - c(1.0);
        let count = |nats: S::f64s| self.unit.count(simd, nats);
        Jet { value: count(value), first: count(first), second: c(f64::NAN) }
    }

    #[inline(always)]
    fn excess<S: Isa>(_: S, p: &Point<S>) -> S::f64s {
        -p.x
    }

    fn outside(x: f64, _: f64) -> Option<Argument> {
        (x < 0.0).then_some(Argument::X)
    }
}

/// A unit of information, in nats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit(f64);

impl Unit {
    /// That of logarithms to a base; nats without one.
    pub(super) fn of(base: Option<f64>) -> Result<Self> {
        match base {
            None => Ok(Self(1.0)),
            Some(base) if base > 0.0 && base != 1.0 && base.is_finite() => Ok(Self(base.ln())),
            Some(base) => Err(Error::Value(format!("base must be positive and not 1, got {base}"))),
        }
    }

    /// How many nats it is.
    pub(super) fn nats(self) -> f64 {
        self.0
    }

    /// Nats in this unit. Not by a reciprocal: a fair coin has 1 bit.
    #[inline(always)]
    pub(super) fn count<S: Isa>(self, simd: S, nats: S::f64s) -> S::f64s {
        if self.0 == 1.0 { nats } else { nats / simd::splat::<S, f64>(simd, self.0) }
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
    inputs.run(Entropy { unit: Unit::of(base)? }, outputs, interrupted)
}
