//! Numbers in two parts, for arithmetic in which a rounding of `f64` is too much.
//!
//! Where results are `f64`, a number is the sum of a float and of what its rounding took (Dekker,
//! Numerische Mathematik 18, 1971). Where they are `f32`, the float is more than exact enough: nothing
//! is computed of the second part.

use super::sum::two_sum;
use super::{Element, Isa, lost, splat};
use crate::float::Kind;
use fearless_simd::prelude::*;
use std::marker::PhantomData;

/// `a b` and what its rounding took, of numbers in two parts.
#[inline(always)]
pub(crate) fn product<S: Isa>(
    simd: S,
    [a, a_low]: [S::f64s; 2],
    [b, b_low]: [S::f64s; 2],
) -> [S::f64s; 2] {
    let product = a * b;
    [product, a.mul_add(b_low, a_low.mul_add(b, lost(simd, a, b, product)))]
}

/// `a / b` of numbers in two parts, rounded once but for little.
#[inline(always)]
pub(crate) fn quotient<S: Isa>(
    simd: S,
    [a, a_low]: [S::f64s; 2],
    [b, b_low]: [S::f64s; 2],
) -> S::f64s {
    let quotient = a / b;
    let product = quotient * b;
    let left = (a - product) - quotient.mul_add(b_low, lost(simd, quotient, b, product)) + a_low;
    let short = left / b;
    // Of what is infinite nothing is known.
    let known = short.abs().simd_lt(splat::<S, f64>(simd, f64::INFINITY));
    known.select(quotient + short, quotient)
}

/// The same of one float.
pub(crate) fn over(a: f64, [b, b_low]: [f64; 2]) -> f64 {
    let quotient = a / b;
    let short = ((-quotient).mul_add(b, a) - quotient * b_low) / b;
    if short.is_finite() && short != 0.0 { quotient + short } else { quotient }
}

/// Which lanes of `f64` vectors.
pub(crate) type Mask64<S> = <<S as Simd>::f64s as SimdBase<S>>::Mask;

/// A number for results of type `F`.
#[derive(Clone, Copy)]
pub(crate) struct Two<S: Isa, F: Element> {
    pub(crate) high: S::f64s,
    low: S::f64s,
    precision: PhantomData<F>,
}

impl<S: Isa, F: Element> Two<S, F> {
    const WIDE: bool = matches!(F::KIND, Kind::F64);

    #[inline(always)]
    pub(crate) fn new([high, low]: [S::f64s; 2]) -> Self {
        Self { high, low, precision: PhantomData }
    }

    /// A float as it is.
    #[inline(always)]
    pub(crate) fn of(simd: S, high: S::f64s) -> Self {
        Self::new([high, splat::<S, f64>(simd, 0.0)])
    }

    #[inline(always)]
    pub(crate) fn plus(self, other: Self) -> Self {
        if !Self::WIDE {
            return Self::new([self.high + other.high, self.low]);
        }
        let [sum, lost] = two_sum(self.high, other.high);
        Self::new([sum, lost + (self.low + other.low)])
    }

    #[inline(always)]
    pub(crate) fn times(self, simd: S, other: Self) -> Self {
        if !Self::WIDE {
            return Self::new([self.high * other.high, self.low]);
        }
        Self::new(product(simd, [self.high, self.low], [other.high, other.low]))
    }

    /// Times a power of two.
    #[inline(always)]
    pub(crate) fn scaled(self, power: S::f64s) -> Self {
        Self::new([self.high * power, self.low * power])
    }

    #[inline(always)]
    pub(crate) fn negated(self) -> Self {
        Self::new([-self.high, -self.low])
    }

    #[inline(always)]
    pub(crate) fn select(mask: Mask64<S>, yes: Self, no: Self) -> Self {
        Self::new([mask.select(yes.high, no.high), mask.select(yes.low, no.low)])
    }

    /// The second part; 0 where it is unknown, as of what is infinite.
    #[inline(always)]
    pub(crate) fn low(self, simd: S) -> S::f64s {
        let zero = splat::<S, f64>(simd, 0.0);
        if Self::WIDE { self.low.simd_eq(self.low).select(self.low, zero) } else { zero }
    }

    /// The number, rounded, and what that took.
    #[inline(always)]
    pub(crate) fn split(self, simd: S) -> [S::f64s; 2] {
        let rounded = self.rounded(simd);
        let lost = (self.high - rounded) + self.low(simd);
        let zero = splat::<S, f64>(simd, 0.0);
        [rounded, if Self::WIDE { lost.simd_eq(lost).select(lost, zero) } else { zero }]
    }

    /// The number, rounded.
    #[inline(always)]
    pub(crate) fn rounded(self, simd: S) -> S::f64s {
        if Self::WIDE { self.high + self.low(simd) } else { self.high }
    }
}
