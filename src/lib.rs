//! `crossent`: entropy and cross-entropy with exact gradients.
//!
//! The map. Each module uses those below it, never one above; each file has one idea.
//!
//! | module | what it is |
//! |---|---|
//! | `python` | the only code that knows PyO3 and NumPy (feature `python`) |
//! | [`losses`] | one file a loss: its formula, what a row's summary becomes |
//! | `rows` | the softmax family's engine: summarise, settle, emit, along or across |
//! | `pointwise` | the sigmoid family's engine: value and derivatives of each element |
//! | [`warp`] | temperature, softcap and class mask, before either traversal |
//! | [`reduce`] | reductions, the census of targets, denominators |
//! | [`pool`] | the one entrance to threads |
//! | [`simd`] | vector mathematics, written once for every instruction set |
//! | [`view`] | strided buffers seen as rows of classes: the only pointer arithmetic |
//! | `memory` | allocations that may fail |
//! | [`float`] | storage types, and the type that each computes in |
//! | [`error`] | everything that can go wrong |
//!
//! Start at [`losses::cross_entropy`], then `rows.rs`. `docs/architecture.md` follows one call from
//! Python to the kernel and back, `docs/numerics.md` derives the arithmetic.
pub mod error;
pub mod float;
pub mod losses;
mod memory;
mod pointwise;
pub mod pool;
#[cfg(feature = "python")]
mod python;
pub mod reduce;
mod rows;
pub mod simd;
pub mod view;
pub mod warp;
