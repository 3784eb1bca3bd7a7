//! The logistic function and its logarithm, from one exponential.
//!
//! With `e = exp(-|x|)`, which is in (0, 1] and loses nothing at either end,
//!
//! ```text
//! sigmoid(-|x|) = e / (1 + e),    sigmoid(|x|) = 1 / (1 + e),    softplus(-|x|) = log(1 + e)
//! ```
//!
//! are ratios and a logarithm of positive numbers: nothing cancels. In `f64` lanes, in what precision
//! the type of the caller's numbers needs; and, where `e` is a normal number of it, in `f32` lanes.

use super::exp::{NORMAL, Shift, exp_normal};
use super::log1p::{log_in_two, log1p, log1p_in_two};
use super::two::{Mask64, Two};
use super::{Element, Isa, Mask32, polynomial, splat};
use crate::float::Kind;
use fearless_simd::prelude::*;

/// Of `log(1 + e) / e` in [0, 1]: relative error 2^-30.3.
const SHORT: [f64; 11] = [
    0.999_999_999_256_51,
    -0.499_999_814_274_633_9,
    0.333_325_594_229_829_16,
    -0.249_872_682_943_254_4,
    0.198_907_310_483_481_06,
    -0.161_056_294_282_372_97,
    0.124_182_951_986_894_97,
    -0.082_439_773_942_730_86,
    0.041_476_547_546_028_9,
    -0.013_406_740_620_983_643,
    0.002_030_083_633_015_621,
];

/// The logistic function at some `x`.
#[derive(Clone, Copy)]
pub(crate) struct Logistic<S: Isa, F: Element> {
    x: S::f64s,
    /// `exp(-|x|)`, and for `f64` what its rounding took.
    e: [S::f64s; 2],
    /// `1 / (1 + e)`.
    large: S::f64s,
    precision: std::marker::PhantomData<F>,
}

impl<S: Isa, F: Element> Logistic<S, F> {
    #[inline(always)]
    pub(crate) fn at(simd: S, x: S::f64s) -> Self {
        Self::near(simd, x, splat::<S, f64>(simd, 0.0))
    }

    /// At `x + short`, a sum that `x` is rounded from.
    #[inline(always)]
    pub(crate) fn near(simd: S, x: S::f64s, short: S::f64s) -> Self {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let constants = F::wide_exp_constants::<S>();
        let y = -x.abs();
        let e = if F::KIND == Kind::F64 {
            // In a unit of 2^-64, so that what is subnormal is rounded once.
            let shift = Shift::<S, f64>::new(simd, c(0.0), c(-64.0));
            let [e, low] = shift.exp_in_two(simd, constants, y);
            let short = x.simd_lt(c(0.0)).select(short, -short);
            let low = e.mul_add(short, low);
            let sum = e + low;
            let unit = c(2f64.powi(-64));
            [sum * unit, (low - (sum - e)) * unit]
        } else {
            let shift = Shift::<S, f64>::new(simd, c(0.0), c(0.0));
            [shift.exp_by::<false>(simd, constants, y), c(0.0)]
        };
        let large = F::reciprocal::<S>(simd, e[0] + c(1.0));
        Self { x, e, large, precision: std::marker::PhantomData }
    }

    /// The same from a more exact exponential, of `f64`, by a step of Newton's for its logarithm: all
    /// of [`Shift::exp_in_two`]'s error is not in what it says of its rounding.
    #[inline(always)]
    pub(crate) fn refined(mut self, simd: S) -> Self {
        if F::KIND == Kind::F64 {
            let [e, low] = self.e;
            let [log, log_low] = log_in_two(simd, e, low);
            let short = (-self.x.abs() - log) - log_low;
            // Of what is subnormal, or unknown, the logarithm says nothing.
            let known = e.simd_gt(splat::<S, f64>(simd, 1e-300));
            self.e[1] = known.select(short.mul_add(e, low), low);
        }
        self
    }

    /// `sigmoid(-|x|)`.
    #[inline(always)]
    pub(crate) fn small(&self) -> S::f64s {
        self.e[0] * self.large
    }

    /// `log(1 + exp(-|x|))`.
    #[inline(always)]
    pub(crate) fn log(&self, simd: S) -> S::f64s {
        let [e, low] = self.e;
        if F::KIND == Kind::F64 {
            return log1p(simd, e, low);
        }
        polynomial::<S, f64, _>(simd, &SHORT, e) * e
    }

    /// The same, more exactly than an `f64`.
    #[inline(always)]
    pub(crate) fn exact_log(&self, simd: S) -> Two<S, F> {
        let [e, low] = self.e;
        if F::KIND == Kind::F64 {
            return Two::new(log1p_in_two(simd, e, low));
        }
        Two::of(simd, self.log(simd))
    }

    /// `sigmoid(|x|)`.
    #[inline(always)]
    pub(crate) fn large(&self) -> S::f64s {
        self.large
    }

    /// `exp(-|x|)`.
    #[inline(always)]
    pub(crate) fn odds(&self) -> Two<S, F> {
        Two::new(self.e)
    }

    /// Whether `x > 0`.
    #[inline(always)]
    pub(crate) fn is_positive(&self, simd: S) -> Mask64<S> {
        self.x.simd_gt(splat::<S, f64>(simd, 0.0))
    }

    /// `a` where `x > 0`, else `b`; `b` at a NaN.
    #[inline(always)]
    pub(crate) fn by_sign(&self, simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        self.is_positive(simd).select(a, b)
    }

    /// `sigmoid(x)`.
    #[inline(always)]
    pub(crate) fn sigmoid(&self, simd: S) -> S::f64s {
        self.by_sign(simd, self.large, self.small())
    }

    /// `sigmoid(-x)`.
    #[inline(always)]
    pub(crate) fn against(&self, simd: S) -> S::f64s {
        self.by_sign(simd, self.small(), self.large)
    }

    /// `sigmoid(x) sigmoid(-x)`, the derivative of the sigmoid.
    #[inline(always)]
    pub(crate) fn slope(&self) -> S::f64s {
        self.small() * self.large
    }
}

/// Of `(log(1 + e) - e) / e^2` in [0, 1]: relative error of the logarithm 2^-27.5.
const NARROW: [f32; 9] = [
    -0.499_999_3,
    0.333_304_64,
    -0.249_580_2,
    0.196_921_21,
    -0.153_449_77,
    0.106_613_71,
    -0.057_460_483,
    0.020_088_46,
    -0.003_291_074_2,
];

/// The logistic function in `f32` lanes, [where it holds](Narrow::holds).
#[derive(Clone, Copy)]
pub(crate) struct Narrow<S: Isa> {
    x: S::f32s,
    /// `exp(-|x|)`, and what its last rounding took.
    e: [S::f32s; 2],
}

impl<S: Isa> Narrow<S> {
    #[inline(always)]
    pub(crate) fn at(simd: S, x: S::f32s) -> Self {
        Self { x, e: exp_normal(simd, -x.abs()) }
    }

    /// Where the exponential is normal enough.
    #[inline(always)]
    pub(crate) fn holds(&self, simd: S) -> Mask32<S> {
        self.x.abs().simd_lt(splat::<S, f32>(simd, NORMAL))
    }

    /// `gap + log(1 + exp(-|x|))`; the logarithm by itself would be rounded once more.
    #[inline(always)]
    pub(crate) fn log_and(&self, simd: S, gap: S::f32s) -> S::f32s {
        let [e, low] = self.e;
        // What the rounding of e took counts by 1 / (1 + e), which is 0.7 to within 0.3. It joins the
        // gap first: where that is small, which is where most other roundings show, exactly.
        let gap = low.mul_add(splat::<S, f32>(simd, 0.7), gap);
        e + polynomial::<S, f32, _>(simd, &NARROW, e).mul_add(e * e, gap)
    }

    /// `softplus(-x)`, which is minus the logarithm of the sigmoid.
    #[inline(always)]
    pub(crate) fn softplus_of_minus(&self, simd: S) -> S::f32s {
        self.log_and(simd, (-self.x).max(splat::<S, f32>(simd, 0.0)))
    }

    /// `a` where `x > 0`, else `b`.
    #[inline(always)]
    pub(crate) fn by_sign(&self, simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        self.x.simd_gt(splat::<S, f32>(simd, 0.0)).select(a, b)
    }

    /// `sigmoid(-|x|)`.
    #[inline(always)]
    pub(crate) fn small(&self, simd: S) -> S::f32s {
        let [e, _] = self.e;
        e / (e + splat::<S, f32>(simd, 1.0))
    }

    /// `sigmoid(-x)`.
    #[inline(always)]
    pub(crate) fn against(&self, simd: S) -> S::f32s {
        let ([e, _], one) = (self.e, splat::<S, f32>(simd, 1.0));
        self.by_sign(simd, e, one) / (e + one)
    }

    /// `sigmoid(x)`, to an ulp: with what the roundings of the exponential, of `1 + e` and of the
    /// division took.
    #[inline(always)]
    pub(crate) fn sigmoid(&self, simd: S) -> S::f32s {
        let c = |v: f32| splat::<S, f32>(simd, v);
        let [e, low] = self.e;
        let sum = e + c(1.0);
        let sum_low = (e - (sum - c(1.0))) + low;
        let (over, over_low) = (self.by_sign(simd, c(1.0), e), self.by_sign(simd, c(0.0), low));
        let inverse = c(1.0) / sum;
        let ratio = over * inverse;
        let left = (-ratio).mul_add(sum, over) + (-ratio).mul_add(sum_low, over_low);
        left.mul_add(inverse, ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level, dispatch};

    /// `log(1 + exp(-|x|))`, `sigmoid(-|x|)` and `sigmoid(x)` of whole vectors.
    fn all(level: Level, x: &[f32]) -> Vec<[f32; 3]> {
        #[inline(never)]
        fn kernel<S: Isa>(simd: S, x: &[f32]) -> Vec<[f32; 3]> {
            // Where nothing is fused these lanes are not used.
            if !S::FUSED {
                return Vec::new();
            }
            simd.vectorize(
                #[inline(always)]
                || {
                    let n = S::f32s::LEN;
                    let mut all = Vec::with_capacity(x.len());
                    for x in x.chunks_exact(n) {
                        let at = Narrow::at(simd, simd::load::<S, f32>(simd, x));
                        let log = at.log_and(simd, splat::<S, f32>(simd, 0.0));
                        let three = [log, at.small(simd), at.sigmoid(simd)];
                        all.extend((0..n).map(|i| three.map(|v| v[i])));
                    }
                    all
                },
            )
        }
        dispatch!(level, s => kernel(s, x))
    }

    /// Asserts the bars at every `step`th number.
    fn assert_narrow(step: usize) {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let bits: Vec<u32> = (0..80f32.to_bits()).step_by(step).collect();
            let mut worst = [(0.0, 0.0); 3];
            for bits in bits.chunks(2048) {
                let mut x: Vec<_> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
                x.extend(bits.iter().map(|&bits| -f32::from_bits(bits)));
                x.resize(4096, 1.0);
                for (x, got) in x.iter().zip(all(level, &x)) {
                    let (e, wide) = (f64::from(-x.abs()).exp(), f64::from(*x));
                    let want = [e.ln_1p(), e / (1.0 + e), 1.0 / (1.0 + (-wide).exp())];
                    for ((worst, got), want) in worst.iter_mut().zip(got).zip(want) {
                        let error = simd::ulp32(got, want);
                        if error > worst.0 {
                            *worst = (error, *x);
                        }
                    }
                }
            }
            println!("logistic {name}: {worst:.3?}");
            for (worst, bar) in worst.iter().zip([2.0, 2.5, 1.5]) {
                assert!(worst.0 < bar, "{name}: {worst:?}");
            }
        }
    }

    #[test]
    fn narrow_within_bars() {
        assert_narrow(499);
    }

    #[test]
    #[ignore = "two billion values: make exhaustive"]
    fn exhaustive_f32() {
        assert_narrow(1);
    }
}
