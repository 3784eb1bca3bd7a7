//! Units of information: nats, bits, or of any base.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::pointwise::{Domain, Jet, Narrow, Point, Pointwise};
use crate::simd::log1p::log_of_two;
use crate::simd::two::{Two, quotient};
use crate::simd::{self, Element, Isa, dispatch};

/// A unit of information, in nats; in two parts, or its rounding would be one of all answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit([f64; 2]);

impl Unit {
    /// That of logarithms to a base; nats without one.
    pub(super) fn of(base: Option<f64>) -> Result<Self> {
        match base {
            None => Ok(Self([1.0, 0.0])),
            Some(base) if base > 0.0 && base != 1.0 && base.is_finite() => Ok(Self(log(base))),
            Some(base) => Err(Error::Value(format!("base must be positive and not 1, got {base}"))),
        }
    }

    /// How many nats it is.
    pub(super) fn nats(self) -> [f64; 2] {
        self.0
    }

    /// Whether it is one.
    #[inline(always)]
    pub(super) fn is_nat(self) -> bool {
        self.0 == [1.0, 0.0]
    }

    /// Nats in this unit, of which also what a rounding took may be known, in the precision that `F`
    /// needs. Not by a reciprocal: a fair coin has 1 bit.
    #[inline(always)]
    pub(super) fn count<S: Isa, F: Element>(
        self,
        simd: S,
        nats: S::f64s,
        lost: S::f64s,
    ) -> S::f64s {
        if self.is_nat() {
            return nats;
        }
        if F::KIND == Kind::F32 {
            return nats / simd::splat::<S, f64>(simd, self.0[0]);
        }
        quotient(simd, [nats, lost], self.0.map(|part| simd::splat::<S, f64>(simd, part)))
    }
}

/// The logarithm of a positive number in two parts.
fn log(of: f64) -> [f64; 2] {
    #[inline(never)]
    fn kernel<S: Isa>(simd: S, of: f64) -> [f64; 2] {
        simd.vectorize(
            #[inline(always)]
            || {
                let of = Two::<S, f64>::of(simd, simd::splat::<S, f64>(simd, of));
                let log = log_of_two(simd, of);
                [log.high, log.low(simd)].map(|part| part[0])
            },
        )
    }
    dispatch!(simd::level(), s => kernel(s, of))
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
        let Jet { value, lost, first, second } = self.of.at::<S, F>(simd, p);
        let zero = simd::splat::<S, f64>(simd, 0.0);
        Jet {
            value: self.unit.count::<S, F>(simd, value, lost),
            lost: zero,
            // Derivatives have room for another rounding.
            first: self.unit.count::<S, f32>(simd, first, zero),
            second: self.unit.count::<S, f32>(simd, second, zero),
        }
    }

    /// Of nats: another unit takes a rounding more.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        if self.unit.is_nat() { self.of.narrow(simd, x, t) } else { None }
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
