//! The traversal along the classes, where they lie next to each other and are many.
//!
//! A row is taken in blocks. A block's exponentials stay in the thread's scratch until the row's
//! loss is settled; the derivatives are made from them. Rows too long for that compute them twice.

pub(super) mod kernels;

use super::emit::{Curvature, LogProbability, Map, Scaled, Spread, Tilted};
use super::mass::{Nothing, Parts, RowMass};
use super::scratch::{Buffer, Scratch};
use super::settle::{Coefficients, IGNORED, NEAR, Room, Settle};
use super::summary::{ROWS, Summary};
use super::{Emission, Shared};
use crate::simd::Element;
use crate::view::{Rows, Span};
use kernels::Sources;
use std::ops::Range;

/// Classes that are summarised at a time: a block and its exponentials fit the first-level cache.
const BLOCK: usize = 4096;
/// Bytes of exponentials kept between the passes along a row; longer rows compute them twice.
const KEPT: usize = 640 << 10;
/// Bytes of a row from which writing past the caches pays although the row shares its first and
/// last cache lines.
const STREAM_ROW: usize = 2 << 10;
/// Elements in which the maximum of a row is first guessed.
const GUESS: usize = 256;
/// Binades between units from which exponentials are made anew.
const FAR: f64 = 16.0;

/// A block of a row: the row's place in its group, the row, its classes.
#[derive(Clone, Debug)]
struct Block {
    i: usize,
    row: usize,
    classes: Range<usize>,
}

impl<F: Element, L: Settle> Shared<'_, F, L> {
    /// A group of rows, lanes along their classes.
    pub(super) fn along<P: Parts>(
        &self,
        span: &mut Span<'_>,
        rows: Range<usize>,
        s: &mut Scratch<F>,
    ) {
        let classes = self.input.classes();
        let writes = self.writes();
        let keeps = writes && rows.len() * classes * size_of::<F>() <= KEPT;
        let exponentials = match (writes, keeps) {
            (false, _) => 0,
            (true, false) => BLOCK,
            (true, true) => rows.len() * pitch(classes),
        };
        s.e.fit(exponentials);
        s.units.clear();
        let mut guess = None;
        for (i, row) in rows.clone().enumerate() {
            let total = if s.terms.target[i] == IGNORED {
                s.units.extend(blocks(classes).map(|_| Summary::IGNORED));
                Summary::IGNORED
            } else {
                self.summarise_row::<P>((i, row), (writes, keeps), &mut guess, s)
            };
            s.summaries[i / ROWS].set_row(i % ROWS, total);
            if let Ok(target) = usize::try_from(s.terms.target[i]) {
                let picked = if self.input.lends_rows::<F>() {
                    self.input.row::<F>(row, target..target + 1)[0]
                } else {
                    self.input.pick::<F>(row, target)
                };
                s.terms.rows[i / ROWS].picked.0[i % ROWS] = picked.wide();
            }
        }
        self.settle(span, rows.clone(), s);
        if !writes {
            return;
        }
        let per_row = classes.div_ceil(BLOCK);
        for (i, row) in rows.enumerate() {
            if s.terms.target[i] == IGNORED {
                self.clear_row(span, row, s);
                continue;
            }
            let total = s.summaries[i / ROWS].row(i % ROWS);
            for (b, classes) in blocks(classes).enumerate() {
                let kept = keeps.then(|| s.units[i * per_row + b]);
                self.emit_block::<P>(span, Block { i, row, classes }, kept, &total, s);
            }
        }
    }

    /// The first movement of a row that counts. Without masses it takes one pass, in a unit that
    /// `guess` chooses: rows next to each other have maxima much alike.
    fn summarise_row<P: Parts>(
        &self,
        (i, row): (usize, usize),
        (writes, keeps): (bool, bool),
        guess: &mut Option<F>,
        s: &mut Scratch<F>,
    ) -> Summary {
        let classes = self.input.classes();
        let exponent = s.terms.rows[i / ROWS].exponent.0[i % ROWS];
        let room = Room::<F>::new(writes);
        let (headroom, of_guess) = (room.of_one(exponent), room.of_one_guess(exponent));
        let mut total = Summary::EMPTY;
        for block in blocks(classes) {
            let x = lend_or_stage(&self.input, row, block.clone(), &mut s.x, false);
            let e = if keeps { &mut s.e[i * pitch(classes)..][block.clone()] } else { &mut [] };
            let sweep = |headroom: F| {
                let guess = *guess
                    .get_or_insert_with(|| kernels::largest::<F, false>(&x[..x.len().min(GUESS)]));
                let part = if keeps {
                    kernels::sweep::<F, true>(x, guess, headroom, e)
                } else {
                    kernels::sweep::<F, false>(x, guess, headroom, e)
                };
                part.filter(|s| {
                    let whole = Room::<F>::is_whole(s.rest) || s.max == f64::NEG_INFINITY;
                    whole && NEAR.contains(&(s.max.max(total.max) - guess.wide()))
                })
            };
            let part = if P::USED { None } else { of_guess.and_then(sweep) };
            let swept = part.is_some();
            let part = part.unwrap_or_else(|| {
                // What is asked for ahead must leave room for the block that is read again.
                let largest = if x.len() <= BLOCK / 2 {
                    kernels::largest::<F, true>(x)
                } else {
                    kernels::largest::<F, false>(x)
                };
                let max = if largest.wide() <= total.max { F::of(total.max) } else { largest };
                let mass = self.row_mass::<P>(row, block.clone(), &mut s.q);
                if keeps {
                    kernels::summarise::<P, F, true>(x, max, headroom, &mass, e)
                } else {
                    kernels::summarise::<P, F, false>(x, max, headroom, &mass, e)
                }
            });
            total = if block.start == 0 { part } else { total.merge(part, P::OWN) };
            if !swept {
                *guess = Some(F::of(total.max)).filter(|max| max.wide().is_finite());
            }
            s.units.push(part);
        }
        total
    }

    /// The third movement of a block: from its exponentials where they were kept, in the unit that
    /// is given, else from new ones.
    fn emit_block<P: Parts>(
        &self,
        span: &mut Span<'_>,
        block: Block,
        kept: Option<Summary>,
        total: &Summary,
        s: &mut Scratch<F>,
    ) {
        let Block { i, row, classes } = block.clone();
        let (group, lane) = (i / ROWS, i % ROWS);
        // Exponentials kept in a unit far from the row's may have lost bits.
        let fitting =
            kept.filter(|unit| unit.center == total.center && (unit.k - total.k).abs() <= FAR);
        let first = self.first.map(|(emission, _)| emission);
        let log = first == Some(Emission::LogSoftmax);
        let spread = first == Some(Emission::Gradient) && P::USED;
        let tilt = first == Some(Emission::Tilt);
        let x = if fitting.is_none() || self.second.is_some() || log || tilt || spread {
            // What is written in the input's place must not be read from there.
            lend_or_stage(&self.input, row, classes.clone(), &mut s.x, self.in_place)
        } else {
            &[]
        };
        let e = match kept {
            Some(_) => &mut s.e[i * pitch(self.input.classes())..][classes.clone()],
            None => &mut s.e[..classes.len()],
        };
        let scale = match fitting {
            Some(unit) if unit.k == total.k => 1.0,
            Some(unit) => unit.unit_over(total),
            None => {
                if !log || self.second.is_some() {
                    kernels::exponentials(x, total, e);
                }
                1.0
            }
        };
        if let Some(output) = self.second {
            let from = Sources { e, x, mass: RowMass::none() };
            let c = s.factors[group].second.row(lane);
            let c = Coefficients { a: c.a * scale, b: c.b * scale, ..c };
            self.emit_row::<Curvature, Nothing>(span, output, &block, c, &from, &mut s.out);
        }
        let Some((emission, output)) = self.first else { return };
        let factors = &s.factors[group];
        let c = factors.first.row(lane);
        let c = Coefficients { a: c.a * scale, ..c };
        if log {
            let from = Sources { e, x, mass: RowMass::none() };
            self.emit_row::<LogProbability, Nothing>(span, output, &block, c, &from, &mut s.out);
            return;
        }
        let target = usize::try_from(s.terms.target[i]).ok().filter(|t| classes.contains(t));
        if let (Some(target), Emission::Gradient) = (target, emission) {
            let e = &mut e[target - classes.start];
            let (keep, patch) = (factors.keep.0[lane], factors.patch.0[lane]);
            *e = F::of(keep * e.wide() + patch / scale);
        }
        if emission == Emission::Tilt {
            let from = Sources { e, x, mass: RowMass::none() };
            self.emit_row::<Tilted, Nothing>(span, output, &block, c, &from, &mut s.out);
        } else if spread {
            let from = Sources { e, x, mass: self.row_mass::<P>(row, classes, &mut s.q) };
            self.emit_row::<Spread<P>, P>(span, output, &block, c, &from, &mut s.out);
        } else {
            let from = Sources { e, x, mass: RowMass::none() };
            self.emit_row::<Scaled, Nothing>(span, output, &block, c, &from, &mut s.out);
        }
    }

    /// Writes a block of an output's row: where it lies, or through a staged copy.
    fn emit_row<M: Map, P: Parts>(
        &self,
        span: &mut Span<'_>,
        output: usize,
        block: &Block,
        c: Coefficients<f64>,
        from: &Sources<'_, F>,
        staged: &mut Buffer<F>,
    ) {
        let Block { row, classes, .. } = block.clone();
        let c = c.map(F::of);
        if span.layout(output).lends_rows::<F>() {
            let stream = self.stream && self.input.classes() * size_of::<F>() >= STREAM_ROW;
            kernels::emit::<M, P, F>(&c, from, span.row_mut(output, row, classes), stream);
        } else {
            kernels::emit::<M, P, F>(&c, from, staged.fit(classes.len()), false);
            span.write(output, row..row + 1, classes, 1, 1, staged);
        }
    }

    /// Zeros for a row that does not count.
    fn clear_row(&self, span: &mut Span<'_>, row: usize, s: &mut Scratch<F>) {
        let classes = self.input.classes();
        for output in self.first.map(|(_, o)| o).into_iter().chain(self.second) {
            if span.layout(output).lends_rows::<F>() {
                span.row_mut::<F>(output, row, 0..classes).fill(F::of(0.0));
                continue;
            }
            s.out.fit(BLOCK.min(classes)).fill(F::of(0.0));
            for block in blocks(classes) {
                let zeros = &s.out[..block.len()];
                span.write(output, row..row + 1, block, 1, 1, zeros);
            }
        }
    }

    /// The masses of a block of a row.
    fn row_mass<'b, P: Parts>(
        &'b self,
        row: usize,
        block: Range<usize>,
        staged: &'b mut Buffer<F>,
    ) -> RowMass<'b, F> {
        let Some(mass) = &self.mass else { return RowMass::none() };
        let soft: &[F] = match &mass.soft {
            Some(soft) => lend_or_stage(soft, row, block.clone(), staged, false),
            None => &[],
        };
        let weight: &[F] = mass.weight.as_ref().map_or(&[], |w| &w[block]);
        RowMass { soft, weight, share: mass.share, base: mass.base }
    }
}

/// Elements from one row's exponentials to the next's: whole cache lines.
fn pitch(classes: usize) -> usize {
    classes.next_multiple_of(ROWS)
}

/// Blocks of classes.
fn blocks(classes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..classes).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(classes))
}

/// A block of a row as it lies, or a copy; always a copy where `copy`.
fn lend_or_stage<'b, F: Element>(
    from: &Rows<'b>,
    row: usize,
    block: Range<usize>,
    staged: &'b mut Buffer<F>,
    copy: bool,
) -> &'b [F] {
    if !copy && from.lends_rows::<F>() {
        return from.row(row, block);
    }
    let staged = staged.fit(block.len());
    from.stage(row..row + 1, block, 1, 1, staged);
    staged
}
