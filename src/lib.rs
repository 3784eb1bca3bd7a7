//! `crossent`: entropy and cross-entropy with exact gradients.
pub mod error;
pub mod float;
pub mod losses;
pub mod pool;
pub mod reduce;
mod rows;
pub mod simd;
pub mod view;
#[cfg(feature = "python")]
mod python;
