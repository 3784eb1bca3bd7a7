//! The soft margin loss: logistic regression with targets of -1 and 1.
//!
//! With the margin `z = t x`,
//!
//! ```text
//! loss = softplus(-z),   d/dx = -t sigmoid(-z),   d^2/dx^2 = t^2 sigmoid(z) sigmoid(-z)
//! ```
//!
//! What the product `t x` loses to its rounding would be lost times |z| in `exp(-|z|)`: it is known
//! exactly by one fused multiply-add, and put back. Of `f32` numbers it loses nothing.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;
use crate::float::Kind;
use crate::pointwise::{Jet, Narrow, Point, Pointwise};
use crate::simd::logistic::{self, Logistic};
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct SoftMargin;

impl Pointwise for SoftMargin {
    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let z = p.t * p.x;
        let short = if F::KIND == Kind::F64 {
            let lost = simd::lost(simd, p.t, p.x, z);
            lost.simd_eq(lost).select(lost, c(0.0))
        } else {
            c(0.0)
        };
        let logistic = Logistic::<S, F>::near(simd, z, short);
        let log = logistic.log(simd);
        let value = logistic.by_sign(simd, log, log - z);
        Jet {
            value,
            lost: c(0.0),
            first: -p.t * logistic.against(simd),
            second: p.t * p.t * logistic.slope(),
        }
    }

    /// Of targets 1 and -1, with which products are exact.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let z = t * x;
        let logistic = logistic::Narrow::<S>::at(simd, z);
        let value = logistic.softplus_of_minus(simd);
        let first = -t * logistic.against(simd);
        let holds = logistic.holds(simd) & t.abs().simd_eq(c(1.0));
        let small = logistic.small(simd);
        Some(Narrow { value, first, second: Some(small * (c(1.0) - small)), holds })
    }
}

/// Computes the loss, and what `outputs` asks for besides. Returns the reduced loss, or the sum of
/// the losses where they are not reduced.
///
/// # Errors
/// Where shapes do not fit, before anything is written; and where `interrupted` says so.
pub fn soft_margin_loss(
    inputs: &Elements<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.run(SoftMargin, outputs, interrupted)
}
