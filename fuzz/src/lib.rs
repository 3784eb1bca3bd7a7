//! Random calls of `crossent`, each compared with a slow and obvious computation in `f64`.
//!
//! Bytes become a call: shapes, strides, types, options and contents ([`draw`], [`memory`]). The call
//! is made on buffers that end with their last element, so that AddressSanitizer sees a byte too far,
//! and the answers are held against [`reference`], which has nothing of the library's code, by the
//! error bars of the documentation ([`check`]). What lies between the elements of an output must be
//! untouched, and so must everything of a call that was refused.
pub mod check;
pub mod classes;
pub mod draw;
pub mod elements;
pub mod memory;
pub mod reference;
