//! `log(1 + others / top)`, in `f64` lanes: once a row, in what precision the type of the row needs.
//!
//! For `f64`, whose ulp leaves no room for the roundings of the quotient and of `top`, the quotient
//! is taken first and with what its division left over, then follows fdlibm's `s_log1p.c` (Sun
//! Microsystems, 1993) without its branches. With `1 + x = 2^k m` and `sqrt(1/2) <= m < sqrt 2`, `f = m - 1` and
//! `s = f / (2 + f)`,
//!
//! ```text
//! log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2))
//! ```
//!
//! and what the rounding of `1 + x` lost comes back as a correction divided by `1 + x`, together with
//! what `x` is short of the quotient. Where `k = 0`, `f` is `x` itself and nothing else is lost,
//! however small `x` is.
//!
//! For `f32` one division does for both: with `t = 2^k top` near `top + others`,
//!
//! ```text
//! log(1 + others / top) = k ln 2 + 2 artanh s,    s = (top + others - t) / (top + others + t)
//! ```
//!
//! where `k = 0` has `others` itself for the numerator.

use super::sum::two_sum;
use super::two::Two;
use super::{Element, Isa, lost, polynomial, splat};
use crate::float::Kind;
use fearless_simd::SimdBase;
use fearless_simd::prelude::*;

pub(super) const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
pub(super) const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// `R(s^2) / s^2`.
pub(super) const SERIES: [f64; 7] = [
    6.666_666_666_666_735e-1,
    3.999_999_999_940_942e-1,
    2.857_142_874_366_239e-1,
    2.222_219_843_214_978_4e-1,
    1.818_357_216_161_805e-1,
    1.531_383_769_920_937_3e-1,
    1.479_819_860_511_658_6e-1,
];

/// Of `log(1 + f) / f` for `1 + f` in [sqrt(1/2), sqrt 2]: relative error 2^-30.5.
const SHORT: [f64; 11] = [
    1.000_000_000_631_181_3,
    -0.499_999_996_674_890_6,
    0.333_333_016_061_966_64,
    -0.250_000_270_905_285_6,
    0.200_025_760_479_834_8,
    -0.166_679_122_192_542_27,
    0.142_125_293_348_963_68,
    -0.124_010_717_984_545_41,
    0.119_261_474_329_735_63,
    -0.117_182_626_872_322_06,
    0.067_253_546_321_256_02,
];

/// Of `2 artanh(s) / s - 2` in `s^2 <= 0.0402`, by `s^2`: relative error of the whole 2^-35.
pub(super) const ARTANH: [f64; 4] = [
    6.666_666_302_234_343e-1,
    4.000_087_412_632_01e-1,
    2.850_645_920_320_666e-1,
    2.410_844_623_267_836_8e-1,
];

/// `log(1 + others / top)` for `others >= 0` and finite `top > 0`, a number and what its rounding
/// took from it; NaN at NaN. Within an ulp of `f64` where `F` is that, within 2^-34 of itself where
/// `F` is `f32`.
#[inline(always)]
pub(crate) fn log_with_odds<S: Isa, F: Element>(
    simd: S,
    others: S::f64s,
    [top, low]: [S::f64s; 2],
) -> S::f64s {
    if F::KIND == Kind::F32 {
        return log_ratio(simd, others, top);
    }
    let x = others / top;
    // (others - x (top + low)) / top: what is left over is exact.
    let product = x * top;
    let left = (others - product) - lost(simd, x, top, product);
    let short = (-x).mul_add(low, left) / top;
    log1p(simd, x, short)
}

#[inline(always)]
fn log_ratio<S: Isa>(simd: S, others: S::f64s, top: S::f64s) -> S::f64s {
    let sum = top + others;
    // The bits of a float are its logarithm in fixed point, to 0.09.
    let half = 1_u64 << 51;
    let k = (sum.bitcast::<S::u64s>() - top.bitcast::<S::u64s>() + half) >> 52;
    let t = (top.bitcast::<S::u64s>() + (k << 52)).bitcast::<S::f64s>();
    let k = small_float(simd, k);
    let over = k.simd_eq(c(simd, 0.0)).select(others, sum - t);
    let s = over / (sum + t);
    let z = s * s;
    let r = polynomial::<S, f64, _>(simd, &ARTANH, z);
    let log = s.mul_add(r.mul_add(z, c(simd, 2.0)), k * c(simd, std::f64::consts::LN_2));
    // Neither infinity nor NaN went through the bits unharmed.
    others.simd_lt(c(simd, f64::INFINITY)).select(log, others)
}

/// Integers below 2^52 as floats, without an instruction for it: put into the mantissa of 2^52.
#[inline(always)]
pub(super) fn small_float<S: Isa>(simd: S, n: S::u64s) -> S::f64s {
    let two52 = 4_503_599_627_370_496.0_f64;
    (n | two52.to_bits()).bitcast::<S::f64s>() - c(simd, two52)
}

/// `log(1 + x + short)` for `x >= 0` and a `short` below its ulp, infinite at infinity, NaN at NaN.
#[inline(always)]
pub(crate) fn log1p<S: Isa>(simd: S, x: S::f64s, short: S::f64s) -> S::f64s {
    let u = x + c(simd, 1.0);
    let small = x.simd_lt(c(simd, 2.0));
    let lost = small.select(x - (u - c(simd, 1.0)), c(simd, 1.0) - (u - x));
    let log = log_exact(simd, u, x, lost, short);
    // Neither infinity nor NaN went through the bits unharmed.
    x.simd_lt(c(simd, f64::INFINITY)).select(log, x)
}

/// [`log1p`] of an `x` in [0, 1], in two parts to 2^-57 of itself; NaN at NaN.
#[inline(always)]
pub(crate) fn log1p_in_two<S: Isa>(simd: S, x: S::f64s, short: S::f64s) -> [S::f64s; 2] {
    let u = x + c(simd, 1.0);
    let log = log_exact_in_two(simd, u, x, x - (u - c(simd, 1.0)), short);
    log.map(
        #[inline(always)]
        |log| x.simd_eq(x).select(log, x),
    )
}

/// `log(u + low)` of a normal number in two parts, to 2^-57 of itself or of 1, whichever is more.
#[inline(always)]
pub(crate) fn log_in_two<S: Isa>(simd: S, u: S::f64s, low: S::f64s) -> [S::f64s; 2] {
    log_exact_in_two(simd, u, u - c(simd, 1.0), c(simd, 0.0), low)
}

/// The logarithm of a probability above 0: where `F` is `f64` as [`log_in_two`], else within 2^-30 of
/// itself. NaN at NaN.
#[inline(always)]
pub(crate) fn log_of_two<S: Isa, F: Element>(simd: S, u: Two<S, F>) -> Two<S, F> {
    let (low, u) = (u.low(simd), u.high);
    if F::KIND == Kind::F32 {
        let log = short_log(simd, u, u - c(simd, 1.0));
        return Two::of(simd, u.simd_eq(u).select(log, u));
    }
    // What is subnormal is brought into range first.
    let tiny = u.simd_lt(c(simd, f64::MIN_POSITIVE));
    let (up, steps) = (tiny.select(c(simd, 2f64.powi(54)), c(simd, 1.0)), c(simd, 54.0));
    let [log, log_low] = log_in_two(simd, u * up, low * up);
    let [high, high_low] = two_sum(log, -(steps * c(simd, LN2_HIGH)));
    let all_low = high_low + (log_low - steps * c(simd, LN2_LOW));
    let (log, low) = (tiny.select(high, log), tiny.select(all_low, log_low));
    Two::new([u.simd_eq(u).select(log, u), low])
}

/// `log u` of a probability `u`, of which `u - 1` is given more exactly than `u` holds it: at an `u`
/// that is 1 less a probability, that probability negated. Below -700 at 0, NaN at NaN.
#[inline(always)]
pub(crate) fn log_probability<S: Isa, F: Element>(
    simd: S,
    u: S::f64s,
    less_one: S::f64s,
) -> S::f64s {
    // What was lost is divided by it, and the bits of -0 are those of a negative number.
    let above_zero = c(simd, f64::MIN_POSITIVE).max(u);
    let log = if F::KIND == Kind::F64 {
        let lost = less_one - (u - c(simd, 1.0));
        log_exact(simd, above_zero, less_one, lost, c(simd, 0.0))
    } else {
        short_log(simd, above_zero, less_one)
    };
    u.simd_eq(u).select(log, u)
}

/// `log u` for `u >= 0`: to an ulp where `F` is `f64`, within 2^-30 of itself where it is `f32`, whose
/// smallest numbers are none of `f64`'s.
#[inline(always)]
pub(crate) fn log<S: Isa, F: Element>(simd: S, u: S::f64s) -> S::f64s {
    let zero = c(simd, 0.0);
    let log = if F::KIND == Kind::F64 {
        // What is subnormal is brought into range first.
        let tiny = u.simd_lt(c(simd, f64::MIN_POSITIVE));
        let scaled = tiny.select(u * c(simd, 2f64.powi(54)), u);
        let log = log_exact(simd, scaled, scaled - c(simd, 1.0), zero, zero);
        tiny.select(log - c(simd, 54.0 * std::f64::consts::LN_2), log)
    } else {
        short_log(simd, u, u - c(simd, 1.0))
    };
    let log = u.simd_eq(zero).select(c(simd, f64::NEG_INFINITY), log);
    // Neither infinity nor NaN went through the bits unharmed.
    u.simd_lt(c(simd, f64::INFINITY)).select(log, u)
}

/// `log u`, of which `u - 1` is given too, within 2^-30 of itself.
#[inline(always)]
fn short_log<S: Isa>(simd: S, u: S::f64s, less_one: S::f64s) -> S::f64s {
    let (k, f, _) = octave(simd, u, less_one);
    let p = polynomial::<S, f64, _>(simd, &SHORT, f);
    k.mul_add(c(simd, std::f64::consts::LN_2), p * f)
}

/// `log(1 - p)` of a probability, likewise.
#[inline(always)]
pub(crate) fn log1p_minus<S: Isa, F: Element>(simd: S, p: S::f64s) -> S::f64s {
    let u = c(simd, 1.0) - p;
    let sure = p.simd_eq(c(simd, 1.0));
    let log = if F::KIND == Kind::F64 {
        let lost = (c(simd, 1.0) - u) - p;
        log_exact(simd, sure.select(p, u), -p, lost, c(simd, 0.0))
    } else {
        short_log(simd, sure.select(p, u), -p)
    };
    let log = sure.select(c(simd, f64::NEG_INFINITY), log);
    p.simd_eq(p).select(log, p)
}

/// `u = 2^k (1 + f)` with `1 + f` in [sqrt(1/2), sqrt 2), and where `k` is 0.
#[inline(always)]
pub(super) fn octave<S: Isa>(
    simd: S,
    u: S::f64s,
    less_one: S::f64s,
) -> (S::f64s, S::f64s, Whole<S>) {
    // Adding the distance from sqrt(1/2) to 1 moves the exponent's step there.
    let one = 0x3ff0_0000_0000_0000_u64;
    let sqrt_half = 0x3fe6_a09e_667f_3bcd_u64;
    let bits = u.bitcast::<S::u64s>() + (one - sqrt_half);
    let m = ((bits & 0x000f_ffff_ffff_ffff_u64) + sqrt_half).bitcast::<S::f64s>();
    let k = small_float(simd, bits >> 52) - c(simd, 1023.0);
    let whole = k.simd_eq(c(simd, 0.0));
    (k, whole.select(less_one, m - c(simd, 1.0)), whole)
}

/// Where an octave is the one around 1.
pub(super) type Whole<S> = <<S as Simd>::f64s as SimdBase<S>>::Mask;

/// `log(u + lost + short)`: `lost` where `u` is not in the octave around 1, in which `less_one`
/// holds it.
#[inline(always)]
fn log_exact<S: Isa>(
    simd: S,
    u: S::f64s,
    less_one: S::f64s,
    lost: S::f64s,
    short: S::f64s,
) -> S::f64s {
    let Pieces { k, f, half_square, tail } = pieces(simd, u, less_one, lost, short);
    k.mul_add(c(simd, LN2_HIGH), f - (half_square - tail))
}

/// The same in two parts, to 2^-57 of itself or of 1, whichever is more.
#[inline(always)]
fn log_exact_in_two<S: Isa>(
    simd: S,
    u: S::f64s,
    less_one: S::f64s,
    lost: S::f64s,
    short: S::f64s,
) -> [S::f64s; 2] {
    let Pieces { k, f, half_square, tail } = pieces(simd, u, less_one, lost, short);
    let square_lost = super::lost(simd, c(simd, 0.5) * f, f, half_square);
    // The product is exact.
    let [high, high_lost] = two_sum(k * c(simd, LN2_HIGH), f);
    let [log, log_lost] = two_sum(high, -half_square);
    two_sum(log, tail + (high_lost + (log_lost - square_lost)))
}

/// Of `log u = k ln 2 + f - f^2/2 + tail`, where the low part of `k ln 2` is in the tail.
struct Pieces<S: Isa> {
    k: S::f64s,
    f: S::f64s,
    half_square: S::f64s,
    tail: S::f64s,
}

#[inline(always)]
fn pieces<S: Isa>(
    simd: S,
    u: S::f64s,
    less_one: S::f64s,
    lost: S::f64s,
    short: S::f64s,
) -> Pieces<S> {
    let (k, f, whole) = octave(simd, u, less_one);
    let correction = (whole.select(c(simd, 0.0), lost) + short) / u;
    let half_square = c(simd, 0.5) * f * f;
    let s = f / (f + c(simd, 2.0));
    let z = s * s;
    let r = polynomial::<S, f64, _>(simd, &SERIES, z);
    let tail = s.mul_add(half_square + r * z, k.mul_add(c(simd, LN2_LOW), correction));
    Pieces { k, f, half_square, tail }
}

#[inline(always)]
fn c<S: Isa>(simd: S, v: f64) -> S::f64s {
    splat::<S, f64>(simd, v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, dispatch};

    fn log1p_all<F: Element>(level: Level, x: &[f64], out: &mut [f64]) {
        #[inline(never)]
        fn kernel<S: Isa, F: Element>(simd: S, x: &[f64], out: &mut [f64]) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let n = S::f64s::LEN;
                    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                        let (x, one) = (S::f64s::from_slice(simd, x), c(simd, 1.0));
                        log_with_odds::<S, F>(simd, x, [one, c(simd, 0.0)]).store_slice(out);
                    }
                },
            );
        }
        dispatch!(level, s => kernel::<_, F>(s, x, out));
    }

    /// The bar, in ulp of `f64`: two of them, or for `f32` 2^-34.
    fn bar<F: Element>() -> f64 {
        if F::KIND == Kind::F64 { 2.0 } else { 2f64.powi(53 - 34) }
    }

    /// The worst error over `f32` bit patterns, in ulp of `f64`, against the standard library.
    fn worst<F: Element>(level: Level, bits: impl Iterator<Item = u32>) -> (f64, f64) {
        let mut worst = (0.0, 0.0);
        let mut block = Vec::with_capacity(4096);
        let mut out = vec![0.0; 4096];
        let mut bits = bits.peekable();
        while bits.peek().is_some() {
            block.clear();
            block.extend(bits.by_ref().take(4096).map(|b| f64::from(f32::from_bits(b))));
            block.resize(4096, 0.0);
            log1p_all::<F>(level, &block, &mut out);
            for (&x, &got) in block.iter().zip(&out) {
                let truth = x.ln_1p();
                let exponent = ((truth.to_bits() >> 52) as i32).max(1) - 1075;
                let error = (got - truth).abs() / 2f64.powi(exponent.max(-1022));
                if error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        worst
    }

    #[test]
    fn every_magnitude() {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let bits = || (0..f32::MAX.to_bits()).step_by(499);
            let (error, at) = worst::<f64>(level, bits());
            assert!(error <= bar::<f64>(), "{name}: {error} ulp at {at:e}");
            let (error, at) = worst::<f32>(level, bits());
            assert!(error <= bar::<f32>(), "{name}: {error} ulp at {at:e}");
        }
    }

    #[test]
    fn special_values() {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let x = [0.0, f64::INFINITY, f64::NAN, 1e-320, 3.0, 1e300, 1e-17, 1.0];
            let mut out = [0.0; 8];
            log1p_all::<f64>(level, &x, &mut out);
            assert_eq!(out[0], 0.0);
            assert_eq!(out[1], f64::INFINITY);
            assert!(out[2].is_nan());
            assert_eq!(out[3], 1e-320);
            assert_eq!(out[4], 4f64.ln());
            assert_eq!(out[5], 1e300f64.ln());
            assert_eq!(out[6], 1e-17);
            assert_eq!(out[7], 2f64.ln());
        }
    }

    #[test]
    #[ignore = "two billion values: make exhaustive"]
    fn exhaustive_f32() {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let (error, at) = worst::<f64>(level, 0..=f32::MAX.to_bits());
            println!("log1p f64 {name}: worst ulp {error:.3} at {at:e}");
            assert!(error <= bar::<f64>());
            let (error, at) = worst::<f32>(level, 0..=f32::MAX.to_bits());
            println!(
                "log1p f32 {name}: worst relative error 2^{:.2} at {at:e}",
                error.log2() - 53.0
            );
            assert!(error <= bar::<f32>());
        }
    }
}
