//! `crossent`: entropy and cross-entropy with exact gradients.
pub mod error;
pub mod float;
pub mod losses;
pub mod pool;
#[cfg(feature = "python")]
mod python;
pub mod reduce;
mod rows;
pub mod simd;
pub mod view;
