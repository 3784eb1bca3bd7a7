//! Sums that lose nothing: `f32` lanes are added in `f64`, `f64` lanes in pairs of `f64`.
//!
//! A kernel adds no more than a few vectors in its own type before it moves them here: n additions
//! in a row err by up to n/2 ulp, and those of equal numbers all in one direction.

use super::{Element, Isa, V, load, lost, splat, store};
use fearless_simd::prelude::*;
use std::ops::{Add, Sub};

/// A sum as it rounds, and exactly what the rounding took from it: TwoSum (Knuth, The Art of Computer
/// Programming 2, 4.2.2, theorem B), of numbers or of vectors.
#[inline(always)]
pub(crate) fn two_sum<T: Copy + Add<Output = T> + Sub<Output = T>>(a: T, b: T) -> [T; 2] {
    let sum = a + b;
    let b_seen = sum - a;
    [sum, (a - (sum - b_seen)) + (b - b_seen)]
}

/// A vector of sums, held more widely than its summands.
pub trait Wide<S: Isa, F: Element>: Copy {
    /// Zero in every lane.
    fn zero(simd: S) -> Self;
    /// Adds lane by lane.
    fn add(&mut self, v: V<F, S>);
    /// Adds `q (max - x)`, lane by lane, with no rounding but those of the sums; `q` in two parts, of
    /// which `f32` needs but the first.
    fn add_gap(&mut self, simd: S, q: [V<F, S>; 2], max: V<F, S>, x: V<F, S>);
    /// The sum of a lane each, in order, rounded to `f64`.
    fn store(self, dst: &mut [f64]);
    /// Its lanes added up to those of one vector, rounded to `f64`.
    fn folded(self) -> S::f64s;
    /// The sum over all lanes.
    fn total(self) -> f64;
    /// All that it holds, for [`Wide::load`]: two vectors.
    fn save(self, dst: &mut [f64]);
    /// The reverse of [`Wide::save`].
    fn load(simd: S, src: &[f64]) -> Self;
}

/// Sums of `f32` lanes: two vectors of `f64`.
#[derive(Clone, Copy)]
pub struct Wide32<S: Isa> {
    low: S::f64s,
    high: S::f64s,
}

impl<S: Isa> Wide<S, f32> for Wide32<S> {
    #[inline(always)]
    fn zero(simd: S) -> Self {
        let zero = splat::<S, f64>(simd, 0.0);
        Self { low: zero, high: zero }
    }
    #[inline(always)]
    fn add(&mut self, v: S::f32s) {
        let (low, high) = v.widen();
        self.low += low;
        self.high += high;
    }
    #[inline(always)]
    fn add_gap(&mut self, _: S, [q, _]: [S::f32s; 2], max: S::f32s, x: S::f32s) {
        let ((q_low, q_high), (m_low, m_high)) = (q.widen(), max.widen());
        let (x_low, x_high) = x.widen();
        self.low = q_low.mul_add(m_low - x_low, self.low);
        self.high = q_high.mul_add(m_high - x_high, self.high);
    }
    #[inline(always)]
    fn store(self, dst: &mut [f64]) {
        store::<S, f64>(self.low, dst);
        store::<S, f64>(self.high, &mut dst[S::f64s::LEN..]);
    }
    #[inline(always)]
    fn folded(self) -> S::f64s {
        self.low + self.high
    }
    #[inline(always)]
    fn total(self) -> f64 {
        Wide::<S, f32>::folded(self).reduce_sum()
    }
    #[inline(always)]
    fn save(self, dst: &mut [f64]) {
        // It holds no more than what it rounds to.
        Wide::<S, f32>::store(self, dst);
    }
    #[inline(always)]
    fn load(simd: S, src: &[f64]) -> Self {
        Self { low: load::<S, f64>(simd, src), high: load::<S, f64>(simd, &src[S::f64s::LEN..]) }
    }
}

/// Sums of `f64` lanes, each with the error of its roundings.
#[derive(Clone, Copy)]
pub struct Wide64<S: Isa> {
    sum: S::f64s,
    error: S::f64s,
}

impl<S: Isa> Wide64<S> {
    #[inline(always)]
    fn rounded(self) -> S::f64s {
        // An infinite sum has a NaN for its error.
        let known = self.error.simd_eq(self.error);
        self.sum + known.select(self.error, splat::<S, f64>(self.sum.token(), 0.0))
    }
}

impl<S: Isa> Wide<S, f64> for Wide64<S> {
    #[inline(always)]
    fn zero(simd: S) -> Self {
        let zero = splat::<S, f64>(simd, 0.0);
        Self { sum: zero, error: zero }
    }
    #[inline(always)]
    fn add(&mut self, v: S::f64s) {
        let [sum, lost] = two_sum(self.sum, v);
        (self.sum, self.error) = (sum, self.error + lost);
    }
    #[inline(always)]
    fn add_gap(&mut self, simd: S, [q, q_low]: [S::f64s; 2], max: S::f64s, x: S::f64s) {
        let [gap, gap_low] = two_sum(max, -x);
        let dot = q * gap;
        let low = q.mul_add(gap_low, q_low.mul_add(gap, lost(simd, q, gap, dot)));
        self.add(dot);
        // Of what is infinite nothing is lost.
        let finite = dot.abs().simd_lt(splat::<S, f64>(simd, f64::INFINITY));
        self.add(finite.select(low, splat::<S, f64>(simd, 0.0)));
    }
    #[inline(always)]
    fn store(self, dst: &mut [f64]) {
        store::<S, f64>(self.rounded(), dst);
    }
    #[inline(always)]
    fn folded(self) -> S::f64s {
        self.rounded()
    }
    #[inline(always)]
    fn total(self) -> f64 {
        let mut total = Compensated::default();
        let known = self.error.as_slice().iter().filter(|e| !e.is_nan());
        // An infinite sum has a NaN for its error.
        for &x in self.sum.as_slice().iter().chain(known) {
            total.add(x);
        }
        total.value()
    }
    #[inline(always)]
    fn save(self, dst: &mut [f64]) {
        store::<S, f64>(self.sum, dst);
        store::<S, f64>(self.error, &mut dst[S::f64s::LEN..]);
    }
    #[inline(always)]
    fn load(simd: S, src: &[f64]) -> Self {
        Self { sum: load::<S, f64>(simd, src), error: load::<S, f64>(simd, &src[S::f64s::LEN..]) }
    }
}

/// A scalar sum in twice the precision (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compensated {
    sum: f64,
    error: f64,
}

impl Compensated {
    pub(crate) fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let (large, small) = if self.sum.abs() >= x.abs() { (self.sum, x) } else { (x, self.sum) };
        self.error += (large - sum) + small;
        self.sum = sum;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.add(other.sum);
        self.error += other.error;
    }

    pub(crate) fn value(self) -> f64 {
        // An infinite sum has a NaN for its error.
        if self.error.is_nan() { self.sum } else { self.sum + self.error }
    }
}
