//! The traversal along the classes, where they lie next to each other and are many.
//!
//! A row is taken in blocks. A block's exponentials stay in the thread's scratch until the row's
//! loss is settled; the derivatives are made from them. Rows too long for that compute them twice.
//! Rows of a block or less are swept together, where they can be.

pub(super) mod kernels;

use super::emit::{Bent, Curvature, LogProbability, Map, Scaled, Spread, Tilted};
use super::mass::{Nothing, Parts, RowMass};
use super::scratch::{Buffer, Raw, Scratch};
use super::settle::{Coefficients, IGNORED, NEAR, Room, lowering};
use super::summary::{ROWS, Summary};
use super::{Emission, Shared, long};
use crate::memory;
use crate::simd::Element;
use crate::view::{Rows, Span};
use crate::warp::{Derivatives, Warped};
use kernels::Sources;
use std::ops::Range;

/// Classes that are summarised at a time where that takes two passes: a block and its exponentials
/// fit the first-level cache.
const BLOCK: usize = 4096;
/// The same where one pass is enough, and a block's end takes time for itself. Where that pass finds
/// that its unit was no good, and where exponentials are not kept, the next reads the block from the
/// second-level cache.
const SWEPT: usize = 4 * BLOCK;
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
pub(super) struct Block {
    pub(super) i: usize,
    pub(super) row: usize,
    pub(super) classes: Range<usize>,
}

/// Which rows of a group were swept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Swept(u32);

impl Swept {
    const NONE: Self = Self(0);

    fn of(rows: usize, which: impl Fn(usize) -> bool) -> Self {
        Self((0..rows).fold(0, |bits, i| bits | u32::from(which(i)) << i))
    }

    fn has(self, row: usize) -> bool {
        self.0 >> row & 1 == 1
    }
}

impl<F: Element> Shared<'_, '_, F> {
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
            (true, false) => block::<P>(),
            (true, true) => rows.len() * pitch(classes),
        };
        s.e.fit(exponentials);
        s.units.clear();
        memory::reserve(&mut s.units, rows.len() * classes.div_ceil(block::<P>()));
        let together = !P::USED && self.sweeps_together() && classes <= BLOCK;
        let swept =
            if together { self.sweep_rows(rows.clone(), (writes, keeps), s) } else { Swept::NONE };
        let mut guess = None;
        for (i, row) in rows.clone().enumerate() {
            if swept.has(i) {
                if writes {
                    s.units.push(s.summaries[0].row(i));
                }
                continue;
            }
            if P::RANKED {
                self.pick(i, row, s);
            }
            let total = if s.terms.target[i] == IGNORED {
                s.units.extend(blocks::<P>(0..classes).map(|_| Summary::IGNORED));
                Summary::IGNORED
            } else {
                let parts = long::parts(classes).map(|part| {
                    if classes > long::PART {
                        guess = None;
                        if span.stops() {
                            return Summary::EMPTY;
                        }
                    }
                    self.summarise::<P>((i, row), part, (writes, keeps), &mut guess, s)
                });
                parts.reduce(|all, part| all.merge(part, P::OWN)).unwrap_or(Summary::EMPTY)
            };
            s.summaries[i / ROWS].set_row(i % ROWS, total);
            if !P::RANKED {
                self.pick(i, row, s);
            }
        }
        self.settle(rows.len(), s);
        self.write_losses(span, rows.clone(), s);
        if !writes {
            return;
        }
        let per_row = classes.div_ceil(block::<P>());
        let scaled = self.first.filter(|output| {
            let plain = self.is_plain() && self.second.is_none();
            plain && swept != Swept::NONE && span.layout(*output).lends_rows::<F>()
        });
        if scaled.is_some() && self.emission == Emission::Gradient {
            self.patch(swept, s);
        }
        for (i, row) in rows.enumerate() {
            if s.terms.target[i] == IGNORED {
                self.clear(span, row, 0..classes, s);
                continue;
            }
            if let Some(output) = scaled.filter(|_| swept.has(i)) {
                self.scale_row(span, output, (i, row), s);
                continue;
            }
            let total = s.summaries[i / ROWS].row(i % ROWS);
            for (b, classes) in blocks::<P>(0..classes).enumerate() {
                if b > 0 && classes.start % long::PART == 0 && span.stops() {
                    return;
                }
                let kept = keeps.then(|| s.units[i * per_row + b]);
                self.emit_block::<P>(span, Block { i, row, classes }, kept, &total, s);
            }
        }
    }

    /// Whether rows of no more than a block may be swept together: where they lie, with one target class
    /// or none.
    pub(super) fn sweeps_together(&self) -> bool {
        self.mass.is_none() && self.warp.is_none() && self.input.lends_rows::<F>()
    }

    /// The first movement of rows that are a block each, and their targets' logits: of those that it
    /// answers. The others, whose logits are far from what the first row's suggest, are for
    /// [`Self::summarise`].
    fn sweep_rows(
        &self,
        rows: Range<usize>,
        (writes, keeps): (bool, bool),
        s: &mut Scratch<F>,
    ) -> Swept {
        let (n, classes) = (rows.len(), self.input.classes());
        debug_assert!(n <= ROWS && self.mass.is_none(), "one group, and no sums of masses");
        let (room, term) = (Room::<F>::new(writes), &mut s.terms.rows[0]);
        let targets = &s.terms.target[..n];
        let exponents = &term.exponent.0;
        let live = Swept::of(n, |i| targets[i] != IGNORED && room.allows_guess(exponents[i]));
        if live == Swept::NONE || (writes && !keeps) || !self.input.lends_block::<F>(&rows) {
            return Swept::NONE;
        }
        let lines = self.input.lines_of_classes::<F>(rows, 0..classes);
        let first = lines.line(live.0.trailing_zeros() as usize);
        let largest = kernels::largest::<F, false>(&first[..classes.min(GUESS)]).wide();
        // The largest of the first row in the middle of what is near.
        let guess = F::of(largest - (NEAR.start + NEAR.end) / 2.0);
        let within_reach = guess.wide().abs() <= F::REACH.wide();
        if !within_reach {
            return Swept::NONE;
        }
        let unit = (guess, room, &term.exponent);
        let (e, out) = ((&mut *s.e, pitch(classes)), &mut s.summaries[0]);
        if keeps {
            kernels::sweep_rows::<F, true>(&lines, live.0, unit, e, out);
        } else {
            kernels::sweep_rows::<F, false>(&lines, live.0, unit, e, out);
        }
        for (i, target) in targets.iter().enumerate() {
            if let Ok(target) = usize::try_from(*target) {
                term.picked.0[i] = lines.line(i)[target].wide();
            }
        }
        Swept::of(n, |i| {
            let near = NEAR.contains(&(out.max.0[i] - guess.wide()));
            live.has(i) && near && Room::<F>::is_whole(out.rest.0[i])
        })
    }

    /// Replaces the exponentials of targets in rows that were swept together: all at once, as a vector
    /// would wait for a number just stored into it.
    fn patch(&self, swept: Swept, s: &mut Scratch<F>) {
        let (factors, pitch) = (&s.factors[0], pitch(self.input.classes()));
        for (i, target) in s.terms.target.iter().enumerate().filter(|(i, _)| swept.has(*i)) {
            if let Ok(target) = usize::try_from(*target) {
                let e = &mut s.e[i * pitch + target];
                *e = F::of(factors.keep.0[i] * e.wide() + factors.patch.0[i]);
            }
        }
    }

    /// The third movement of a row that was swept together with others, where it is but a factor.
    fn scale_row(
        &self,
        span: &mut Span<'_>,
        output: usize,
        (i, row): (usize, usize),
        s: &Scratch<F>,
    ) {
        let classes = self.input.classes();
        let of = &s.factors[0].first;
        let c = Coefficients {
            a: F::of(of.a.0[i]),
            c: F::of(of.c.0[i]),
            ..Coefficients::<f64>::default().map(F::of)
        };
        let e = &s.e[i * pitch(classes)..][..classes];
        let from = Sources { e, x: &[], mass: RowMass::none() };
        let out = span.row_mut(output, row, 0..classes);
        kernels::emit::<Scaled, Nothing, F>(&c, &from, out, self.streams_rows());
    }

    /// Whether rows are written past the caches.
    fn streams_rows(&self) -> bool {
        self.stream && self.input.classes() * size_of::<F>() >= STREAM_ROW
    }

    /// Looks up the logit of a row's target.
    pub(super) fn pick(&self, i: usize, row: usize, s: &mut Scratch<F>) {
        if let Ok(target) = usize::try_from(s.terms.target[i]) {
            let picked = self.logits(row, target..target + 1, &mut s.x, &mut s.raw);
            s.terms.rows[i / ROWS].picked.0[i % ROWS] = picked[0].wide();
        }
    }

    /// The first movement of a part of a row that counts. Without masses it takes one pass, in a unit
    /// that `guess` chooses: rows next to each other have maxima much alike.
    pub(super) fn summarise<P: Parts>(
        &self,
        (i, row): (usize, usize),
        part: Range<usize>,
        (writes, keeps): (bool, bool),
        guess: &mut Option<F>,
        s: &mut Scratch<F>,
    ) -> Summary {
        let classes = self.input.classes();
        let exponent = s.terms.rows[i / ROWS].exponent.0[i % ROWS];
        let room = Room::<F>::new(writes);
        let (headroom, of_guess) = (room.of_one(exponent), room.of_one_guess(exponent));
        let mut total = Summary::EMPTY;
        for block in blocks::<P>(part.clone()) {
            let x = self.logits(row, block.clone(), &mut s.x, &mut s.raw);
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
            let first = block.start == part.start;
            let of_block = if P::USED { None } else { of_guess.and_then(sweep) };
            let swept = of_block.is_some();
            let of_block = of_block.unwrap_or_else(|| {
                // What is asked for ahead must leave room for the block that is read again.
                let largest = if x.len() <= BLOCK / 2 {
                    kernels::largest::<F, true>(x)
                } else {
                    kernels::largest::<F, false>(x)
                };
                let max = if largest.wide() <= total.max { F::of(total.max) } else { largest };
                let mass = RowMass {
                    picked: F::of(s.terms.rows[i / ROWS].picked.0[i % ROWS]),
                    ..self.row_mass::<P>(row, block.clone(), &mut s.q)
                };
                if keeps {
                    kernels::summarise::<P, F, true>(x, max, headroom, &mass, e)
                } else {
                    kernels::summarise::<P, F, false>(x, max, headroom, &mass, e)
                }
            });
            total = if first { of_block } else { total.merge(of_block, P::OWN) };
            if !swept {
                *guess = Some(F::of(total.max)).filter(|max| max.wide().is_finite());
            }
            s.units.push(of_block);
        }
        total
    }

    /// The third movement of a block: from its exponentials where they were kept, in the unit that
    /// is given, else from new ones.
    pub(super) fn emit_block<P: Parts>(
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
        let log = self.emission == Emission::LogSoftmax;
        let token = self.emission == Emission::Token;
        let tilt = token || self.emission == Emission::Tilt;
        let spread = self.emission == Emission::Gradient && P::USED;
        let warp = self.warp.filter(|_| self.emission.is_derivative());
        if let Some(warp) = warp {
            // Before anything is written in the input's place.
            s.raw.stage(warp, self.input, |from, to| {
                copy(from, row, classes.clone(), to);
            });
        }
        let x = if fitting.is_none() || self.second.is_some() || log || tilt || spread {
            match self.warp {
                Some(warp) if self.emission.is_derivative() => {
                    s.raw.warped(warp, &mut s.x);
                    &s.x
                }
                // What is written in the input's place must not be read from there.
                None if self.in_place => copy(self.input, row, classes.clone(), &mut s.x),
                _ => self.logits(row, classes.clone(), &mut s.x, &mut s.raw),
            }
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
        let plain = RowMass::none();
        let factors = &s.factors[group];
        let by = if spread {
            let [a, b] = [&factors.first.a, &factors.second.b].map(|c| c.0[lane] * scale);
            lowering::<F>(a, b)
        } else {
            1.0
        };
        if by != 1.0 {
            e.iter_mut().for_each(|e| *e *= F::of(by));
        }
        let scale = scale / by;
        // What is warped stays in scratch until its derivatives are the input's.
        let direct = |output: usize| (warp.is_none() && !token).then_some(output);
        if let Some(output) = self.second {
            let from = Sources { e, x, mass: plain };
            let c = factors.second.row(lane);
            let c = Coefficients { a: c.a * scale, b: c.b * scale, ..c };
            let (to, out) = (direct(output), &mut s.bent);
            if tilt {
                let c = Coefficients { b: factors.second.row(lane).b, c: c.c * scale, ..c };
                self.emit_row::<Bent, Nothing>(span, to, &block, c, &from, out);
            } else {
                self.emit_row::<Curvature, Nothing>(span, to, &block, c, &from, out);
            }
        }
        let c = factors.first.row(lane);
        let c = Coefficients { a: c.a * scale, ..c };
        let target = usize::try_from(s.terms.target[i]).ok().filter(|t| classes.contains(t));
        if self.first.is_some() || warp.is_some_and(Warped::bends) {
            let to = self.first.and_then(direct);
            if let (Some(target), Emission::Gradient) = (target, self.emission) {
                let e = &mut e[target - classes.start];
                let (keep, patch) = (factors.keep.0[lane], factors.patch.0[lane]);
                *e = F::of(keep * e.wide() + patch / scale);
            }
            let mass =
                if spread { self.row_mass::<P>(row, classes.clone(), &mut s.q) } else { plain };
            let (from, out) = (Sources { e, x, mass }, &mut s.out);
            if log {
                self.emit_row::<LogProbability, Nothing>(span, to, &block, c, &from, out);
            } else if tilt {
                self.emit_row::<Tilted, Nothing>(span, to, &block, c, &from, out);
            } else if spread {
                self.emit_row::<Spread<P>, P>(span, to, &block, c, &from, out);
            } else {
                self.emit_row::<Scaled, Nothing>(span, to, &block, c, &from, out);
            }
        }
        if let (Some(target), true) = (target, token) {
            let out = &mut s.out[target - classes.start];
            *out = factors.patched(lane, *out);
        }
        if let Some(warp) = warp {
            let n = classes.len();
            let to = Derivatives {
                first: s.out.fit(n),
                second: self.second.is_some().then(|| s.bent.fit(n)),
            };
            s.raw.derive(warp, to);
        }
        if warp.is_some() || token {
            for (output, from) in [(self.first, &s.out), (self.second, &s.bent)] {
                if let Some(output) = output {
                    span.write(output, row..row + 1, classes.clone(), 1, 1, from);
                }
            }
        }
    }

    /// Writes a block of an output's row: where it lies, or through a staged copy; without an output
    /// the copy is all.
    fn emit_row<M: Map, P: Parts>(
        &self,
        span: &mut Span<'_>,
        output: Option<usize>,
        block: &Block,
        c: Coefficients<f64>,
        from: &Sources<'_, F>,
        staged: &mut Buffer<F>,
    ) {
        let Block { row, classes, .. } = block.clone();
        let c = c.map(F::of);
        match output {
            Some(output) if span.layout(output).lends_rows::<F>() => {
                let stream = self.streams_rows();
                kernels::emit::<M, P, F>(&c, from, span.row_mut(output, row, classes), stream);
            }
            Some(output) => {
                kernels::emit::<M, P, F>(&c, from, staged.fit(classes.len()), false);
                span.write(output, row..row + 1, classes, 1, 1, staged);
            }
            None => kernels::emit::<M, P, F>(&c, from, staged.fit(classes.len()), false),
        }
    }

    /// Zeros for classes of a row that does not count.
    pub(super) fn clear(
        &self,
        span: &mut Span<'_>,
        row: usize,
        classes: Range<usize>,
        s: &mut Scratch<F>,
    ) {
        for output in self.first.into_iter().chain(self.second) {
            if span.layout(output).lends_rows::<F>() {
                span.row_mut::<F>(output, row, classes.clone()).fill(F::of(0.0));
                continue;
            }
            s.out.fit(BLOCK.min(classes.len())).fill(F::of(0.0));
            for block in parts(classes.clone(), BLOCK) {
                let zeros = &s.out[..block.len()];
                span.write(output, row..row + 1, block, 1, 1, zeros);
            }
        }
    }

    /// A block of a row's logits as a model means them: where they lie, or a copy.
    fn logits<'b>(
        &'b self,
        row: usize,
        block: Range<usize>,
        staged: &'b mut Buffer<F>,
        raw: &mut Raw<F>,
    ) -> &'b [F] {
        let Some(warp) = self.warp else {
            return lend_or_stage(self.input, row, block, staged);
        };
        raw.stage(warp, self.input, |from, to| {
            copy(from, row, block.clone(), to);
        });
        raw.warped(warp, staged);
        staged
    }

    /// The masses of a block of a row.
    fn row_mass<'b, P: Parts>(
        &'b self,
        row: usize,
        block: Range<usize>,
        staged: &'b mut Buffer<F>,
    ) -> RowMass<'b, F> {
        let Some(mass) = self.mass else { return RowMass::none() };
        let soft: &[F] = match &mass.soft {
            Some(soft) => lend_or_stage(soft, row, block.clone(), staged),
            None => &[],
        };
        let weight: &[F] = mass.weight.as_ref().map_or(&[], |w| &w[block]);
        RowMass { soft, weight, share: mass.share, base: mass.base, ..RowMass::none() }
    }
}

/// Elements from one row's exponentials to the next's: whole cache lines.
fn pitch(classes: usize) -> usize {
    classes.next_multiple_of(ROWS)
}

/// Classes of a block.
pub(super) const fn block<P: Parts>() -> usize {
    if P::USED { BLOCK } else { SWEPT }
}

/// Blocks of classes.
pub(super) fn blocks<P: Parts>(classes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    parts(classes, block::<P>())
}

/// Parts of so many classes.
pub(super) fn parts(classes: Range<usize>, of: usize) -> impl Iterator<Item = Range<usize>> {
    let end = classes.end;
    classes.step_by(of).map(move |start| start..(start + of).min(end))
}

/// A block of a row as it lies, or a copy.
fn lend_or_stage<'b, F: Element>(
    from: &Rows<'b>,
    row: usize,
    block: Range<usize>,
    staged: &'b mut Buffer<F>,
) -> &'b [F] {
    if from.lends_rows::<F>() { from.row(row, block) } else { copy(from, row, block, staged) }
}

/// A copy of a block of a row.
fn copy<'b, F: Element>(
    from: &Rows<'_>,
    row: usize,
    block: Range<usize>,
    to: &'b mut Buffer<F>,
) -> &'b [F] {
    let to = to.fit(block.len());
    from.stage(row..row + 1, block, 1, 1, to);
    to
}
