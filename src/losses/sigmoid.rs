//! The sigmoid and its logarithm.
//!
//! ```text
//! sigmoid(x) = 1 / (1 + exp(-x)),   log sigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
//! ```

use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;
use crate::pointwise::{Jet, Narrow, Point, Pointwise, wanted};
use crate::simd::logistic::{self, Logistic};
use crate::simd::{self, Element, Isa};
use crate::view::{View, ViewMut};

#[derive(Clone, Copy, Debug)]
struct Sigmoid;

impl Pointwise for Sigmoid {
    const MOST: u8 = wanted::VALUE;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let value = Logistic::<S, F>::at(simd, p.x).sigmoid(simd);
        let zero = simd::splat::<S, f64>(simd, 0.0);
        Jet { value, lost: zero, first: zero, second: zero }
    }

    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, _: S::f32s) -> Option<Narrow<S>> {
        let logistic = logistic::Narrow::<S>::at(simd, x);
        let value = logistic.sigmoid(simd);
        Some(Narrow { value, first: value, second: None, holds: logistic.holds(simd) })
    }
}

#[derive(Clone, Copy, Debug)]
struct LogSigmoid;

impl Pointwise for LogSigmoid {
    const MOST: u8 = wanted::VALUE;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let logistic = Logistic::<S, F>::at(simd, p.x);
        let log = logistic.log(simd);
        let value = logistic.by_sign(simd, -log, p.x - log);
        let zero = simd::splat::<S, f64>(simd, 0.0);
        Jet { value, lost: zero, first: zero, second: zero }
    }

    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, _: S::f32s) -> Option<Narrow<S>> {
        let logistic = logistic::Narrow::<S>::at(simd, x);
        let value = -logistic.softplus_of_minus(simd);
        Some(Narrow { value, first: value, second: None, holds: logistic.holds(simd) })
    }
}

fn run(
    map: impl Pointwise,
    input: View<'_>,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    let outputs = Outputs { losses: Some(out), ..Outputs::default() };
    Elements::of(input).run(map, outputs, interrupted)?;
    Ok(())
}

/// Writes the sigmoid to `out`, shaped as the input, of whose memory it may be.
///
/// # Errors
/// Where `interrupted` says so.
pub fn sigmoid(input: View<'_>, out: ViewMut<'_>, interrupted: &dyn Fn() -> bool) -> Result<()> {
    run(Sigmoid, input, out, interrupted)
}

/// Writes the logarithm of the sigmoid to `out`, as [`sigmoid`] does.
///
/// # Errors
/// Where `interrupted` says so.
pub fn logsigmoid(input: View<'_>, out: ViewMut<'_>, interrupted: &dyn Fn() -> bool) -> Result<()> {
    run(LogSigmoid, input, out, interrupted)
}
