//! The multi-label soft margin loss: binary cross-entropy with logits, averaged over the classes.
//!
//! ```text
//! loss = 1/C sum_c w_c (t_c softplus(-x_c) + (1 - t_c) softplus(x_c))
//! ```
//!
//! One loss a row: see [`super::binary_cross_entropy_with_logits`] for its terms.

use super::binary_cross_entropy_with_logits::WithLogits;
use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;

/// Computes the loss, and what `outputs` asks for besides. Returns the reduced loss, or the sum of
/// the losses where they are not reduced. `inputs.axis` is the class axis.
///
/// # Errors
/// Where shapes do not fit, before anything is written; and where `interrupted` says so.
pub fn multilabel_soft_margin_loss(
    inputs: &Elements<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.run(WithLogits, outputs, interrupted)
}
