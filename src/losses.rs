//! The losses, one file each: the formula, its derivation, its tests.

pub mod cross_entropy;
pub mod nll_loss;
pub mod softmax;

mod common;

#[cfg(feature = "python")]
pub(crate) use common::show_shape;
pub use common::{Inputs, Outputs};

/// A loss as the Python interface names it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// In `crossent.functional`.
    pub function: &'static str,
    /// In `crossent`.
    pub class: &'static str,
}

/// Every loss. The Python tests walk this table: each line needs a function, a class, a stub, a
/// section in docs/losses.md and a gradient test.
pub const TABLE: &[Entry] = &[
    Entry { function: "cross_entropy", class: "CrossEntropyLoss" },
    Entry { function: "nll_loss", class: "NLLLoss" },
];
