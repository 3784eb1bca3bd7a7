//! Logits as a model means them: capped, divided by a temperature, without the classes that a mask
//! says do not exist.
//!
//! ```text
//! z = cap tanh(x / cap) / T,     dz/dx = (1 - tanh(x / cap)^2) / T,     z = -inf where masked
//! ```
//!
//! Blocks are staged, warped in the scratch of a thread and handed to the engines, which see logits
//! like any others; their derivatives with respect to `z` become those with respect to `x` before
//! they are written. In `f64`, as `z` has bits that `x` had not; a mask alone changes no numbers.

use crate::error::{Error, Result};
use crate::simd::expm1::tanh;
use crate::simd::{self, Element, Isa, dispatch, load_wide, splat, store_wide};
use crate::view::{Order, Rows, View, show_shape};
use fearless_simd::prelude::*;
use std::ops::Range;

/// What is done to logits before anything else.
#[derive(Clone, Debug)]
pub struct Warp<'a> {
    /// What they are divided by.
    pub temperature: f64,
    /// What their magnitude is kept below.
    pub softcap: Option<f64>,
    /// 0 for classes that do not exist; broadcast to the shape of the logits.
    pub class_mask: Option<View<'a>>,
}

impl Default for Warp<'_> {
    fn default() -> Self {
        Self { temperature: 1.0, softcap: None, class_mask: None }
    }
}

impl<'a> Warp<'a> {
    /// Whether logits keep their numbers, in their own type.
    pub(crate) fn is_exact(&self) -> bool {
        self.temperature == 1.0 && self.softcap.is_none()
    }

    /// For logits of a shape, seen as rows; `None` where nothing is done to them.
    ///
    /// # Errors
    /// Where an argument is no such number, or the mask does not fit.
    pub(crate) fn of_rows(
        &self,
        shape: &[usize],
        axis: usize,
        order: &Order,
    ) -> Result<Option<Warped<'a>>> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        if !positive(self.temperature) {
            return Err(Error::Value(format!(
                "temperature must be positive and finite, got {}",
                self.temperature
            )));
        }
        if let Some(cap) = self.softcap
            && !positive(cap)
        {
            return Err(Error::Value(format!("softcap must be positive and finite, got {cap}")));
        }
        let mask = match &self.class_mask {
            None => None,
            Some(mask) => {
                let Some(all) = mask.broadcast(shape) else {
                    return Err(Error::Value(format!(
                        "class_mask must broadcast to the input's shape {}, got {}",
                        show_shape(shape),
                        show_shape(mask.shape())
                    )));
                };
                Some(Rows::new(all, Some(axis), order))
            }
        };
        let unchanged = self.is_exact() && mask.is_none();
        let (temperature, softcap) = (self.temperature, self.softcap);
        Ok((!unchanged).then_some(Warped { temperature, softcap, mask }))
    }
}

/// A [`Warp`] for logits that are seen as rows.
#[derive(Clone, Debug)]
pub(crate) struct Warped<'a> {
    temperature: f64,
    softcap: Option<f64>,
    /// Of what [`Self::apply`] and [`Self::derive`] take a block.
    pub(crate) mask: Option<Rows<'a>>,
}

/// A block of derivatives, to be made such with respect to the logits as they were given.
pub(crate) struct Derivatives<'b, F> {
    pub(crate) first: &'b mut [F],
    /// The Hessian's diagonal.
    pub(crate) second: Option<&'b mut [F]>,
}

impl Warped<'_> {
    /// Whether the Hessian needs the gradient.
    pub(crate) fn bends(&self) -> bool {
        self.softcap.is_some()
    }

    /// Warps a block, of whose mask `mask` is a copy.
    pub(crate) fn apply<F: Element>(&self, x: &mut [F], mask: Option<&[F]>) {
        #[inline(never)]
        fn kernel<S: Isa, F: Element>(
            simd: S,
            warped: &Warped<'_>,
            x: &mut [F],
            mask: Option<&[F]>,
        ) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let c = |v: f64| splat::<S, f64>(simd, v);
                    let n = S::f64s::LEN;
                    for (i, part) in x.chunks_mut(n).enumerate() {
                        let exists = existing(simd, mask, i * n..i * n + part.len());
                        let mut z = load_wide(simd, part, 0.0);
                        if let Some(cap) = warped.softcap {
                            z = c(cap) * tanh(simd, z / c(cap))[0];
                        }
                        if warped.temperature != 1.0 {
                            z /= c(warped.temperature);
                        }
                        if mask.is_some() {
                            z = exists.simd_eq(c(0.0)).select(c(f64::NEG_INFINITY), z);
                        }
                        store_wide(simd, z, part);
                    }
                },
            );
        }
        dispatch!(simd::level(), s => kernel(s, self, x, mask));
    }

    /// Turns a block of derivatives, of whose logits as they were given `x` is a copy.
    pub(crate) fn derive<F: Element>(&self, x: &[F], mask: Option<&[F]>, to: Derivatives<'_, F>) {
        #[inline(never)]
        fn kernel<S: Isa, F: Element>(
            simd: S,
            warped: &Warped<'_>,
            x: &[F],
            mask: Option<&[F]>,
            to: Derivatives<'_, F>,
        ) {
            simd.vectorize(
                #[inline(always)]
                || {
                    let c = |v: f64| splat::<S, f64>(simd, v);
                    let n = S::f64s::LEN;
                    let Derivatives { first: firsts, second: mut seconds } = to;
                    for (i, x) in x.chunks(n).enumerate() {
                        let place = i * n..i * n + x.len();
                        let exists = existing(simd, mask, place.clone());
                        let x = load_wide(simd, x, 0.0);
                        let (mut slope, mut curvature) = (c(1.0), c(0.0));
                        if let Some(cap) = warped.softcap {
                            let [height, steepness] = tanh(simd, x / c(cap));
                            slope = steepness;
                            curvature = c(-2.0) * height * steepness / c(cap);
                        }
                        if warped.temperature != 1.0 {
                            slope /= c(warped.temperature);
                            curvature /= c(warped.temperature);
                        }
                        // A class that does not exist has no derivative, whatever its target.
                        let gone = exists.simd_eq(c(0.0));
                        let first = &mut firsts[place.clone()];
                        let g = load_wide(simd, first, 0.0);
                        // Nothing stays nothing, also in rows that do not count.
                        let none = g.simd_eq(c(0.0));
                        store_wide(simd, (gone | none).select(c(0.0), g * slope), first);
                        if let Some(second) = &mut seconds {
                            let second = &mut second[place];
                            let h = load_wide(simd, second, 0.0);
                            let mut turned = h * slope * slope;
                            let mut nothing = h.simd_eq(c(0.0));
                            if warped.bends() {
                                turned += none.select(c(0.0), g * curvature);
                                nothing &= none;
                            }
                            store_wide(simd, (gone | nothing).select(c(0.0), turned), second);
                        }
                    }
                },
            );
        }
        dispatch!(simd::level(), s => kernel(s, self, x, mask, to));
    }
}

/// A vector of the mask; without one, ones.
#[inline(always)]
fn existing<S: Isa, F: Element>(simd: S, mask: Option<&[F]>, place: Range<usize>) -> S::f64s {
    load_wide(simd, mask.map_or(&[], |mask| &mask[place]), 1.0)
}
