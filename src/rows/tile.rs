//! Tiles: blocks of rows copied so that lanes are rows. A tile holds a class after the other,
//! [`step`] rows each, of which the last are padding.

use crate::rows::scratch::Buffer;
use crate::rows::summary::ROWS;
use crate::simd::{self, Element, Isa, V, dispatch, splat};
use crate::view::{Lines, LinesMut, Rows, Span};
use fearless_simd::prelude::*;
use std::ops::Range;

/// Rows a class takes in a tile: whole vectors at every level, and an odd number of cache lines so
/// that the classes of a row do not meet in one set of the cache.
pub(super) fn step(rows: usize) -> usize {
    (rows.div_ceil(ROWS) | 1) * ROWS
}

/// Copies a block to a tile. Neighbouring classes are worth a copy of their own, but also
/// neighbouring rows: classes that lie a power of two apart share a set of the cache, and read one
/// class after the other they need no more than two lines of it.
pub(super) fn stage<F: Element>(
    from: &Rows<'_>,
    rows: Range<usize>,
    block: Range<usize>,
    tile: &mut Buffer<F>,
) {
    let (n, classes) = (rows.len(), block.len());
    let step = step(n);
    let tile = tile.fit(step * classes);
    if from.lends_block::<F>(&rows) && classes > 1 {
        let lines = from.lines_of_classes(rows, block);
        let done = lines.dense().is_some_and(|from| few::split(from, classes, step, tile));
        if !done {
            transpose::<false, F>(&lines, &mut LinesMut::of(tile, n, classes, step));
        }
    } else if from.lends_columns::<F>(&rows) {
        copy(&from.lines_of_rows(rows, block), step, tile);
    } else {
        from.stage(rows, block, 1, step, tile);
    }
}

/// Copies a tile back to a block of an output.
pub(super) fn write<F: Element>(
    tile: &[F],
    span: &mut Span<'_>,
    output: usize,
    rows: Range<usize>,
    block: Range<usize>,
) {
    let (n, classes) = (rows.len(), block.len());
    let step = step(n);
    if span.layout(output).lends_block::<F>(&rows) {
        let mut lines = span.lines_of_classes_mut(output, rows, block);
        let done = lines.dense().is_some_and(|to| few::join(tile, classes, step, to));
        if !done {
            transpose::<true, F>(&Lines::of(tile, n, classes, step), &mut lines);
        }
    } else {
        span.write(output, rows, block, 1, step, tile);
    }
}

/// Copies lines one after the other, asking for the next while one is read.
fn copy<F: Element>(from: &Lines<'_, F>, step: usize, tile: &mut [F]) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(simd: S, from: &Lines<'_, F>, step: usize, tile: &mut [F]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                for (i, to) in tile.chunks_mut(step).take(from.count()).enumerate() {
                    let line = from.line(i);
                    let (next, ahead) = from.ahead(i);
                    let mut at = 0;
                    while at + n <= line.len() {
                        simd.prefetch(&next[at..], ahead);
                        simd::store::<S, F>(simd::load(simd, &line[at..]), &mut to[at..]);
                        at += n;
                    }
                    to[at..line.len()].copy_from_slice(&line[at..]);
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel(s, from, step, tile));
}

/// Very few classes, whose number is known when a loop is compiled: a square of vectors would be
/// mostly empty.
mod few {
    use super::ROWS;
    use crate::simd::{self, Element, Isa, dispatch};

    fn split_into<const C: usize, F: Element>(from: &[F], step: usize, tile: &mut [F]) {
        #[inline(never)]
        fn kernel<const C: usize, S: Isa, F: Element>(
            simd: S,
            from: &[F],
            step: usize,
            tile: &mut [F],
        ) {
            let mut lines = tile.chunks_mut(step);
            let mut lines: [_; C] = std::array::from_fn(|_| {
                lines.next().expect("a line a class").as_chunks_mut::<ROWS>().0.iter_mut()
            });
            simd.vectorize(
                #[inline(always)]
                || {
                    let (groups, last) = from.as_chunks::<C>().0.as_chunks::<ROWS>();
                    for rows in groups {
                        // The next tile, most likely.
                        simd::prefetch_all(simd, rows.as_flattened(), from.len());
                        for (c, line) in lines.iter_mut().enumerate() {
                            let line = line.next().expect("a group of each class");
                            for (x, row) in line.iter_mut().zip(rows) {
                                *x = row[c];
                            }
                        }
                    }
                    if last.is_empty() {
                        return;
                    }
                    for (c, line) in lines.iter_mut().enumerate() {
                        let line = line.next().expect("a group of each class");
                        for (x, row) in line.iter_mut().zip(last) {
                            *x = row[c];
                        }
                    }
                },
            );
        }
        dispatch!(simd::level(), s => kernel::<C, _, F>(s, from, step, tile));
    }

    fn join_from<const C: usize, F: Element>(tile: &[F], step: usize, to: &mut [F]) {
        let mut lines = tile.chunks(step);
        let mut lines: [_; C] = std::array::from_fn(|_| {
            lines.next().expect("a line a class").as_chunks::<ROWS>().0.iter()
        });
        simd::vectorized(
            #[inline(always)]
            || {
                let (groups, last) = to.as_chunks_mut::<C>().0.as_chunks_mut::<ROWS>();
                for rows in groups {
                    for (c, line) in lines.iter_mut().enumerate() {
                        let line = line.next().expect("a group of each class");
                        for (x, row) in line.iter().zip(rows.iter_mut()) {
                            row[c] = *x;
                        }
                    }
                }
                if last.is_empty() {
                    return;
                }
                for (c, line) in lines.iter_mut().enumerate() {
                    let line = line.next().expect("a group of each class");
                    for (x, row) in line.iter().zip(last.iter_mut()) {
                        row[c] = *x;
                    }
                }
            },
        );
    }

    /// Rows of classes to a tile, where there are so few; whether there are.
    pub(super) fn split<F: Element>(
        from: &[F],
        classes: usize,
        step: usize,
        tile: &mut [F],
    ) -> bool {
        match classes {
            2 => split_into::<2, F>(from, step, tile),
            3 => split_into::<3, F>(from, step, tile),
            4 => split_into::<4, F>(from, step, tile),
            5 => split_into::<5, F>(from, step, tile),
            _ => return false,
        }
        true
    }

    /// A tile to rows of classes, where there are so few; whether there are.
    pub(super) fn join<F: Element>(tile: &[F], classes: usize, step: usize, to: &mut [F]) -> bool {
        match classes {
            2 => join_from::<2, F>(tile, step, to),
            3 => join_from::<3, F>(tile, step, to),
            4 => join_from::<4, F>(tile, step, to),
            5 => join_from::<5, F>(tile, step, to),
            _ => return false,
        }
        true
    }
}

/// `to.line(j)[i] = from.line(i)[j]`, for every element of `from`. The other side than a tile is walked
/// along, line after line, and asked for ahead: to the next tile, most likely, where it is read, and to
/// the next lines where it is written.
fn transpose<const WRITES: bool, F: Element>(from: &Lines<'_, F>, to: &mut LinesMut<'_, F>) {
    #[inline(never)]
    fn kernel<const WRITES: bool, S: Isa, F: Element>(
        simd: S,
        from: &Lines<'_, F>,
        to: &mut LinesMut<'_, F>,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let zero = splat::<S, F>(simd, F::of(0.0));
                let (count, width) = (from.count(), from.width());
                let ahead = if WRITES {
                    n * to.step().unsigned_abs()
                } else {
                    count * from.step().unsigned_abs()
                };
                let (outer, inner) = if WRITES { (width, count) } else { (count, width) };
                for a in (0..outer).step_by(n) {
                    for b in (0..inner).step_by(n) {
                        let (i, j) = if WRITES { (b, a) } else { (a, b) };
                        let (high, wide) = (n.min(count - i), n.min(width - j));
                        let mut square = [zero; 16];
                        for (k, v) in square.iter_mut().enumerate().take(high) {
                            let line = &from.line(i + k)[j..j + wide];
                            if !WRITES {
                                simd.prefetch(line, ahead);
                            }
                            *v = if wide == n {
                                simd::load(simd, line)
                            } else {
                                F::load_partial(simd, line, F::of(0.0))
                            };
                        }
                        let square = turned::<S, F>(square);
                        // Not by value: copies of the square would wait for what was just stored.
                        for (k, v) in square.iter().enumerate().take(wide) {
                            let line = &mut to.line(j + k)[i..i + high];
                            if WRITES {
                                simd.prefetch(line, ahead);
                            }
                            if high == n {
                                simd::store::<S, F>(*v, line);
                            } else {
                                F::store_partial(simd, *v, line);
                            }
                        }
                    }
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel::<WRITES, _, F>(s, from, to));
}

/// The transpose of the first n of n vectors of n lanes. Zipping each vector with the one half the
/// square away moves one bit of an element's row number into its column number; log2 n rounds move
/// them all.
#[inline(always)]
pub(super) fn turned<S: Isa, F: Element>(mut square: [V<F, S>; 16]) -> [V<F, S>; 16] {
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
            for transpose in [transpose::<false, f32>, transpose::<true, f32>] {
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
}
