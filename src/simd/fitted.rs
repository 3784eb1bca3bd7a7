//! A function of one number, fitted when its parameters are known.
//!
//! A loss that is a function of one number but for options, which are the same throughout a call,
//! need not be computed by its formula, whose every step rounds. With a rate `k`,
//!
//! ```text
//! f(z) = exp(-k z) g(z)  where z > 0,    g(z)  elsewhere
//! ```
//!
//! of which `g` is smooth, is a polynomial on each of a few cells, looked up in registers:
//! `g = c (1 + q)`, with `c` a float and `q` small. With the exponential's parts, `s + s p` (see
//! `exp`),
//!
//! ```text
//! f = s c + s c (p + q + p q)
//! ```
//!
//! rounds once of note. Cells are wide where `|z|` is large and `g` nearly straight: they are the
//! first bits of `2 + 1.5 |z|`, from a third wide to 8 thirds.

use super::exp::decay_normal;
use super::{Isa, Mask32, splat};
use fearless_simd::prelude::*;
use std::f64::consts::PI;

/// Cells to either side of 0, of which an octave has four.
const CELLS: usize = 16;
/// Of the polynomials.
const DEGREE: usize = 6;
/// Numbers that are tried as a cell's center, for one where `g` is nearly a float (Gal's method).
const TRIES: u32 = 16;
/// What a cell's number is made of is `START + SCALE |z|`. A larger scale means narrower cells, and a
/// shorter reach.
const START: f32 = 2.0;
const SCALE: f32 = 1.5;
/// Up to which `|z|` there are cells.
pub(crate) const REACH: f32 = START * 15.0 / SCALE;

/// Where a cell starts and how wide it is.
const fn cell(index: usize) -> [f64; 2] {
    let octave = (2 << (index / 4)) as f64;
    let scale = SCALE as f64;
    let start = octave + octave / 4.0 * (index % 4) as f64 - START as f64;
    [start / scale, octave / 4.0 / scale]
}

/// Functions of the same `z` and of the same rate, and the places from which they count, in tables of
/// which none crosses a line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Fitted<const N: usize> {
    rate: f32,
    /// From where `t` counts, in the cells of `z <= 0` and then in those of `z > 0`.
    centers: Table,
    functions: [Polynomials; N],
}

/// A number for each cell.
type Table = [f32; 2 * CELLS];

/// Those of one `g`.
#[derive(Clone, Copy, Debug)]
struct Polynomials {
    /// `c`.
    factors: Table,
    /// Coefficients of t, t^2 .. in `q`.
    slopes: [Table; DEGREE],
}

/// `g` on one side of 0, as a function of `|z|`.
pub(crate) type Side<'a> = &'a dyn Fn(f64) -> f64;

/// A place at which functions are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Place<S: Isa> {
    index: S::u32s,
    t: S::f32s,
    /// `s` and `p`.
    exp: [S::f32s; 2],
}

impl<const N: usize> Fitted<N> {
    /// Fits functions by `g(-a)` and `g(a)`, at Chebyshev's points; `None` where one is further from it
    /// than its bar, relatively.
    pub(crate) fn new(rate: f64, functions: [(f64, [Side<'_>; 2]); N]) -> Option<Self> {
        let short = rate as f32;
        // What the rate's rounding took is not much of an exponential: g has room for it.
        let left = rate - f64::from(short);
        let none = Polynomials { factors: [0.0; 2 * CELLS], slopes: [[0.0; 2 * CELLS]; DEGREE] };
        let centers = [0.0; 2 * CELLS];
        let mut fitted = Self { rate: short, centers, functions: [none; N] };
        for at in 0..2 * CELLS {
            let [start, width] = cell(at % CELLS);
            let side = at / CELLS;
            let g = |sides: [Side<'_>; 2], a: f64| {
                sides[side](a) * if side == 1 { (-left * a).exp() } else { 1.0 }
            };
            let lost = |center: &f32| {
                let c = g(functions[0].1, f64::from(*center));
                (c / f64::from(c as f32) - 1.0).abs()
            };
            let tried = (0..TRIES).map(|i| {
                let part = f64::from(i) / f64::from(TRIES);
                (start + width * (0.45 + 0.1 * part)) as f32
            });
            let center = tried.min_by(|a, b| lost(a).total_cmp(&lost(b)))?;
            fitted.centers[at] = center;
            let place = |angle: f64| start + width / 2.0 * (1.0 + angle.cos()) - f64::from(center);
            for (to, (bar, sides)) in fitted.functions.iter_mut().zip(functions) {
                let factor = g(sides, f64::from(center)) as f32;
                let q = |t: f64| g(sides, f64::from(center) + t) / f64::from(factor) - 1.0;
                let points: [f64; DEGREE + 1] =
                    std::array::from_fn(|i| place((i as f64 + 0.5) / (DEGREE + 1) as f64 * PI));
                // What is constant is as good as 0, at the center that it was.
                let [_, slopes @ ..] = interpolate(points, q).map(|c| c as f32);
                let value = |t: f64| slopes.iter().rev().fold(0.0, |v, &c| (v + f64::from(c)) * t);
                // Between the points, where the distance is largest.
                let mut between =
                    (0..=DEGREE + 1).map(|i| place(i as f64 / (DEGREE + 1) as f64 * PI));
                // Where g is flat no center is good, but there the bar's room is not needed.
                let bar = bar + lost(&center);
                let fits = between.all(|t| (value(t) - q(t)).abs() <= bar * (1.0 + q(t)));
                if !(fits && factor.is_normal()) {
                    return None;
                }
                to.factors[at] = factor;
                for (all, c) in to.slopes.iter_mut().zip(slopes) {
                    all[at] = c;
                }
            }
        }
        Some(fitted)
    }

    /// Where `|z|` is, and which side. It must be below [`REACH`], and `exp(-k |z|)` normal: elsewhere
    /// functions have any number.
    #[inline(always)]
    pub(crate) fn place<S: Isa>(
        &self,
        simd: S,
        distance: S::f32s,
        is_positive: Mask32<S>,
    ) -> Place<S> {
        let c = |v: f32| splat::<S, f32>(simd, v);
        let index = distance.mul_add(c(SCALE), c(START)).bitcast::<S::u32s>() >> 21;
        let index = is_positive.select(index + CELLS as u32, index);
        let t = distance - simd.look_up(&self.centers, index);
        Place { index, t, exp: decay_normal(simd, distance, self.rate, is_positive) }
    }

    /// A function times a factor, to little more than a rounding and the distance of the fit. The factor
    /// may be by a small part of itself larger than told.
    #[inline(always)]
    pub(crate) fn at<S: Isa>(
        &self,
        simd: S,
        function: usize,
        place: &Place<S>,
        factor: S::f32s,
        more: Option<S::f32s>,
    ) -> S::f32s {
        let Place { index, t, exp: [s, p] } = *place;
        let Polynomials { factors, slopes } = &self.functions[function];
        let mut slope = simd.look_up(&slopes[DEGREE - 1], index);
        for c in slopes[..DEGREE - 1].iter().rev() {
            slope = slope.mul_add(t, simd.look_up(c, index));
        }
        let small = match more {
            Some(more) => p + more,
            None => p,
        };
        // p + q + p q, of which q, the largest, is not rounded by itself.
        let excess = slope.mul_add(t.mul_add(p, t), small);
        let of_cell = simd.look_up(factors, index);
        let product = s * of_cell;
        let lost = s.mul_add(of_cell, -product) * factor;
        product.mul_add(factor, (product * factor).mul_add(excess, lost))
    }
}

/// Coefficients of the polynomial through points, by Newton's divided differences.
fn interpolate<const N: usize>(points: [f64; N], f: impl Fn(f64) -> f64) -> [f64; N] {
    let mut differences = points.map(f);
    for order in 1..N {
        for i in (order..N).rev() {
            differences[i] =
                (differences[i] - differences[i - 1]) / (points[i] - points[i - order]);
        }
    }
    // Horner's rule: times t - point, plus the next difference.
    let mut poly = [0.0; N];
    for i in (0..N).rev() {
        for j in (1..N).rev() {
            poly[j] = poly[j - 1] - points[i] * poly[j];
        }
        poly[0] = differences[i] - points[i] * poly[0];
    }
    poly
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level, dispatch};

    /// `log(1 + exp(-z))` and `sigmoid(-z)`, times a factor that is no float.
    const FACTOR: f64 = 0.3;

    fn logistic() -> Fitted<2> {
        let log = |a: f64| (-a).exp().ln_1p();
        let sides = [
            [&(|a| a + log(a)) as Side<'_>, &|a: f64| log(a) * a.exp()],
            [&|a: f64| 1.0 / (1.0 + (-a).exp()), &|a: f64| 1.0 / (1.0 + (-a).exp())],
        ];
        let [log, sigmoid] = sides;
        Fitted::new(1.0, [(3e-8, log), (1e-7, sigmoid)]).unwrap()
    }

    fn all(level: Level, fitted: &Fitted<2>, z: &[f32]) -> Vec<[f32; 2]> {
        #[inline(never)]
        fn kernel<S: Isa>(simd: S, fitted: &Fitted<2>, z: &[f32]) -> Vec<[f32; 2]> {
            simd.vectorize(
                #[inline(always)]
                || {
                    let c = |v: f32| splat::<S, f32>(simd, v);
                    let factor = FACTOR as f32;
                    let more = (FACTOR / f64::from(factor) - 1.0) as f32;
                    let mut all = Vec::with_capacity(z.len());
                    for z in z.chunks_exact(S::f32s::LEN) {
                        let z = simd::load::<S, f32>(simd, z);
                        let place = fitted.place(simd, z.abs(), z.simd_gt(c(0.0)));
                        let [f, g] =
                            [0, 1].map(|i| fitted.at(simd, i, &place, c(factor), Some(c(more))));
                        all.extend((0..S::f32s::LEN).map(|i| [f[i], g[i]]));
                    }
                    all
                },
            )
        }
        dispatch!(level, s => kernel(s, fitted, z))
    }

    #[test]
    fn close_to_the_functions() {
        let fitted = logistic();
        let z: Vec<f32> = (0..REACH.to_bits())
            .step_by(4099)
            .map(f32::from_bits)
            .chain((0..100_000).map(|i| i as f32 * (REACH / 100_000.0)))
            .flat_map(|z| [z, -z])
            .chain([0.0; 15])
            .collect();
        for name in ["avx512", "avx2"] {
            let level = Level::at_most(name).unwrap();
            for (&z, got) in z.iter().zip(all(level, &fitted, &z)) {
                let e = (-f64::from(z.abs())).exp();
                let log = e.ln_1p() + f64::from((-z).max(0.0));
                let sigmoid = if z > 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
                for ((got, want), bar) in got.into_iter().zip([log, sigmoid]).zip([1.5, 2.5]) {
                    let error = simd::ulp32(got, FACTOR * want);
                    assert!(error < bar, "{name}: {error} ulp at {z:e}");
                }
            }
        }
    }

    #[test]
    fn what_no_polynomial_follows_is_not_fitted() {
        let wild = |a: f64| 2.0 + (9.0 * a).sin();
        let gone = |a: f64| (-40.0 * a).exp();
        assert!(Fitted::new(1.0, [(3e-8, [&|_| 1.0, &wild])]).is_none());
        assert!(Fitted::new(1.0, [(3e-8, [&gone, &|_| 1.0])]).is_none());
        assert!(Fitted::new(f64::INFINITY, [(3e-8, [&|_| 1.0, &|_| 1.0])]).is_none());
        assert!(Fitted::new(1.0, [(3e-8, [&|_| 1.0, &|_| f64::NAN])]).is_none());
    }

    #[test]
    fn interpolation_is_exact_for_polynomials() {
        let points = [-1.0, -0.5, 0.0, 0.25, 1.0];
        let got = interpolate(points, |t| 3.0 + t * (-2.0 + t * (0.5 + t * t)));
        for (got, want) in got.into_iter().zip([3.0, -2.0, 0.5, 0.0, 1.0]) {
            assert!((got - want).abs() < 1e-14, "{got} {want}");
        }
    }
}
