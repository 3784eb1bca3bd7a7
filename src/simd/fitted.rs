//! A function of one number, fitted when its parameters are known.
//!
//! A loss that is a function of one number but for options, which are the same throughout a call,
//! need not be computed by its formula, whose every step rounds. With a rate `k`,
//!
//! ```text
//! f(z) = exp(-k z) g(z)  where z > 0,    g(z)  elsewhere
//! ```
//!
//! of which `g` is smooth: on each of a few cells, looked up in registers, it is a power of two but for
//! a polynomial, `2^e (1 + q)`, where `e` counts the steps of the exponential's table and `q` is small.
//! The exponential `s + s p` (see `exp`) takes `e` into its own exponent, as an integer, and
//!
//! ```text
//! f = s + s (p + q + p q)
//! ```
//!
//! rounds once of note. A factor that only some elements have is a power of two likewise, but for a
//! number near 1. Cells are wide where `|z|` is large and `g` nearly straight: they are the first bits
//! of `2 + 1.5 |z|`, from a third wide to 8 thirds.

use super::{Isa, Mask32, exp, splat};
use fearless_simd::prelude::*;
use std::f64::consts::{LN_2, PI};

/// Cells to either side of 0, of which an octave has four.
const CELLS: usize = 16;
/// Of the polynomials.
const DEGREE: usize = 6;
/// What a cell's number is made of is `START + scale |z|`.
const START: f32 = 2.0;
/// Scales, and the largest rate for each: a larger scale means narrower cells, in which a steep function
/// varies less and so rounds less, and a shorter reach.
const SCALES: [(f32, f64); 2] = [(1.5, 3.0), (2.0, 4.0)];

/// Where a cell starts and how wide it is.
fn cell(index: usize, scale: f32) -> [f64; 2] {
    let (octave, scale) = (f64::from(2 << (index / 4)), f64::from(scale));
    let start = octave + octave / 4.0 * (index % 4) as f64 - f64::from(START);
    [start / scale, octave / 4.0 / scale]
}

/// Functions of the same `z` and of the same rate, in tables of which none crosses a line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Fitted<const N: usize> {
    scale: f32,
    decay: Decay,
    /// From where `t` counts, in the cells of `z <= 0` and then in those of `z > 0`.
    centers: Table,
    functions: [Polynomials; N],
}

/// A number for each cell, or the bits of one.
type Table = [u32; 2 * CELLS];

/// Those of one `g`.
#[derive(Clone, Copy, Debug)]
struct Polynomials {
    /// `e`, an integer.
    steps: Table,
    /// Coefficients of 1, t, t^2 .. in `q`.
    q: [Table; DEGREE + 1],
}

/// `exp(-k z)`, of a rate that a step of the exponential's table divides into a float: what the
/// reduction takes from `z` is a multiple of it, rounded once.
#[derive(Clone, Copy, Debug)]
struct Decay {
    /// `z` that take one step.
    step: f32,
    /// Steps that a `z` takes.
    rate: f32,
    /// Coefficients of 1, z, z^2 .. in `exp(-k z) / c - 1`.
    poly: [f32; exp::MOST_TERMS],
}

impl Decay {
    /// The nearest to a rate, and its `k`.
    fn new(exp: &exp::Constants<f32>, rate: f64) -> (Self, f64) {
        let octave = LN_2 / f64::from(exp.steps);
        let step = (octave / rate) as f32;
        let k = octave / f64::from(step);
        let mut poly = [0.0; exp::MOST_TERMS];
        let mut power = 1.0;
        for (to, c) in poly.iter_mut().zip(exp.poly) {
            *to = (f64::from(*c) * power) as f32;
            power *= -k;
        }
        (Self { step, rate: step.recip(), poly }, k)
    }
}

/// A positive number, as `2^e (1 + d)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    /// `e`, an integer in steps.
    steps: u32,
    whole: f32,
    /// `d`.
    excess: f32,
}

impl Factor {
    pub(crate) fn new(exp: &exp::Constants<f32>, of: f64) -> Self {
        let (steps, whole) = in_steps(exp, of);
        Self { steps, whole: whole as f32, excess: (whole - 1.0) as f32 }
    }
}

/// The `e` of which `2^e` is nearest to a number, and by what the number is more.
fn in_steps(exp: &exp::Constants<f32>, of: f64) -> (u32, f64) {
    let table = f64::from(exp.steps);
    let steps = (of.log2() * table).round();
    (steps as i32 as u32, of / (steps / table).exp2())
}

/// `g` on one side of 0, as a function of `|z|`.
pub(crate) type Side<'a> = &'a dyn Fn(f64) -> f64;

/// A place at which functions are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Place<S: Isa> {
    index: S::u32s,
    t: S::f32s,
    /// The exponential's argument in steps, as it is taken from the table.
    steps: S::u32s,
    /// `p`.
    p: S::f32s,
}

impl<const N: usize> Fitted<N> {
    /// Fits functions by `g(-a)` and `g(a)`, at Chebyshev's points, for an exponential; `None` where one
    /// is further from it than its bar, relatively.
    pub(crate) fn new(
        exp: &exp::Constants<f32>,
        rate: f64,
        functions: [(f64, [Side<'_>; 2]); N],
    ) -> Option<Self> {
        let (scale, _) = SCALES.into_iter().find(|(_, most)| rate <= *most)?;
        let (decay, k) = Decay::new(exp, rate);
        // What the rate's rounding took is not much of an exponential: g has room for it.
        let left = rate - k;
        let none = Polynomials { steps: [0; 2 * CELLS], q: [[0; 2 * CELLS]; DEGREE + 1] };
        let mut fitted = Self { scale, decay, centers: [0; 2 * CELLS], functions: [none; N] };
        for at in 0..2 * CELLS {
            let [start, width] = cell(at % CELLS, scale);
            let side = at / CELLS;
            let center = (start + width / 2.0) as f32;
            fitted.centers[at] = center.to_bits();
            let place = |angle: f64| start + width / 2.0 * (1.0 + angle.cos()) - f64::from(center);
            for (to, (bar, sides)) in fitted.functions.iter_mut().zip(functions) {
                let g = |t: f64| {
                    let a = f64::from(center) + t;
                    sides[side](a) * if side == 1 { (-left * a).exp() } else { 1.0 }
                };
                let (steps, whole) = in_steps(exp, g(0.0));
                let unit = g(0.0) / whole;
                let q = |t: f64| g(t) / unit - 1.0;
                let points: [f64; DEGREE + 1] =
                    std::array::from_fn(|i| place((i as f64 + 0.5) / (DEGREE + 1) as f64 * PI));
                let poly = interpolate(points, q).map(|c| c as f32);
                let value = |t: f64| poly.iter().rev().fold(0.0, |v, &c| v * t + f64::from(c));
                // Between the points, where the distance is largest.
                let mut between =
                    (0..=DEGREE + 1).map(|i| place(i as f64 / (DEGREE + 1) as f64 * PI));
                let fits = between.all(|t| (value(t) - q(t)).abs() <= bar * (1.0 + q(t)));
                if !(fits && unit.is_normal()) {
                    return None;
                }
                to.steps[at] = steps;
                for (all, c) in to.q.iter_mut().zip(poly) {
                    all[at] = c.to_bits();
                }
            }
        }
        Some(fitted)
    }

    /// Up to which `|z|` there are cells.
    pub(crate) fn reach(&self) -> f32 {
        START * 15.0 / self.scale
    }

    /// Where `|z|` is, and which side, and the lanes whose functions have a factor. It must be below the
    /// reach, and the functions normal: elsewhere they have any number.
    #[inline(always)]
    pub(crate) fn place<S: Isa>(
        &self,
        simd: S,
        distance: S::f32s,
        is_positive: Mask32<S>,
        factor: &Factor,
        scaled: Mask32<S>,
    ) -> Place<S> {
        let c = |v: f32| splat::<S, f32>(simd, v);
        let index = distance.mul_add(c(self.scale), c(START)).bitcast::<S::u32s>() >> 21;
        let index = is_positive.select(index + CELLS as u32, index);
        let t = distance - simd.look_up(&self.centers, index).bitcast::<S::f32s>();
        let Decay { step, rate, poly } = &self.decay;
        let [_, zero] = exp::Shift::<S, f32>::new(simd, c(0.0), c(0.0)).parts();
        let steps = is_positive.select(distance.mul_add(c(-rate), zero), zero);
        // The product is not rounded, and hardly is the sum, which is within a step.
        let r = is_positive.select((steps - zero).mul_add(c(*step), distance), c(0.0));
        let last = exp::f32_constants::<S>().poly.len() - 1;
        let p = poly[..last].iter().rev().fold(c(poly[last]), |p, &next| p.mul_add(r, c(next)));
        let p = scaled.select(p.mul_add(c(factor.whole), c(factor.excess)), p);
        let steps = steps.bitcast::<S::u32s>();
        Place { index, t, steps: scaled.select(steps + factor.steps, steps), p }
    }

    /// A function, to little more than a rounding and the distance of the fit.
    #[inline(always)]
    pub(crate) fn at<S: Isa>(&self, simd: S, function: usize, place: &Place<S>) -> S::f32s {
        let Place { index, t, steps, p } = *place;
        let of_cell = &self.functions[function];
        let mut q = simd.look_up(&of_cell.q[DEGREE], index).bitcast::<S::f32s>();
        for c in of_cell.q[..DEGREE].iter().rev() {
            q = q.mul_add(t, simd.look_up(c, index).bitcast::<S::f32s>());
        }
        let steps = steps + simd.look_up(&of_cell.steps, index);
        let s = simd.exp2_f32(steps.bitcast());
        s.mul_add(q.mul_add(p, p + q), s)
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

    /// No power of two, and no float.
    const FACTOR: f64 = 0.3;

    fn constants(level: Level) -> &'static exp::Constants<f32> {
        fn of<S: Isa>(_: S) -> &'static exp::Constants<f32> {
            exp::f32_constants::<S>()
        }
        dispatch!(level, s => of(s))
    }

    /// `log(1 + exp(-z))` and `sigmoid(-z)`.
    fn logistic(level: Level) -> Fitted<2> {
        let log = |a: f64| (-a).exp().ln_1p();
        let sides = [
            [&(|a| a + log(a)) as Side<'_>, &|a: f64| log(a) * a.exp()],
            [&|a: f64| 1.0 / (1.0 + (-a).exp()), &|a: f64| 1.0 / (1.0 + (-a).exp())],
        ];
        let [log, sigmoid] = sides;
        Fitted::new(constants(level), 1.0, [(3e-8, log), (1e-7, sigmoid)]).unwrap()
    }

    fn all(level: Level, z: &[f32], scaled: bool) -> Vec<[f32; 2]> {
        #[inline(never)]
        fn kernel<S: Isa>(simd: S, level: Level, z: &[f32], scaled: bool) -> Vec<[f32; 2]> {
            let (fitted, factor) = (logistic(level), Factor::new(constants(level), FACTOR));
            simd.vectorize(
                #[inline(always)]
                || {
                    let c = |v: f32| splat::<S, f32>(simd, v);
                    let mut all = Vec::with_capacity(z.len());
                    let scaled = c(f32::from(u8::from(scaled))).simd_gt(c(0.0));
                    for z in z.chunks_exact(S::f32s::LEN) {
                        let z = simd::load::<S, f32>(simd, z);
                        let is_positive = z.simd_gt(c(0.0));
                        let place = fitted.place(simd, z.abs(), is_positive, &factor, scaled);
                        let [f, g] = [0, 1].map(|i| fitted.at(simd, i, &place));
                        all.extend((0..S::f32s::LEN).map(|i| [f[i], g[i]]));
                    }
                    all
                },
            )
        }
        dispatch!(level, s => kernel(s, level, z, scaled))
    }

    #[test]
    fn close_to_the_functions() {
        let reach = logistic(simd::level()).reach();
        let z: Vec<f32> = (0..reach.to_bits())
            .step_by(4099)
            .map(f32::from_bits)
            .chain((0..100_000).map(|i| i as f32 * (reach / 100_000.0)))
            .flat_map(|z| [z, -z])
            .chain([0.0; 15])
            .collect();
        for (name, scaled) in [("avx512", false), ("avx512", true), ("avx2", false), ("avx2", true)]
        {
            let level = Level::at_most(name).unwrap();
            let factor = if scaled { FACTOR } else { 1.0 };
            for (&z, got) in z.iter().zip(all(level, &z, scaled)) {
                let e = (-f64::from(z.abs())).exp();
                let log = e.ln_1p() + f64::from((-z).max(0.0));
                let sigmoid = if z > 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
                for (got, want) in got.into_iter().zip([log, sigmoid]) {
                    let error = simd::ulp32(got, factor * want);
                    assert!(error < 1.5, "{name}, {scaled}: {error} ulp at {z:e}");
                }
            }
        }
    }

    #[test]
    fn what_no_polynomial_follows_is_not_fitted() {
        let wild = |a: f64| 2.0 + (9.0 * a).sin();
        let gone = |a: f64| (-40.0 * a).exp();
        let fit = |rate: f64, sides: [Side<'_>; 2]| {
            Fitted::new(constants(simd::level()), rate, [(3e-8, sides)])
        };
        assert!(fit(1.0, [&|_| 1.0, &|_| 1.0]).is_some());
        assert!(fit(1.0, [&|_| 1.0, &wild]).is_none());
        assert!(fit(1.0, [&gone, &|_| 1.0]).is_none());
        assert!(fit(f64::INFINITY, [&|_| 1.0, &|_| 1.0]).is_none());
        assert!(fit(1.0, [&|_| 1.0, &|_| f64::NAN]).is_none());
        assert!(fit(1.0, [&|_| 0.0, &|_| 0.0]).is_none());
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
