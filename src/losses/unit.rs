//! Units of information: nats, bits, or of any base.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::{Error, Result};
use crate::pointwise::{Domain, Jet, Narrow, Point, Pointwise};
use crate::simd::{self, Element, Isa};

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

/// What `of` has in nats, in a unit.
#[derive(Clone, Copy, Debug)]
struct Measured<L> {
    of: L,
    unit: Unit,
}

impl<L: Pointwise> Pointwise for Measured<L> {
    const DOMAIN: Domain = L::DOMAIN;
    const MOST: u8 = L::MOST;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let Jet { value, first, second } = self.of.at::<S, F>(simd, p);
        Jet {
            value: self.unit.count(simd, value),
            first: self.unit.count(simd, first),
            second: self.unit.count(simd, second),
        }
    }

    /// Of nats: another unit takes a rounding more.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        if self.unit.0 == 1.0 { self.of.narrow(simd, x, t) } else { None }
    }
}

/// [`Elements::run`] of what is information, in nats without a base.
pub(super) fn run<L: Pointwise + Copy>(
    inputs: &Elements<'_>,
    of: L,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.run(Measured { of, unit: Unit::of(base)? }, outputs, interrupted)
}
