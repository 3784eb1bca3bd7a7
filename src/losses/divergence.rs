//! What divergences between the softmaxes of logits take and give.

use super::common::Outputs;
use super::elements::Elements;
use super::unit::Unit;
use crate::error::Result;
use crate::float::Kind;
use crate::rows::pairs::{Divergence, Job};
use crate::view::{Order, Rows, RowsMut, View};
use crate::warp::Warp;

/// Computes a divergence over an axis, and the gradients that `outputs` asks for. Returns the sum.
///
/// # Errors
/// Where shapes, the base or the warp do not fit, before anything is written; and where
/// `interrupted` says so.
pub(super) fn of_logits<D: Divergence>(
    inputs: &Elements<'_>,
    divergence: D,
    base: Option<f64>,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let axis = inputs.axis.expect("divergences are of rows");
    let other = inputs.target.as_ref().expect("divergences are of two arrays");
    let shape = inputs.input.shape();
    inputs.check_target()?;
    let order = Order::of(&inputs.input, Some(axis));
    let seen = |view: &View<'_>| view.format().kind == Kind::F64;
    let wide = seen(&inputs.input) || seen(other) || !warp.is_exact();
    let job = Job {
        inputs: [&inputs.input, other].map(|view| Rows::new(view.clone(), Some(axis), &order)),
        warp: warp.of_rows(shape, axis, &order)?,
        divergence,
        unit: Unit::of(base)?.nats(),
        upstream: inputs.upstream_of_rows(axis, &order)?,
        losses: outputs.losses.map(|view| RowsMut::new(view, None, &order.without(axis))),
        grads: [outputs.grad, outputs.target_grad]
            .map(|grad| grad.map(|view| RowsMut::new(view, Some(axis), &order))),
    };
    if wide { job.run::<f64>(interrupted) } else { job.run::<f32>(interrupted) }
}
