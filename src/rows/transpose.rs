//! Lines turned into columns, a square of vectors at a time.

use crate::simd::{self, Element, Isa, V, dispatch, splat};
use crate::view::{Lines, LinesMut};
use fearless_simd::prelude::*;

/// `to.line(j)[i] = from.line(i)[j]`, for every element of `from`.
pub(super) fn transpose<F: Element>(from: &Lines<'_, F>, to: &mut LinesMut<'_, F>) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(simd: S, from: &Lines<'_, F>, to: &mut LinesMut<'_, F>) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let zero = splat::<S, F>(simd, F::of(0.0));
                let (count, width) = (from.count(), from.width());
                for i in (0..count).step_by(n) {
                    let high = n.min(count - i);
                    for j in (0..width).step_by(n) {
                        let wide = n.min(width - j);
                        let mut square = [zero; 16];
                        for (k, v) in square.iter_mut().enumerate().take(high) {
                            let line = &from.line(i + k)[j..j + wide];
                            *v = if wide == n {
                                simd::load(simd, line)
                            } else {
                                F::load_partial(simd, line, F::of(0.0))
                            };
                        }
                        let square = turned::<S, F>(square);
                        for (k, v) in square.into_iter().enumerate().take(wide) {
                            let line = &mut to.line(j + k)[i..i + high];
                            if high == n {
                                simd::store::<S, F>(v, line);
                            } else {
                                F::store_partial(simd, v, line);
                            }
                        }
                    }
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel(s, from, to));
}

/// The transpose of the first n of n vectors of n lanes. Zipping each vector with the one half the
/// square away moves one bit of an element's row number into its column number; log2 n rounds move
/// them all.
#[inline(always)]
fn turned<S: Isa, F: Element>(mut square: [V<F, S>; 16]) -> [V<F, S>; 16] {
    let n = simd::lanes::<S, F>();
    for _ in 0..n.trailing_zeros() {
        let last = square;
        for i in 0..n / 2 {
            square[2 * i] = last[i].zip_low(last[i + n / 2]);
            square[2 * i + 1] = last[i].zip_high(last[i + n / 2]);
        }
    }
    square
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size() {
        for (count, width) in (1..40).flat_map(|c| (1..40).map(move |w| (c, w))) {
            let from: Vec<f32> = (0..count * width).map(|i| i as f32).collect();
            let mut to = vec![-1.0; width * (count + 3)];
            transpose(
                &Lines::of(&from, width, count, width),
                &mut LinesMut::of(&mut to, count, width, count + 3),
            );
            for j in 0..width {
                for i in 0..count + 3 {
                    let want = if i < count { from[i * width + j] } else { -1.0 };
                    assert_eq!(to[j * (count + 3) + i], want, "{count} {width}: {i} {j}");
                }
            }
        }
    }
}
