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
//! subtracts `k` from an integer. Where the instruction set looks numbers up in a register, `n`
//! counts eighths or sixteenths of an octave, so that a polynomial of few terms is enough (Tang's
//! table-driven exponential):
//!
//! ```text
//! exp(x) 2^-k = s + s (exp(r) / c - 1),   s = c 2^(n / steps - k),   r = x - n ln 2 / steps
//! ```
//!
//! The factor `c` makes the table exact: rounding `2^(i / steps)` to floats would err by up to half
//! an ulp, and one `c` in [1, 1.02] brings every `c 2^(i / steps)` to within a quarter of an ulp of a
//! float (Gal's accurate tables, with one free number instead of one an entry), nearest where half an
//! ulp is the most of a number: above a power of two. The polynomial absorbs it at no cost.
//!
//! The rounding to `n` adds a constant whose last bits then hold an integer (Schraudolph's trick);
//! that constant includes `bias - k`, so that the bits are the biased exponent of `s` at once, with
//! the table's index below it. Where that exponent would be below 1, the result is exactly 0.
//!
//! Beyond [`Element::REACH`] the reduction loses bits, and `x - max` is exact instead: it errs
//! only where `x < max - |max| / 2` (Sterbenz's lemma), and there the result is 0.

use super::{Element, Isa, V, splat};
use fearless_simd::prelude::*;
use std::f64::consts::{LN_2, LOG2_E};

/// What the exponential of a type needs, by the steps to an octave that [`Element::exp2`] takes.
#[derive(Debug)]
pub struct Constants<F: 'static> {
    pub(super) steps: F,
    /// log2 e and, in two parts, ln 2, in steps. The high part is short enough that its product
    /// with `n` is exact also where it is not fused; the low part may be 0.
    log2_e: F,
    ln2_high: F,
    ln2_low: F,
    /// 1.5 times 2^(bits of the mantissa): adding it rounds to an integer.
    round: F,
    /// The exponent's bias.
    bias: F,
    /// Coefficients of 1, r, r^2 .. in exp(r) / c - 1, those from r^2 on minimax on half a step to
    /// either side.
    pub(super) poly: &'static [F],
}

/// As many coefficients as a polynomial of `f32` has.
pub(super) const MOST_TERMS: usize = 7;

const fn f32_in(steps: f32, poly: &'static [f32]) -> Constants<f32> {
    Constants {
        steps,
        log2_e: std::f32::consts::LOG2_E * steps,
        ln2_high: 0.693_359_4 / steps,
        ln2_low: -2.121_944_4e-4 / steps,
        round: 12_582_912.0,
        bias: 127.0,
        poly,
    }
}

const fn f64_in(steps: f64, poly: &'static [f64]) -> Constants<f64> {
    Constants {
        steps,
        log2_e: std::f64::consts::LOG2_E * steps,
        ln2_high: 0.693_147_180_559_208_2 / steps,
        ln2_low: 7.371_002_565_167_798e-13 / steps,
        round: 6_755_399_441_055_744.0,
        bias: 1023.0,
        poly,
    }
}

/// Where the result is rounded to `f32`, ln 2 in one part is exact enough.
const fn short_in(steps: f64, poly: &'static [f64]) -> Constants<f64> {
    Constants { ln2_high: LN_2 / steps, ln2_low: 0.0, ..f64_in(steps, poly) }
}

/// Relative error of the polynomial: 2^-28.
const F32: Constants<f32> = f32_in(
    1.0,
    &[0.0, 1.0, 0.499_999_9, 0.166_665_18, 0.041_669_533, 8.368_923e-3, 1.375_138_2e-3],
);
/// 2^-29.5.
const F32_BY_8: Constants<f32> =
    f32_in(8.0, &[-0.005_087_230_4, 0.994_912_74, 0.497_456_4, 0.165_832_36, 0.041_458_655]);
/// 2^-29.
const F32_BY_16: Constants<f32> =
    f32_in(16.0, &[-0.003_283_535, 0.996_716_44, 0.498_374_4, 0.166_122_99]);

/// Relative error of the polynomial: 2^-57.7.
const F64: Constants<f64> = f64_in(
    1.0,
    &[
        0.0,
        1.0,
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
);
/// 2^-58.3.
const F64_BY_8: Constants<f64> = f64_in(
    8.0,
    &[
        -0.017_939_415_762_859_158,
        0.982_060_584_237_140_8,
        0.491_030_292_118_600_16,
        0.163_676_764_039_529_33,
        0.040_919_190_913_974_72,
        0.008_183_838_187_432_726,
        0.001_364_061_016_189_735,
        0.000_194_864_447_322_942_57,
    ],
);
/// 2^-34: enough where the result is rounded to `f32`.
const F64_SHORT: Constants<f64> = short_in(
    1.0,
    &[
        0.0,
        1.0,
        0.500_000_006_803_719_3,
        0.166_666_658_645_932_5,
        0.041_666_293_634_907_09,
        8.333_497_674_030_212e-3,
        1.394_475_855_286_261_8e-3,
        1.979_024_382_468_488_2e-4,
    ],
);
/// 2^-32.5, likewise.
const F64_SHORT_BY_8: Constants<f64> = short_in(
    8.0,
    &[
        -0.017_939_415_762_859_158,
        0.982_060_584_237_140_8,
        0.491_030_289_603_630_6,
        0.163_690_140_032_377_1,
        0.040_923_093_318_765_68,
    ],
);

/// The constants of the exponential in `f32` lanes.
#[inline(always)]
pub(crate) const fn f32_constants<S: Isa>() -> &'static Constants<f32> {
    match S::STEPS_F32 {
        16 => &F32_BY_16,
        8 => &F32_BY_8,
        _ => &F32,
    }
}

/// Those in `f64` lanes; of an exponential `short` of full precision, where it is rounded to `f32`.
#[inline(always)]
pub(super) const fn f64_constants<S: Isa>(short: bool) -> &'static Constants<f64> {
    match (S::STEPS_F64, short) {
        (8, false) => &F64_BY_8,
        (8, true) => &F64_SHORT_BY_8,
        (_, false) => &F64,
        (_, true) => &F64_SHORT,
    }
}

/// `c 2^(i / 16)` with c = 1.00329435195177794.
pub(super) const SIXTEENTHS: [f32; 16] = [
    1.003_294_3,
    1.047_714,
    1.094_100_2,
    1.142_540_2,
    1.193_124_8,
    1.245_948_9,
    1.301_111_8,
    1.358_717,
    1.418_872_5,
    1.481_691_4,
    1.547_291_4,
    1.615_795_9,
    1.687_333_2,
    1.762_037_9,
    1.840_05,
    1.921_516,
];
/// `c 2^(i / 8)` with c = 1.00511324247568846.
pub(super) const EIGHTHS: [f32; 8] = [
    1.005_113_2,
    1.096_083_8,
    1.195_287_8,
    1.303_470_6,
    1.421_444_8,
    1.550_096_5,
    1.690_392_3,
    1.843_385_8,
];

/// What [`Isa::exp2_f32`] looks up: the bits of `c 2^(i / STEPS)` without the exponent of 1, less
/// those of `i` that end up in the mantissa.
pub(super) const fn table_f32<const STEPS: usize>(powers: &[f32; STEPS]) -> [u32; STEPS] {
    let shift = 23 - STEPS.ilog2();
    let mut table = [0; STEPS];
    let mut i = 0;
    while i < STEPS {
        table[i] = (powers[i].to_bits() - 1f32.to_bits()).wrapping_sub((i as u32) << shift);
        i += 1;
    }
    table
}

/// The same of [`Isa::exp2_f64`], in eighths, with c = 1.0182671171726074277.
pub(super) const fn table_f64() -> [u64; 8] {
    const EIGHTHS: [f64; 8] = [
        1.018_267_117_172_607_4,
        1.110_428_165_195_488_4,
        1.210_930_500_714_974_2,
        1.320_529_074_749_891_7,
        1.440_047_167_224_055,
        1.570_382_571_260_531_3,
        1.712_514_337_202_359_5,
        1.867_510_127_019_291_5,
    ];
    let mut table = [0; 8];
    let mut i = 0;
    while i < 8 {
        let power = EIGHTHS[i].to_bits();
        table[i] = (power - 1f64.to_bits()).wrapping_sub((i as u64) << 49);
        i += 1;
    }
    table
}

/// Where rows are shifted to before the exponential: [`Shift::exp`] is `exp(x - center) 2^-k`, for
/// arguments up to `(bias + k) ln 2`, which nothing checks.
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
        let beyond = max.abs().simd_gt(splat::<S, F>(simd, F::REACH));
        let center = beyond.select(max, zero);
        let near = beyond.select(zero, max);
        let round = splat::<S, F>(simd, F::exp_constants::<S>().round);
        let log2_e = splat::<S, F>(simd, F::of(LOG2_E));
        let k = (near.mul_add(log2_e, round) - round) - headroom;
        (Self::new(simd, center, k), k)
    }

    /// The shift with a given center and `k`.
    #[inline(always)]
    pub(crate) fn new(simd: S, center: V<F, S>, k: V<F, S>) -> Self {
        let c = F::exp_constants::<S>();
        let lowest = k - splat::<S, F>(simd, c.bias);
        Self {
            center,
            floor: (lowest + splat::<S, F>(simd, F::of(1.0))) * splat::<S, F>(simd, F::of(LN_2)),
            round: splat::<S, F>(simd, c.round) - lowest * splat::<S, F>(simd, c.steps),
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

    /// `exp(x - center) 2^-k`, to 1.1 ulp with fused arithmetic; NaN stays NaN.
    #[inline(always)]
    pub(crate) fn exp<const CENTERED: bool>(&self, simd: S, x: V<F, S>) -> V<F, S> {
        self.exp_by::<CENTERED>(simd, F::exp_constants::<S>(), x)
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
        let [s, p] = self.factors(simd, c, x);
        F::unless_below::<S>(simd, s.mul_add(p, s), x, self.floor)
    }

    /// The exponential and what its last rounding took from it, without a center.
    #[inline(always)]
    pub(crate) fn exp_in_two(&self, simd: S, c: &Constants<F>, x: V<F, S>) -> [V<F, S>; 2] {
        let [s, p] = self.factors(simd, c, x);
        let e = s.mul_add(p, s);
        // The difference is exact, as s and e are within a factor of 2 (Sterbenz's lemma).
        [e, s.mul_add(p, s - e)].map(|v| F::unless_below::<S>(simd, v, x, self.floor))
    }

    /// `s` and `p` of the exponential `s + s p`.
    #[inline(always)]
    fn factors(&self, simd: S, c: &Constants<F>, x: V<F, S>) -> [V<F, S>; 2] {
        let t = x.mul_add(splat::<S, F>(simd, c.log2_e), self.round);
        let n = t - self.round;
        let r = n.mul_add(splat::<S, F>(simd, F::of(-c.ln2_high.wide())), x);
        let r = if c.ln2_low == F::of(0.0) {
            r
        } else {
            n.mul_add(splat::<S, F>(simd, F::of(-c.ln2_low.wide())), r)
        };
        [F::exp2::<S>(simd, t), less_one(simd, c, r)]
    }
}

/// `exp(r) / c - 1` of what the reduction left.
#[inline(always)]
fn less_one<S: Isa, F: Element>(simd: S, c: &Constants<F>, r: V<F, S>) -> V<F, S> {
    let mut i = c.poly.len() - 1;
    let mut p = splat::<S, F>(simd, c.poly[i]);
    // Not by a fold, which is a call where the caller is large.
    while i > 2 {
        i -= 1;
        p = p.mul_add(r, splat::<S, F>(simd, c.poly[i]));
    }
    let constant = |i: usize| splat::<S, F>(simd, c.poly[i]);
    if c.poly[0] == F::of(0.0) {
        // One rounding of r less than Horner's, where r is large.
        p.mul_add(r * r, r)
    } else {
        p.mul_add(r, constant(1)).mul_add(r, constant(0))
    }
}

/// Below it in magnitude, [`exp_normal`] is a normal number, and so is what few factors make of it.
pub(crate) const NORMAL: f32 = 80.0;

/// `exp(x)` in `f32` lanes, where it is a normal number, to 1.1 ulp; and what its last rounding took.
#[inline(always)]
pub(crate) fn exp_normal<S: Isa>(simd: S, x: S::f32s) -> [S::f32s; 2] {
    let zero = splat::<S, f32>(simd, 0.0);
    let shift = Shift::<S, f32>::new(simd, zero, zero);
    let [s, p] = shift.factors(simd, f32::exp_constants::<S>(), x);
    let e = s.mul_add(p, s);
    [e, s.mul_add(p, s - e)]
}

/// `exp(x)` for any `x` at all, in the precision that `F` needs, rounded once where it is subnormal.
/// [`Shift`] is for arguments that are bounded above: beyond its range it answers any number.
#[inline(always)]
pub(crate) fn exp_anywhere<S: Isa, F: Element>(simd: S, x: S::f64s) -> S::f64s {
    let c = |v: f64| splat::<S, f64>(simd, v);
    // Beyond 710 there is but infinity; a NaN is not above it.
    let x = x.simd_gt(c(720.0)).select(c(720.0), x);
    let up = x.simd_gt(c(0.0));
    let shift = Shift::<S, f64>::new(simd, c(0.0), up.select(c(64.0), c(-64.0)));
    let unit = up.select(c(2f64.powi(64)), c(2f64.powi(-64)));
    shift.exp_by::<false>(simd, F::wide_exp_constants::<S>(), x) * unit
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

    fn levels() -> Vec<Level> {
        ["avx512", "avx2", "baseline"].iter().map(|n| Level::at_most(n).unwrap()).collect()
    }

    /// The worst errors over a set of `f32` bit patterns: in ulp, and relative to the truth in
    /// units of 2^-23, which is what a loss sees.
    fn worst_f32(level: Level, bits: impl Iterator<Item = u32>) -> [(f64, f32); 2] {
        let mut worst = [(0.0, 0.0); 2];
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
                let relative = (f64::from(got) - truth).abs() / truth * 2f64.powi(23);
                for (worst, error) in worst.iter_mut().zip([simd::ulp32(got, truth), relative]) {
                    if error > worst.0 {
                        *worst = (error, x);
                    }
                }
            }
        }
        worst
    }

    /// Asserts the bars of both errors over every `step`th value in range.
    fn assert_f32(step: usize) {
        for level in levels() {
            let positive = worst_f32(level, (0..=88f32.to_bits()).step_by(step));
            let negative =
                worst_f32(level, ((-0f32).to_bits()..=(-126f32).to_bits()).step_by(step));
            for (sign, worst) in [("x > 0", positive), ("x < 0", negative)] {
                let [(ulp, at), (relative, near)] = worst;
                let name = level.name();
                println!(
                    "exp f32 {name} {sign}: {ulp:.3} ulp at {at:e}, {relative:.3} 2^-23 at {near:e}"
                );
                let bars = if name == "baseline" { [1.05, 0.73] } else { [0.80, 0.59] };
                assert!(ulp < bars[0] && relative < bars[1], "{name} {worst:?}");
            }
        }
    }

    #[test]
    fn f32_within_an_ulp() {
        assert_f32(1013);
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
                    (got - truth).abs() <= 1.1 * f64::EPSILON * truth,
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
        assert_f32(1);
    }
}
