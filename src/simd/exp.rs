//! The exponential, scaled by a power of two.
//!
//! Softmax needs `exp(x - max)`, whose subtraction rounds: an error of `|x - max| / 2` ulp in the
//! result. A power of two takes the maximum's place: with `n = round(x log2 e)`,
//!
//! ```text
//! exp(x) 2^-k = exp(x - n ln 2) 2^(n - k)
//! ```
//!
//! reduces each `x` on its own (Cody and Waite's two-part ln 2, exact to far below an ulp) and
//! subtracts `k` from an integer. Two details make it as cheap as the plain form. The rounding to
//! `n` adds a constant whose last bits then hold an integer (Schraudolph's trick); that constant
//! includes `bias - k`, so the bits are the biased exponent of `2^(n - k)` at once. And the floor
//! under `x` is where that exponent reaches 0, whose float is 0.0: what is below, -inf too, comes
//! out as exactly 0.
//!
//! Beyond [`Constants::reach`] the reduction loses bits, and `x - max` is exact instead: it errs
//! only where `x < max - |max| / 2` (Sterbenz's lemma), and there the result is 0.

use super::{Element, Isa, V, splat};
use fearless_simd::prelude::*;

/// What the exponential of a type needs.
#[derive(Debug)]
pub struct Constants<F: 'static> {
    log2_e: F,
    /// Short enough that `n * ln2_high` is exact also where it is not fused.
    ln2_high: F,
    ln2_low: F,
    ln2: F,
    /// 1.5 times 2^(bits of the mantissa): adding it rounds to an integer.
    round: F,
    /// The exponent's bias.
    bias: F,
    /// Largest `|max|` that keeps the shift by a power of two.
    pub(crate) reach: F,
    /// Coefficients of r^2 .. : exp(r) - 1 - r, weighted least squares on |r| <= ln 2 / 2.
    poly: &'static [F],
}

/// Relative error of the polynomial: 2^-28.
pub(crate) const F32: Constants<f32> = Constants {
    log2_e: std::f32::consts::LOG2_E,
    ln2_high: 0.693_359_4,
    ln2_low: -2.121_944_4e-4,
    ln2: std::f32::consts::LN_2,
    round: 12_582_912.0,
    bias: 127.0,
    reach: 512.0,
    poly: &[0.499_999_9, 0.166_665_18, 0.041_669_533, 8.368_923e-3, 1.375_138_2e-3],
};

/// In `f64` lanes what `f32` needs: relative error of the polynomial: 2^-34.
pub(crate) const F64_SHORT: Constants<f64> = Constants {
    poly: &[
        0.500_000_006_803_719_3,
        0.166_666_658_645_932_5,
        0.041_666_293_634_907_09,
        8.333_497_674_030_212e-3,
        1.394_475_855_286_261_8e-3,
        1.979_024_382_468_488_2e-4,
    ],
    ..F64
};

/// Relative error of the polynomial: 2^-57.7.
pub(crate) const F64: Constants<f64> = Constants {
    log2_e: std::f64::consts::LOG2_E,
    ln2_high: 0.693_147_180_559_208_2,
    ln2_low: 7.371_002_565_167_798e-13,
    ln2: std::f64::consts::LN_2,
    round: 6_755_399_441_055_744.0,
    bias: 1023.0,
    reach: 4096.0,
    poly: &[
        0.500_000_000_000_001_2,
        0.166_666_666_666_664_82,
        0.041_666_666_666_516_2,
        8.333_333_333_451_528e-3,
        1.388_888_894_671_330_5e-3,
        1.984_126_959_697_103_8e-4,
        2.480_149_030_763_86e-5,
        2.755_750_736_197_554_2e-6,
        2.763_114_015_020_175_7e-7,
        2.502_463_926_631_103_5e-8,
    ],
};

/// Where rows are shifted to before the exponential: [`Shift::exp`] is `exp(x - center) 2^-k`.
#[derive(Clone, Copy)]
pub(crate) struct Shift<S: Isa, F: Element> {
    /// Subtracted first: the row's maximum where it is beyond reach, else 0.
    pub(crate) center: V<F, S>,
    floor: V<F, S>,
    round: V<F, S>,
}

impl<S: Isa, F: Element> Shift<S, F> {
    /// The shift of rows by their maxima, and its `k`, which leaves the maximum at `2^headroom`
    /// or so: below it there is room for what a later factor brings back into range.
    #[inline(always)]
    pub(crate) fn of_max(simd: S, max: V<F, S>, headroom: V<F, S>) -> (Self, V<F, S>) {
        let zero = splat::<S, F>(simd, F::of(0.0));
        // "Not within" rather than "beyond": a NaN is no center.
        let beyond = max.abs().simd_gt(splat::<S, F>(simd, F::EXP.reach));
        let center = beyond.select(max, zero);
        let near = beyond.select(zero, max);
        let round = splat::<S, F>(simd, F::EXP.round);
        let k = (near.mul_add(splat::<S, F>(simd, F::EXP.log2_e), round) - round) - headroom;
        (Self::new(simd, center, k), k)
    }

    /// The shift with a given center and `k`.
    #[inline(always)]
    pub(crate) fn new(simd: S, center: V<F, S>, k: V<F, S>) -> Self {
        let lowest = k - splat::<S, F>(simd, F::EXP.bias);
        Self {
            center,
            floor: lowest * splat::<S, F>(simd, F::EXP.ln2),
            round: splat::<S, F>(simd, F::EXP.round) - lowest,
        }
    }

    /// What [`Self::within_reach`] makes it of again, where there is no center.
    #[inline(always)]
    pub(crate) fn parts(&self) -> [V<F, S>; 2] {
        [self.floor, self.round]
    }

    /// A shift from its [`Self::parts`].
    #[inline(always)]
    pub(crate) fn within_reach(simd: S, [floor, round]: [V<F, S>; 2]) -> Self {
        Self { center: splat::<S, F>(simd, F::of(0.0)), floor, round }
    }

    /// `exp(x - center) 2^-k`, to 0.93 ulp with fused arithmetic; NaN stays NaN.
    #[inline(always)]
    pub(crate) fn exp<const CENTERED: bool>(&self, simd: S, x: V<F, S>) -> V<F, S> {
        self.exp_by::<CENTERED>(simd, &F::EXP, x)
    }

    /// The same by a polynomial of one's choice.
    #[inline(always)]
    pub(crate) fn exp_by<const CENTERED: bool>(
        &self,
        simd: S,
        c: &Constants<F>,
        x: V<F, S>,
    ) -> V<F, S> {
        let x = if CENTERED { x - self.center } else { x };
        // In this order a NaN among the second operands survives.
        let x = self.floor.max(x);
        let t = x.mul_add(splat::<S, F>(simd, c.log2_e), self.round);
        let n = t - self.round;
        let r = n.mul_add(splat::<S, F>(simd, F::of(-c.ln2_high.wide())), x);
        let r = n.mul_add(splat::<S, F>(simd, F::of(-c.ln2_low.wide())), r);
        let one = splat::<S, F>(simd, F::of(1.0));
        let (last, rest) = c.poly.split_last().expect("a polynomial has coefficients");
        let mut p = splat::<S, F>(simd, *last);
        for &coefficient in rest.iter().rev() {
            p = p.mul_add(r, splat::<S, F>(simd, coefficient));
        }
        let p = p.mul_add(r, one).mul_add(r, one);
        p * F::bits_to_exponent::<S>(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level, dispatch};

    /// Runs the kernel over all of `x`; a whole number of vectors at every level.
    fn exp_all<F: Element>(level: Level, x: &[F], k: F, out: &mut [F]) {
        #[inline(never)]
        fn kernel<S: Isa, F: Element>(simd: S, x: &[F], k: F, out: &mut [F]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let shift = Shift::<S, F>::new(
                        simd,
                        splat::<S, F>(simd, F::of(0.0)),
                        splat::<S, F>(simd, k),
                    );
                    let n = simd::lanes::<S, F>();
                    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                        simd::store::<S, F>(
                            shift.exp::<true>(simd, simd::load::<S, F>(simd, x)),
                            out,
                        );
                    }
                },
            );
        }
        dispatch!(level, s => kernel(s, x, k, out));
    }

    /// Error in units of the last place of the `f32` nearest to the truth.
    fn ulp32(got: f32, truth: f64) -> f64 {
        let near = truth as f32;
        let exponent = ((near.abs().to_bits() >> 23) as i32).max(1) - 150;
        (f64::from(got) - truth).abs() / 2f64.powi(exponent)
    }

    fn levels() -> Vec<Level> {
        ["avx512", "avx2", "baseline"].iter().map(|n| Level::at_most(n).unwrap()).collect()
    }

    /// The worst error over a set of `f32` bit patterns.
    fn worst_f32(level: Level, bits: impl Iterator<Item = u32>) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        let mut block = Vec::with_capacity(4096);
        let mut out = vec![0.0; 4096];
        let mut bits = bits.peekable();
        while bits.peek().is_some() {
            block.clear();
            block.extend(bits.by_ref().take(4096).map(f32::from_bits));
            block.resize(4096, 0.0);
            // Headroom keeps the results normal wherever the exponential is.
            let k = if block[0] < 0.0 { -90.0 } else { 90.0 };
            exp_all(level, &block, k, &mut out);
            for (&x, &got) in block.iter().zip(&out) {
                let truth = f64::from(x).exp() * 2f64.powf(-f64::from(k));
                let error = ulp32(got, truth);
                if error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        worst
    }

    #[test]
    fn f32_within_an_ulp() {
        for level in levels() {
            let positive = worst_f32(level, (0..88f32.to_bits()).step_by(1013));
            let negative = worst_f32(level, ((-0f32).to_bits()..(-126f32).to_bits()).step_by(1013));
            let bar = if level.name() == "baseline" { 1.3 } else { 0.93 };
            assert!(positive.0 < bar && negative.0 < bar, "{level:?} {positive:?} {negative:?}");
        }
    }

    #[test]
    fn f64_within_an_ulp() {
        for level in levels() {
            let x: Vec<f64> = (0..1 << 16).map(|i| f64::from(i) * 0.0210 - 690.0).collect();
            let mut out = vec![0.0; x.len()];
            exp_all(level, &x, 0.0, &mut out);
            for (&x, &got) in x.iter().zip(&out) {
                let truth = x.exp();
                // The standard library's own error is part of the difference.
                assert!(
                    (got - truth).abs() <= 1.6 * f64::EPSILON * truth,
                    "{level:?} {x}: {got:e}"
                );
            }
        }
    }

    #[test]
    fn special_values() {
        for level in levels() {
            let mut x = [0f32; 16];
            x[..5].copy_from_slice(&[f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, -200.0]);
            let mut out = [1f32; 16];
            exp_all(level, &x, 0.0, &mut out);
            assert_eq!(out[0].to_bits(), 0);
            assert!(out[1].is_nan());
            assert_eq!(&out[2..5], &[1.0, 1.0, 0.0]);
        }
    }

    #[test]
    #[ignore = "two billion values: make exhaustive"]
    fn exhaustive_f32() {
        for level in levels() {
            let positive = worst_f32(level, 0..=88f32.to_bits());
            let negative = worst_f32(level, (-0f32).to_bits()..=(-126f32).to_bits());
            println!(
                "exp f32 {}: worst ulp {:.3} at {:e}, {:.3} at {:e}",
                level.name(),
                positive.0,
                positive.1,
                negative.0,
                negative.1
            );
            let bar = if level.name() == "baseline" { 1.3 } else { 0.93 };
            assert!(positive.0 < bar && negative.0 < bar);
        }
    }
}
