//! The logarithm in `f32` lanes: of normal, finite numbers above 0, which nothing checks.
//!
//! With `u = 2^k (1 + f)` and `sqrt(1/2) <= 1 + f < sqrt 2`,
//!
//! ```text
//! log u = k ln 2 + f + f^2 q(f)
//! ```
//!
//! where `k` times the high part of ln 2 is exact, and what its sum with `f` loses to rounding is
//! known (Dekker's FastTwoSum, Numerische Mathematik 18, 1971): what remains is a rounding of the
//! result, and those of the last term, which is at most a fifth of it.

use super::{Isa, Mask32, polynomial, splat};
use fearless_simd::prelude::*;

/// Products of numbers below it are finite.
pub(crate) const FAR: f32 = 1e18;

/// Fifteen bits, so that products with an exponent are exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// `q`: relative error of `log(1 + f)` 2^-27.8.
const SERIES: [f32; 9] = [
    -0.499_999_88,
    0.333_333_22,
    -0.250_016_03,
    0.200_022_07,
    -0.166_088_72,
    0.141_773_97,
    -0.132_399_57,
    0.129_300_8,
    -0.076_600_604,
];

/// Where `u` is a normal number above 0, so small that products of two such are finite.
#[inline(always)]
pub(crate) fn is_normal<S: Isa>(simd: S, u: S::f32s) -> Mask32<S> {
    let c = |v: f32| splat::<S, f32>(simd, v);
    u.simd_ge(c(f32::MIN_POSITIVE)) & u.simd_lt(c(FAR))
}

/// `1 - p` of a `p` in [0, 1], and what its rounding took.
#[inline(always)]
pub(crate) fn complement<S: Isa>(simd: S, p: S::f32s) -> [S::f32s; 2] {
    let one = splat::<S, f32>(simd, 1.0);
    let rest = one - p;
    [rest, (one - rest) - p]
}

/// `log u`.
#[inline(always)]
pub(crate) fn log<S: Isa>(simd: S, u: S::f32s) -> S::f32s {
    log_of_sum(simd, u, splat::<S, f32>(simd, -0.0))
}

/// `log(u + lost)` of a sum that `u` is rounded from; `lost` is 0 for `u < 1/2`.
#[inline(always)]
pub(crate) fn log_of_sum<S: Isa>(simd: S, u: S::f32s, lost: S::f32s) -> S::f32s {
    let [high, tail] = log_in_parts(simd, u, lost);
    high + tail
}

/// The same before it is rounded: the second part is at most a quarter of the first, and of its sign
/// for `u < 1`.
#[inline(always)]
pub(crate) fn log_in_parts<S: Isa>(simd: S, u: S::f32s, lost: S::f32s) -> [S::f32s; 2] {
    let c = |v: f32| splat::<S, f32>(simd, v);
    // Adding the distance from sqrt(1/2) to 1 moves the exponent's step there.
    let (one, sqrt_half) = (1f32.to_bits(), std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let bits = u.bitcast::<S::u32s>() + (one - sqrt_half);
    let m = ((bits & 0x007f_ffff_u32) + sqrt_half).bitcast::<S::f32s>();
    // The exponent, put into the mantissa of 2^23.
    let two23 = 8_388_608.0_f32;
    let k = ((bits >> 23) | two23.to_bits()).bitcast::<S::f32s>() - c(two23 + 127.0);

    let home = k.simd_eq(c(0.0));
    let f = (m - c(1.0)) + home.select(lost, lost + lost);
    let q = polynomial::<S, f32, _>(simd, &SERIES, f);
    let high = k.mul_add(c(LN2_HIGH), f);
    let high_lost = k.mul_add(c(LN2_HIGH), -high) + f;
    [high, (f * f).mul_add(q, k.mul_add(c(LN2_LOW), high_lost))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level, dispatch};

    /// `log u` and, of the sum `1 - u`, `log(1 - u)`, of whole vectors.
    fn all(level: Level, u: &[f32]) -> Vec<[f32; 2]> {
        #[inline(never)]
        fn kernel<S: Isa>(simd: S, u: &[f32]) -> Vec<[f32; 2]> {
            simd.vectorize(
                #[inline(always)]
                || {
                    let n = S::f32s::LEN;
                    let mut all = Vec::with_capacity(u.len());
                    for u in u.chunks_exact(n) {
                        let u = simd::load::<S, f32>(simd, u);
                        let [rest, lost] = complement(simd, u);
                        let logs = [log(simd, u), log_of_sum(simd, rest, lost)];
                        all.extend((0..n).map(|i| logs.map(|log| log[i])));
                    }
                    all
                },
            )
        }
        dispatch!(level, s => kernel(s, u))
    }

    /// Asserts that every `step`th number has its logarithm.
    fn assert_within_an_ulp(step: usize) {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let bits: Vec<u32> =
                (f32::MIN_POSITIVE.to_bits()..f32::INFINITY.to_bits()).step_by(step).collect();
            let mut worst = [(0.0, 0.0); 2];
            for bits in bits.chunks(4096) {
                let mut u: Vec<_> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
                u.resize(4096, 0.5);
                for (u, got) in u.iter().zip(all(level, &u)) {
                    let wide = f64::from(*u);
                    for ((worst, got), want) in
                        worst.iter_mut().zip(got).zip([wide.ln(), (-wide).ln_1p()])
                    {
                        let error = simd::ulp32(got, want);
                        if want.is_finite() && error > worst.0 {
                            *worst = (error, *u);
                        }
                    }
                }
            }
            println!(
                "log {name}: u {:.3} ulp at {:e}, 1 - u {:.3} ulp at {:e}",
                worst[0].0, worst[0].1, worst[1].0, worst[1].1
            );
            assert!(worst[0].0 < 1.0 && worst[1].0 < 1.0, "{name}: {worst:?}");
        }
    }

    #[test]
    fn within_an_ulp() {
        assert_within_an_ulp(499);
    }

    #[test]
    #[ignore = "two billion values: make exhaustive"]
    fn exhaustive_f32() {
        assert_within_an_ulp(1);
    }
}
