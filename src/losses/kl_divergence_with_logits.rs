//! The Kullback-Leibler divergence between the softmaxes of logits.
//!
//! With `p = softmax(a)`, `q = softmax(b)` and `u_i = log(q_i / p_i)`,
//!
//! ```text
//! KL(p, q) = -sum_i p_i u_i = sum_i p_i (exp(u_i) - 1 - u_i)
//! d/da_i   = p_i (-u_i - KL),      d/db_i = q_i - p_i
//! ```
//!
//! as `sum_i p_i exp(u_i) = sum_i q_i = 1`: no term of the second sum is below 0, and where the
//! distributions are close none of them cancels. The gradient with respect to `a` vanishes where
//! `-u_i` meets its mean: its error there is that of the mean.

use super::common::Outputs;
use super::divergence::of_logits;
use super::elements::Elements;
use crate::error::Result;
use crate::float::Kind;
use crate::rows::pairs::{Divergence, Pair, Seen};
use crate::simd::expm1::Apart;
use crate::simd::sum::two_sum;
use crate::simd::two::product;
use crate::simd::{self, Element, Isa};
use crate::warp::Warp;
use fearless_simd::prelude::*;

struct KullbackLeibler;

impl Divergence for KullbackLeibler {
    const MEANS: bool = false;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, pair: &Pair<S>) -> Seen<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let Pair { p, q, lows: [p_low, q_low], u: [u, u_low], close, ruled_out } = *pair;
        let Apart { expm1, excess } = Apart::at::<F>(simd, [u, u_low]);
        let [by_ratio, by_ratio_low] = product(simd, [p, p_low], expm1);
        let [apart, apart_low] = two_sum(q, -p);
        let d = [
            close.select(by_ratio, apart),
            close.select(by_ratio_low, apart_low + (q_low - p_low)),
        ];
        // Far apart little cancels; nor is there a product that overflows. Neither does anything where q is
        // that much less than p that the terms of the first sum are not below 0 either.
        let near = close & u.simd_gt(c(-1.0));
        let none = p.simd_eq(c(0.0));
        let [slope, slope_low] = two_sum(-u, c(-1.0));
        let [by_excess, by_excess_low] = product(simd, [p, p_low], [excess, c(0.0)]);
        let (by_slope, by_slope_low) = if F::KIND == Kind::F64 {
            let part = p * slope;
            let [sum, sum_low] = two_sum(part, q);
            let low = p_low.mul_add(slope, p.mul_add(slope_low - u_low, q_low));
            let low = low + (sum_low + simd::lost(simd, p, slope, part));
            (sum, low.simd_eq(low).select(low, c(0.0)))
        } else {
            (p.mul_add(slope, q), c(0.0))
        };
        let by_slope = none.select(q, by_slope);
        let term = ruled_out.select(c(f64::INFINITY), near.select(by_excess, by_slope));
        let lost = ruled_out.select(c(0.0), near.select(by_excess_low, by_slope_low));
        let lost = none.select(c(0.0), lost);
        let stiff = near.select(c(0.0), q);
        Seen { term: [term, lost], d, stiff, slopes: [none.select(c(0.0), -u), d[0]] }
    }

    #[inline(always)]
    fn gradients<S: Isa>(
        &self,
        pair: &Pair<S>,
        seen: &Seen<S>,
        total: S::f64s,
        _: [S::f64s; 2],
    ) -> [S::f64s; 2] {
        [pair.p * (seen.slopes[0] - total), seen.d[0]]
    }
}

/// Computes the divergence over an axis, and the gradients that `outputs` asks for.
///
/// # Errors
/// Where shapes, the base or the warp do not fit, before anything is written; and where
/// `interrupted` says so.
pub fn kl_divergence_with_logits(
    inputs: &Elements<'_>,
    base: Option<f64>,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    of_logits(inputs, KullbackLeibler, base, warp, outputs, interrupted)
}
