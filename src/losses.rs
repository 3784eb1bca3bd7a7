//! The losses, one file each: the formula, its derivation, its tests.

pub mod binary_cross_entropy;
pub mod binary_cross_entropy_with_logits;
pub mod binary_entropy;
pub mod cross_entropy;
pub mod entropy;
pub mod entropy_with_logits;
pub mod js_divergence;
pub mod js_divergence_with_logits;
pub mod kl_div;
pub mod kl_divergence;
pub mod kl_divergence_with_logits;
pub mod multilabel_soft_margin_loss;
pub mod nll_loss;
pub mod sigmoid;
pub mod sigmoid_focal_loss;
pub mod soft_margin_loss;
pub mod softmax;
pub mod token_log_prob;

mod common;
mod divergence;
mod elements;
mod unit;

pub use common::{Inputs, Outputs};
pub use elements::Elements;

/// A loss as the Python interface names it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// In `crossent.functional`.
    pub function: &'static str,
    /// In `crossent`, where it has one.
    pub class: Option<&'static str>,
}

/// Every loss. The Python tests walk this table: each line needs a function, its class, a stub, a
/// section in docs/losses.md and a gradient test.
pub const TABLE: &[Entry] = &[
    Entry { function: "cross_entropy", class: Some("CrossEntropyLoss") },
    Entry { function: "nll_loss", class: Some("NLLLoss") },
    Entry { function: "binary_cross_entropy", class: Some("BCELoss") },
    Entry { function: "binary_cross_entropy_with_logits", class: Some("BCEWithLogitsLoss") },
    Entry { function: "multilabel_soft_margin_loss", class: Some("MultiLabelSoftMarginLoss") },
    Entry { function: "soft_margin_loss", class: Some("SoftMarginLoss") },
    Entry { function: "sigmoid_focal_loss", class: None },
    Entry { function: "kl_div", class: Some("KLDivLoss") },
    Entry { function: "entropy", class: None },
    Entry { function: "entropy_with_logits", class: None },
    Entry { function: "binary_entropy", class: None },
    Entry { function: "kl_divergence", class: None },
    Entry { function: "kl_divergence_with_logits", class: None },
    Entry { function: "js_divergence", class: None },
    Entry { function: "js_divergence_with_logits", class: None },
    Entry { function: "token_log_prob", class: None },
];
