//! The focal loss of logits (Lin et al. 2017): binary cross-entropy that counts what is already
//! decided for less.
//!
//! With the cross-entropy `c`, the probability `m` of being wrong and the balance `b`,
//!
//! ```text
//! m    = t sigmoid(-x) + (1 - t) sigmoid(x),   b = alpha t + (1 - alpha) (1 - t)
//! loss = b m^g c
//! d/dx = b m^g (c' + g r c),                           r = m' / m
//! d^2  = b m^g (c'' + 2 g r c' + g (r' + g r^2) c)
//! ```
//!
//! The powers are taken through logarithms: of a sure target `log m` is minus a softplus, without
//! rounding `m` to 0, and `r` is minus the sigmoid or the sigmoid of `-x`, so that a gradient has no
//! power below `m^g` and stays finite where `m` vanishes, also for `g < 1`. (Of `f32`, small whole
//! powers are products.) Of other targets, with `e = exp(-|x|)`,
//!
//! ```text
//! -log m = log(1 + e) - log n,    n = (1 - t) + t e  where x > 0,  t + (1 - t) e  elsewhere
//! ```
//!
//! where neither term is negative. The relative error of a power is `g` times the error of the
//! logarithm: for `f64`, what goes into the loss is held in two parts.
//!
//! Of `f32`, and a sure target, all is a function of one number, `z = x` or `-x`, that is positive
//! where the answer is right, and is fitted (`simd/fitted.rs`): with `e = exp(-|z|)` and
//! `l = log(1 + e)`,
//!
//! ```text
//! loss / b = exp(-(g + 1) z) exp(-g l) (l / e)              where z > 0,   exp(-g l) (|z| + l)
//! -d/dz    = exp(-(g + 1) z) exp(-(g + 1) l) (1 + g l / e)  where z > 0,   exp(-(g + 1) l) (1 + g e (|z| + l))
//! ```

use super::binary_cross_entropy_with_logits::WithLogits;
use super::common::Outputs;
use super::elements::Elements;
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::pointwise::{Jet, Narrow, Point, Pointwise};
use crate::simd::exp::{Constants, NORMAL, Shift};
use crate::simd::fitted::{Factor, Fitted, Side};
use crate::simd::log1p::log_of_two;
use crate::simd::logistic::Logistic;
use crate::simd::two::Two;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;

/// The options of the focal loss.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The balance of a positive target, in [0, 1]; below 0, no balance.
    pub alpha: f64,
    /// The power of the probability of being wrong, at least 0.
    pub gamma: f64,
}

/// The loss with its options.
#[derive(Clone, Copy, Debug)]
struct Focal {
    /// `alpha` and `1 - alpha`, and what the rounding of this took.
    balance: Option<(f64, [f64; 2])>,
    gamma: f64,
    /// How many factors `m` a power has, where multiplying them is quicker than an exponential.
    factors: Option<u32>,
    /// Loss and derivative of a sure target, but for the balance.
    fits: Option<Fits>,
}

/// Loss and derivative in `f32` lanes, of options.
#[derive(Clone, Copy, Debug)]
struct Fits {
    /// As functions of `z`, of negative targets. By value: a kernel keeps them in registers only where no
    /// output can be their memory.
    both: Fitted<2>,
    /// What those of positive targets are more.
    positive: Factor,
    /// Up to which distance from 0 they are good.
    reach: f32,
}

/// The largest power that is fitted: the steeper a function, the more its polynomials round.
const STEEP: f64 = 3.0;

impl Fits {
    /// Of a power, and of the balances of positive and negative targets; `None` where the power is too
    /// large, or targets of a kind count nothing.
    fn new(exp: &Constants<f32>, gamma: f64, balance: [f64; 2]) -> Option<Self> {
        /// How far they may be from their functions, relatively.
        const BARS: [f64; 2] = [3e-8, 1.2e-7];
        let [positive, negative] = balance;
        if positive == 0.0 || negative == 0.0 {
            return None;
        }
        // Of |z|: exp(-|z|), log(1 + exp(-|z|)), and the powers of 1 / (1 + exp(-|z|)).
        let parts = |a: f64| {
            let e = (-a).exp();
            let log = e.ln_1p();
            (e, log, [gamma, gamma + 1.0].map(|power| negative * (-power * log).exp()))
        };
        let wrong = |a: f64| {
            let (_, log, [power, _]) = parts(a);
            power * (a + log)
        };
        let right = |a: f64| {
            let (e, log, [power, _]) = parts(a);
            power * (log / e)
        };
        let wrong_slope = |a: f64| {
            let (e, log, [_, power]) = parts(a);
            power * (1.0 + gamma * e * (a + log))
        };
        let right_slope = |a: f64| {
            let (e, log, [_, power]) = parts(a);
            power * (1.0 + gamma * (log / e))
        };
        let value = (BARS[0], [&wrong as Side<'_>, &right]);
        let slope = (BARS[1], [&wrong_slope as Side<'_>, &right_slope]);
        let both = Fitted::new(exp, gamma + 1.0, [value, slope])?;
        // What is written before the upstream gradient is taken must be a normal number.
        let least = positive.min(negative).min(1.0);
        let reach = (f64::from(NORMAL) + least.ln()) / (gamma + 1.0);
        let positive = Factor::new(exp, positive / negative);
        let reach = both.reach().min(reach as f32);
        Some(Self { both, positive, reach })
    }

    /// The same, made once for the calls of a thread.
    fn known(exp: &Constants<f32>, gamma: f64, balance: [f64; 2]) -> Option<Self> {
        /// As many options as a thread is likely to take turns with.
        const KEPT: usize = 8;
        type Known = VecDeque<((f64, [f64; 2]), Option<Fits>)>;
        thread_local! {
            static KNOWN: RefCell<Known> = const { RefCell::new(VecDeque::new()) };
        }
        let options = (gamma, balance);
        KNOWN.with_borrow_mut(|known| {
            if let Some((_, fits)) = known.iter().find(|(known, _)| *known == options) {
                return *fits;
            }
            let fits = Self::new(exp, gamma, balance);
            known.truncate(KEPT - 1);
            known.push_front((options, fits));
            fits
        })
    }
}

impl Focal {
    /// Of elements that are in `f32` lanes, where their exponential is given.
    fn new(Options { alpha, gamma }: Options, exp: Option<&Constants<f32>>) -> Self {
        let other = 1.0 - alpha;
        let balance = (alpha >= 0.0).then_some((alpha, [other, (1.0 - other) - alpha]));
        let count = gamma as u32;
        let factors = (f64::from(count) == gamma && (1..=5).contains(&count)).then_some(count);
        let mut focal = Self { balance, gamma, factors, fits: None };
        if let Some(exp) = exp
            && gamma <= STEEP
        {
            let weights = if balance.is_some() { [alpha, other] } else { [1.0; 2] };
            focal.fits = Fits::known(exp, gamma, weights);
        }
        focal
    }
}

impl Pointwise for Focal {
    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (zero, one, t, x) = (c(0.0), c(1.0), p.t, p.x);
        let two = |v: S::f64s| Two::<S, F>::of(simd, v);
        let entropy = WithLogits.at::<S, F>(simd, p);
        let rest = two(one).plus(two(-t));
        let balance = match self.balance {
            None => two(one),
            Some((alpha, [other, lost])) => {
                let other = Two::new([c(other), c(lost)]);
                two(c(alpha)).times(simd, two(t)).plus(other.times(simd, rest))
            }
        };
        // Nothing times what is infinite is nothing; a NaN stays one.
        let times = |factor: S::f64s, v: S::f64s| {
            (factor.simd_eq(zero) & v.simd_eq(v)).select(zero, factor * v)
        };
        if self.gamma == 0.0 {
            let balanced = |v: S::f64s| times(balance.high, v);
            return Jet {
                value: balanced(entropy.value),
                lost: zero,
                first: balanced(entropy.first),
                second: balanced(entropy.second),
            };
        }
        let logistic = Logistic::<S, F>::at(simd, x).refined(simd);
        let (up, down) = (logistic.sigmoid(simd), logistic.against(simd));
        let log = logistic.exact_log(simd);
        // n is a + b e.
        let to_x = logistic.is_positive(simd);
        let (a, b) = (Two::select(to_x, rest, two(t)), Two::select(to_x, two(t), rest));
        let n = a.plus(b.times(simd, logistic.odds()));
        let positive = t.simd_eq(one);
        let sure = positive | t.simd_eq(zero);
        let mut r = positive.select(-up, down);
        let mut r_slope = -logistic.slope();
        if !sure.all_true() {
            let tilt = (one - c(2.0) * t) * logistic.small() / n.high;
            r = sure.select(r, tilt);
            r_slope = sure.select(r_slope, tilt.mul_add(down - up, -(tilt * tilt)));
        }
        let g = c(self.gamma);
        // In a unit of 2^-64 for f64, so that what is subnormal is rounded once.
        let unit = if F::KIND == Kind::F64 { -64.0 } else { 0.0 };
        let power = if F::KIND == Kind::F32
            && let Some(count) = self.factors
        {
            let m = n.high * logistic.large();
            let mut power = m;
            for _ in 1..count {
                power *= m;
            }
            two(power)
        } else {
            // Of a sure target it is softplus(x) or softplus(-x).
            let mut minus_log = two(positive.select(x, -x).max(zero)).plus(log);
            if !sure.all_true() {
                let of_two = log.plus(log_of_two(simd, n).negated());
                minus_log = Two::select(sure, minus_log, of_two);
            }
            let y = two(-g).times(simd, minus_log);
            let shift = Shift::<S, f64>::new(simd, zero, c(unit));
            let [power, low] = shift.exp_in_two(simd, F::wide_exp_constants::<S>(), y.high);
            Two::new([power, power.mul_add(y.low(simd), low)])
        };
        let factor = balance.times(simd, power);
        let unit = c(unit.exp2());

        // The cross-entropy in two parts. No mass on an infinite logit is nothing.
        let far = a.high.simd_eq(zero).select(zero, x.abs());
        let cross_entropy = a.times(simd, two(far)).plus(log);
        let nothing = factor.high.simd_eq(zero);
        let cross_entropy = Two::select(nothing, two(zero), cross_entropy);
        // A large one in the power's unit would leave the range.
        let is_large = cross_entropy.high.simd_gt(c(1e200));
        let down_by = is_large.select(unit, one);
        let value = factor.times(simd, cross_entropy.scaled(down_by)).rounded(simd);

        let (gr, curve) = (g * r, g * g.mul_add(r * r, r_slope));
        let first = entropy.first + times(gr, entropy.value);
        let second = (c(2.0) * gr).mul_add(entropy.first, entropy.second);
        let second = second + times(curve, entropy.value);
        let scale = factor.rounded(simd) * unit;
        Jet {
            lost: zero,
            value: value * is_large.select(one, unit),
            first: times(scale, first),
            second: times(scale, second),
        }
    }

    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let fits = self.fits.as_ref().filter(|_| S::LOOKS_UP)?;
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let (positive, negative) = (t.simd_eq(c(1.0)), t.simd_eq(c(0.0)));
        let (z, distance) = (negative.select(-x, x), x.abs());
        let right = z.simd_gt(c(0.0));
        let place = fits.both.place(simd, distance, right, &fits.positive, positive);
        let slope = fits.both.at(simd, 1, &place);
        Some(Narrow {
            value: fits.both.at(simd, 0, &place),
            first: negative.select(slope, -slope),
            second: None,
            holds: distance.simd_lt(c(fits.reach)) & (positive | negative),
        })
    }
}

/// Computes the loss, and what `outputs` asks for besides. Returns the reduced loss, or the sum of
/// the losses where they are not reduced.
///
/// # Errors
/// Where options or shapes do not fit, before anything is written; and where `interrupted` says so.
pub fn sigmoid_focal_loss(
    inputs: &Elements<'_>,
    options: Options,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let Options { alpha, gamma } = options;
    if alpha > 1.0 || alpha.is_nan() {
        return Err(Error::Value(format!("alpha must be in [0, 1] or negative, got {alpha}")));
    }
    if !(gamma >= 0.0 && gamma.is_finite()) {
        return Err(Error::Value(format!("gamma must be at least 0 and finite, got {gamma}")));
    }
    if gamma == 0.0 && alpha < 0.0 {
        return inputs.run(WithLogits, outputs, interrupted);
    }
    let exp = simd::looked_up().filter(|_| inputs.input.format().kind != Kind::F64);
    inputs.run(Focal::new(options, exp), outputs, interrupted)
}
