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
        // Far apart little cancels; nor is there a product that overflows.
        let none = p.simd_eq(c(0.0));
        let [slope, slope_low] = two_sum(-u, c(-1.0));
        let [near, far] = if F::KIND == Kind::F64 {
            let low = p_low.mul_add(slope, p.mul_add(slope_low - u_low, q_low));
            let low = low.simd_eq(low).select(low, c(0.0));
            [p.mul_add(excess, p_low * excess), p.mul_add(slope, q) + low]
        } else {
            [p * excess, p.mul_add(slope, q)]
        };
        let far = none.select(q, far);
        let term = ruled_out.select(c(f64::INFINITY), close.select(near, far));
        let stiff = close.select(c(0.0), q);
        Seen { term, d, stiff, slopes: [none.select(c(0.0), -u), d[0]] }
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
