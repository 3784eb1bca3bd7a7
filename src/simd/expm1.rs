//! `exp(u) - 1`, `exp(u) - 1 - u` and the hyperbolic tangent, which lose nothing near 0.
//!
//! ```text
//! exp(v) - 1 - v = v^2 P(v),      tanh(|y|) = -m / (2 + m),   m = exp(-2 |y|) - 1
//! ```
//!
//! with `P` minimax on [-2, 2]. Of `f64`, the powers are known with what their roundings take, and
//! what is added to `v^2 / 2` is by a factor `|v| / 3` less: little more than one rounding remains.

use super::exp::Shift;
use super::sum::two_sum;
use super::{Element, Isa, lost, polynomial, splat};
use crate::float::Kind;
use fearless_simd::prelude::*;

/// Of `(P(v) - 1/2) / v`: relative error of the whole 2^-59.1.
const EXCESS: [f64; 17] = [
    0.166_666_666_666_666_66,
    0.041_666_666_666_666_64,
    8.333_333_333_333_377e-3,
    1.388_888_888_889_085_8e-3,
    1.984_126_984_125_461_6e-4,
    2.480_158_730_106_359_5e-5,
    2.755_731_922_631_387_8e-6,
    2.755_731_929_325_899_6e-7,
    2.505_210_820_099_783e-8,
    2.087_675_186_731_392_8e-9,
    1.605_905_178_525_407_5e-10,
    1.147_096_695_035_510_7e-11,
    7.646_986_927_954_837e-13,
    4.773_925_198_700_239e-14,
    2.812_878_148_756_799_4e-15,
    1.636_562_442_091_3e-16,
    8.335_084_342_571_125e-18,
];

/// Relative error 2^-34.3.
const SHORT: [f64; 12] = [
    0.499_999_999_981_035,
    0.166_666_666_728_860_1,
    0.041_666_667_034_480_5,
    8.333_333_031_343_473e-3,
    1.388_887_759_414_968e-3,
    1.984_130_898_271_262_7e-4,
    2.480_283_695_021_624_6e-5,
    2.755_544_242_845_106_3e-6,
    2.749_551_992_728_711_6e-7,
    2.507_954_956_572_140_3e-8,
    2.226_928_692_588_120_4e-9,
    1.635_587_847_242_472_4e-10,
];

/// `exp(v) - 1 - v` for `v` in [-2, 2].
#[inline(always)]
fn excess_near_0<S: Isa, F: Element>(simd: S, v: S::f64s) -> S::f64s {
    let square = v * v;
    if F::KIND == Kind::F32 {
        return square * polynomial::<S, f64, _>(simd, &SHORT, v);
    }
    let cube = square * v;
    let square_low = lost(simd, v, v, square);
    let cube_low = square_low.mul_add(v, lost(simd, square, v, cube));
    let p = polynomial::<S, f64, _>(simd, &EXCESS, v);
    let half = splat::<S, f64>(simd, 0.5);
    half.mul_add(square, cube.mul_add(p, cube_low.mul_add(p, half * square_low)))
}

/// How far `exp(u)` is from 1 and from its tangent there, for `u` in [-2, 2].
#[derive(Clone, Copy)]
pub(crate) struct Apart<S: Isa> {
    /// `exp(u) - 1`, and most of what its rounding took.
    pub(crate) expm1: [S::f64s; 2],
    /// `exp(u) - 1 - u`.
    pub(crate) excess: S::f64s,
}

impl<S: Isa> Apart<S> {
    /// At `u`, of which the low part is what a rounding took, in the precision that `F` needs.
    #[inline(always)]
    pub(crate) fn at<F: Element>(simd: S, [u, u_low]: [S::f64s; 2]) -> Self {
        let excess = excess_near_0::<S, F>(simd, u);
        if F::KIND == Kind::F32 {
            let zero = splat::<S, f64>(simd, 0.0);
            return Self { expm1: [u + excess, zero], excess };
        }
        let [expm1, low] = two_sum(u, excess);
        let short = u_low.mul_add(expm1, u_low);
        Self { expm1: [expm1, short + low], excess: u_low.mul_add(expm1, excess) }
    }
}

/// `tanh(y)`, and its derivative `1 - tanh(y)^2`, which does not cancel either.
#[inline(always)]
pub(crate) fn tanh<S: Isa>(simd: S, y: S::f64s) -> [S::f64s; 2] {
    let c = |v: f64| splat::<S, f64>(simd, v);
    let v = c(-2.0) * y.abs();
    let shift = Shift::<S, f64>::new(simd, c(0.0), c(0.0));
    let far = shift.exp_by::<false>(simd, f64::wide_exp_constants::<S>(), v);
    // Further out, what is added to v is larger than the sum.
    let near = v + excess_near_0::<S, f64>(simd, v.max(c(-1.0)));
    let is_near = v.simd_gt(c(-1.0));
    let less_one = is_near.select(near, far - c(1.0));
    let sum = c(2.0) + less_one;
    let tanh = -less_one / sum;
    let slope = c(4.0) * is_near.select(near + c(1.0), far) / (sum * sum);
    [y.simd_lt(c(0.0)).select(-tanh, tanh), slope]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level, dispatch};

    fn all(level: Level, y: &[f64]) -> Vec<[f64; 2]> {
        #[inline(never)]
        fn kernel<S: Isa>(simd: S, y: &[f64]) -> Vec<[f64; 2]> {
            simd.vectorize(
                #[inline(always)]
                || {
                    let n = S::f64s::LEN;
                    let mut all = Vec::new();
                    for y in y.chunks_exact(n) {
                        let both = tanh(simd, simd::load::<S, f64>(simd, y));
                        all.extend((0..n).map(|i| [both[0][i], both[1][i]]));
                    }
                    all
                },
            )
        }
        dispatch!(level, s => kernel(s, y))
    }

    #[test]
    fn tanh_within_three_ulp() {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let y: Vec<f64> = (0..1 << 14)
                .map(|i| f64::from(i) * 0.0013 - 10.0)
                .chain((0..1 << 10).map(|i| 1e-9 * 1.03f64.powi(i)))
                .collect();
            for (y, [tanh, slope]) in y.iter().zip(all(level, &y)) {
                let (want, cosh) = (y.tanh(), y.cosh());
                let near = |got: f64, want: f64, ulp: f64| {
                    got == want || (got - want).abs() <= ulp * f64::EPSILON * want.abs()
                };
                assert!(near(tanh, want, 3.0), "{name} tanh({y}) = {tanh:e}, not {want:e}");
                let want = 1.0 / (cosh * cosh);
                assert!(near(slope, want, 6.0), "{name} slope at {y}: {slope:e}, not {want:e}");
            }
        }
    }

    #[test]
    fn special_values() {
        for name in ["avx512", "avx2", "baseline"] {
            let level = Level::at_most(name).unwrap();
            let y = [f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::NAN, 400.0, 0.0, 0.0];
            let got = all(level, &y);
            assert_eq!(got[..4], [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]);
            assert!(got[4][0].is_nan());
            assert_eq!(got[5][0], 1.0);
        }
    }
}
