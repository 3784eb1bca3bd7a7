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
//! power below `m^g` and stays finite where `m` vanishes, also for `g < 1`.

use super::binary_cross_entropy_with_logits::WithLogits;
use super::common::Outputs;
use super::elements::Elements;
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::pointwise::{Jet, Narrow, Point, Pointwise};
use crate::simd::exp::Shift;
use crate::simd::log1p::log_probability;
use crate::simd::logistic::Logistic;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

/// The options of the focal loss.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The balance of a positive target, in [0, 1]; below 0, no balance.
    pub alpha: f64,
    /// The power of the probability of being wrong, at least 0.
    pub gamma: f64,
}

impl Pointwise for Options {
    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let (zero, one, t, x) = (c(0.0), c(1.0), p.t, p.x);
        let entropy = WithLogits.at::<S, F>(simd, p);
        let balance = if self.alpha < 0.0 {
            one
        } else {
            c(self.alpha).mul_add(t, c(1.0 - self.alpha) * (one - t))
        };
        let balanced = |jet: Jet<S>| Jet {
            value: balance * jet.value,
            first: balance * jet.first,
            second: balance * jet.second,
        };
        if self.gamma == 0.0 {
            return balanced(entropy);
        }
        let logistic = Logistic::<S, F>::at(simd, x);
        let (positive, slope) = (t.simd_eq(one), logistic.slope());
        let (up, down) = (logistic.sigmoid(simd), logistic.against(simd));
        let log = logistic.log(simd);
        // -log m of a sure target: softplus(x) or softplus(-x), and what its rounding took.
        let far = positive.select(x, -x).max(zero);
        let softplus = far + log;
        let lost = far.simd_lt(c(f64::INFINITY)).select(log - (softplus - far), zero);
        let (mut minus_log, mut lost) = (softplus, lost);
        let mut r = positive.select(-up, down);
        let mut r_slope = -slope;
        let sure = positive | t.simd_eq(zero);
        if !sure.all_true() {
            let m = t.mul_add(down, (one - t) * up);
            let tilt = (one - c(2.0) * t) * slope / m;
            minus_log = sure.select(minus_log, -log_probability::<S, F>(simd, m, m - one));
            lost = sure.select(lost, zero);
            r = sure.select(r, tilt);
            r_slope = sure.select(r_slope, tilt.mul_add(down - up, -(tilt * tilt)));
        }
        let g = c(self.gamma);
        let y = -(g * minus_log);
        let y_lost = -(g * lost + simd::lost(simd, g, minus_log, -y));
        // In a unit of 2^-64, so that what is subnormal is rounded once.
        let unit = if F::KIND == Kind::F64 { -64.0 } else { 0.0 };
        let shift = Shift::<S, f64>::new(simd, zero, c(unit));
        let power = shift.exp_by::<false>(simd, F::wide_exp_constants::<S>(), y);
        let y_lost = y_lost.simd_eq(y_lost).select(y_lost, zero);
        let power = power.mul_add(y_lost, power) * c(unit.exp2());

        // Nothing times an infinite cross-entropy is nothing.
        let times = |factor: S::f64s, v: S::f64s| factor.simd_eq(zero).select(zero, factor * v);
        let (gr, curve) = (g * r, g * g.mul_add(r * r, r_slope));
        let first = entropy.first + times(gr, entropy.value);
        let second = (c(2.0) * gr).mul_add(entropy.first, entropy.second);
        balanced(Jet {
            value: times(power, entropy.value),
            first: power * first,
            second: power * (second + times(curve, entropy.value)),
        })
    }

    /// Of a loss without focus or balance: powers take more bits than `f32` has.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let plain = self.gamma == 0.0 && self.alpha < 0.0;
        if plain { WithLogits.narrow(simd, x, t) } else { None }
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
    inputs.run(options, outputs, interrupted)
}
