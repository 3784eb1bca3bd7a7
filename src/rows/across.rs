//! The traversal across rows, where rows lie next to each other or classes are few.
//!
//! Without masses, rows next to each other are summarised in one pass where they lie. Other groups
//! of rows are copied to a [`tile`] in which lanes are rows. Exponentials stay in scratch, laid as a
//! tile, until the losses are settled; the derivatives are made from them, where they are to lie or
//! through a copy back.

pub(super) mod kernels;

use super::emit::{Bent, Curvature, LogProbability, Map, Scaled, Spread, Targeted, Tilted};
use super::mass::{Nothing, Parts, TileMass};
use super::scratch::{Buffer, Scratch};
use super::settle::{Coefficients, Factors, IGNORED, Room, lowering};
use super::summary::{Field, ROWS, Summary, merge_rows};
use super::{Emission, Shared, tile};
use crate::memory;
use crate::simd::{self, Element};
use crate::view::{LinesMut, Span};
use crate::warp::{Derivatives, Warped};
use kernels::{Held, Sources, Target, Tile};
use std::ops::Range;

/// Elements of a tile, or as many as rows of [`LINE`] need.
const TILE: usize = 12 << 10;
/// Rows below which lines are too short for memory to be read at speed.
const LINE: usize = 256;
/// Elements that a tile may have for the sake of its lines.
const LARGE: usize = 128 << 10;
/// Rows that are swept together where they lie.
const SWEPT: usize = 1024;

impl<F: Element> Shared<'_, '_, F> {
    /// Rows that make a tile: an odd number of cache lines, which needs no padding (see
    /// [`tile::step`]).
    pub(super) fn rows_across(&self) -> usize {
        let (rows, classes) = (self.input.rows(), self.input.classes().max(1));
        let large = LARGE / classes;
        let n = if self.sweeps(0..rows.min(1)) {
            large.min(SWEPT)
        } else {
            LINE.min(large).max(TILE / classes)
        };
        let lines = n.min(rows) / ROWS;
        (lines.saturating_sub(1) | 1) * ROWS
    }

    /// Whether rows can be summarised in one pass where they lie.
    fn sweeps(&self, rows: Range<usize>) -> bool {
        self.mass.is_none()
            && self.warp.is_none()
            && self.input.classes() > 0
            && !rows.is_empty()
            && self.input.lends_columns::<F>(&rows)
    }

    /// A group of rows, lanes across them.
    pub(super) fn across<P: Parts>(
        &self,
        span: &mut Span<'_>,
        rows: Range<usize>,
        s: &mut Scratch<F>,
    ) {
        let classes = self.input.classes();
        let n = rows.len();
        let step = tile::step(n);
        let writes = self.writes();
        let width = (LARGE / step).clamp(1, classes.max(1));
        let keeps = width >= classes;
        s.e.fit(if writes { step * width } else { 0 });
        let swept = self.sweeps(rows.clone()) && self.sweep(rows.clone(), (writes, keeps), s);
        if !swept {
            self.summarise_tiles::<P>(span, rows.clone(), (width, writes), s);
        }
        self.settle(n, s);
        self.write_losses(span, rows.clone(), s);
        if !writes {
            return;
        }
        let any_ignored = s.terms.target[..n].contains(&IGNORED);
        if any_ignored {
            let flags = s.ignored.fit(s.terms.target.len()).iter_mut();
            for (flag, target) in flags.zip(&s.terms.target) {
                *flag = F::of(f64::from(u8::from(*target == IGNORED)));
            }
        }
        s.low.clear();
        if P::USED && self.emission == Emission::Gradient {
            let factors = &mut s.factors;
            memory::reserve(&mut s.low, n);
            let lowered = (0..n).map(|row| {
                let (of, lane) = (&factors[row / ROWS], row % ROWS);
                (row, lowering::<F>(of.first.a.0[lane], of.second.b.0[lane]))
            });
            s.low.extend(lowered.filter(|(_, by)| *by != 1.0));
            for (row, by) in &s.low {
                factors[row / ROWS].lower(row % ROWS, *by);
            }
        }
        for block in tiles(classes, width) {
            if block.start > 0 && span.stops() {
                return;
            }
            self.emit_tile::<P>(span, rows.clone(), block, (keeps, swept, any_ignored), s);
        }
    }

    /// The first movement in one pass; false where it takes two.
    fn sweep(&self, rows: Range<usize>, (writes, keeps): (bool, bool), s: &mut Scratch<F>) -> bool {
        let room = Room::new(writes);
        let terms = &mut s.terms.rows;
        if !terms.iter().all(|term| term.exponent.0.iter().all(|e| room.allows_guess(*e))) {
            return false;
        }
        let classes = self.input.classes();
        let lines = self.input.lines_of_rows(rows.clone(), 0..classes);
        let held = &mut Held { lanes: &mut s.lanes, sums: &mut s.sums };
        let few = kernels::is_few(classes);
        if few {
            indices(&s.terms.target, 0, &mut s.index);
        }
        let from = (room, &*s.index);
        let near = if writes && keeps {
            kernels::sweep::<F, true>(&lines, from, terms, held, &mut s.e, &mut s.summaries)
        } else {
            kernels::sweep::<F, false>(&lines, from, terms, held, &mut [], &mut s.summaries)
        };
        if near && !few {
            let groups = terms.iter_mut().zip(s.terms.target.chunks_exact(ROWS));
            for ((term, targets), first) in groups.zip((0..rows.len()).step_by(ROWS)) {
                for (i, (picked, target)) in term.picked.0.iter_mut().zip(targets).enumerate() {
                    if let Ok(target) = usize::try_from(*target) {
                        *picked = lines.line(target)[first + i].wide();
                    }
                }
            }
        }
        near
    }

    /// The first movement by tiles of `width` classes.
    fn summarise_tiles<P: Parts>(
        &self,
        span: &Span<'_>,
        rows: Range<usize>,
        (width, writes): (usize, bool),
        s: &mut Scratch<F>,
    ) {
        let (n, classes) = (rows.len(), self.input.classes());
        if classes == 0 {
            (0..n).for_each(|i| s.summaries[i / ROWS].set_row(i % ROWS, Summary::EMPTY));
        }
        if P::RANKED {
            // Classes are counted against the target's logit, which may be in a later tile.
            for (i, row) in rows.clone().enumerate() {
                if let Ok(target) = usize::try_from(s.terms.target[i]) {
                    self.stage(row..row + 1, target..target + 1, s);
                    s.terms.rows[i / ROWS].picked.0[i % ROWS] = s.x[0].wide();
                }
            }
        }
        for block in tiles(classes, width) {
            if block.start > 0 && span.stops() {
                return;
            }
            self.stage(rows.clone(), block.clone(), s);
            indices(&s.terms.target, block.start, &mut s.index);
            let tile = Tile {
                x: &s.x,
                rows: n,
                classes: block.len(),
                index: &s.index,
                mass: self.tile_mass::<P>(rows.clone(), block.clone(), &mut s.q),
            };
            let into = if block.start == 0 { &mut s.summaries } else { &mut s.part };
            let (room, terms) = (Room::new(writes), &mut s.terms.rows);
            if writes && width >= classes {
                kernels::summarise::<P, F, true>(&tile, room, terms, &mut s.e, into);
            } else {
                kernels::summarise::<P, F, false>(&tile, room, terms, &mut [], into);
            }
            if block.start > 0 {
                merge_rows(&mut s.summaries, &s.part, P::OWN);
            }
        }
    }

    /// The third movement of a tile, from its exponentials where they were kept.
    fn emit_tile<P: Parts>(
        &self,
        span: &mut Span<'_>,
        rows: Range<usize>,
        block: Range<usize>,
        (keeps, swept, any_ignored): (bool, bool, bool),
        s: &mut Scratch<F>,
    ) {
        let n = rows.len();
        let step = tile::step(n);
        let log = self.emission == Emission::LogSoftmax;
        let warp = self.warp.filter(|_| self.emission.is_derivative());
        if let Some(warp) = warp {
            // Before anything is written in the input's place.
            s.raw.stage(warp, self.input, |from, to| {
                tile::stage(from, rows.clone(), block.clone(), to);
            });
        }
        // Exponentials and logits are at hand where a tile held both.
        if !keeps || (swept && (log || self.second.is_some())) {
            match warp {
                Some(warp) => s.raw.warped(warp, &mut s.x),
                None => self.stage(rows.clone(), block.clone(), s),
            }
        }
        let e = &mut s.e[..step * block.len()];
        if !keeps {
            let [centers, ks, ..] = &mut s.narrow;
            kernels::exponentials(&s.x, (n, block.len()), &s.summaries, [centers, ks], e);
        }
        for (row, by) in &s.low {
            e[*row..].iter_mut().step_by(step).for_each(|e| *e *= F::of(*by));
        }
        let ignored = any_ignored.then(|| &*s.ignored);
        let none = TileMass::none();
        let at = (rows.clone(), block.clone());
        // What is warped stays in scratch until its derivatives are the input's.
        let token = self.emission == Emission::Token;
        let direct = |output: usize| (warp.is_none() && !token).then_some(output);
        if let Some(output) = self.second {
            let (coefficients, target) =
                narrow(&s.factors, |of| &of.second, n, true, &mut s.narrow, &[]);
            let from = Sources { coefficients, target, ignored, e, x: &s.x, mass: none };
            let (to, at, out) = (direct(output), at.clone(), &mut s.bent);
            if self.emission == Emission::Tilt {
                self.emit_to::<Bent, Nothing>(span, to, at, &from, out);
            } else {
                self.emit_to::<Curvature, Nothing>(span, to, at, &from, out);
            }
        }
        if self.first.is_some() || warp.is_some_and(Warped::bends) {
            let to = self.first.and_then(direct);
            indices(&s.terms.target, block.start, &mut s.index);
            let all = !self.is_plain();
            let (coefficients, target) =
                narrow(&s.factors, |of| &of.first, n, all, &mut s.narrow, &s.index);
            let mut from = Sources { coefficients, target, ignored, e, x: &s.x, mass: none };
            let (at, out) = (at.clone(), &mut s.out);
            match self.emission {
                Emission::LogSoftmax => {
                    self.emit_to::<LogProbability, Nothing>(span, to, at, &from, out);
                }
                Emission::Tilt | Emission::Token => {
                    self.emit_to::<Tilted, Nothing>(span, to, at, &from, out);
                }
                Emission::Gradient if P::USED => {
                    from.mass = self.tile_mass::<P>(rows.clone(), block.clone(), &mut s.q);
                    self.emit_to::<Spread<P>, P>(span, to, at, &from, out);
                }
                Emission::Gradient => self.emit_to::<Targeted, Nothing>(span, to, at, &from, out),
                Emission::Softmax => self.emit_to::<Scaled, Nothing>(span, to, at, &from, out),
            }
        }
        if token {
            for (i, target) in s.terms.target[..n].iter().enumerate() {
                let class = usize::try_from(*target).ok().filter(|class| block.contains(class));
                if let Some(class) = class {
                    let out = &mut s.out[(class - block.start) * step + i];
                    *out = s.factors[i / ROWS].patched(i % ROWS, *out);
                }
            }
        }
        if let Some(warp) = warp {
            let size = step * block.len();
            let to = Derivatives {
                first: s.out.fit(size),
                second: self.second.is_some().then(|| s.bent.fit(size)),
            };
            s.raw.derive(warp, to);
        }
        if warp.is_some() || token {
            for (output, from) in [(self.first, &s.out), (self.second, &s.bent)] {
                if let Some(output) = output {
                    tile::write(from, span, output, rows.clone(), block.clone());
                }
            }
        }
    }

    /// Copies a tile of logits as a model means them.
    fn stage(&self, rows: Range<usize>, block: Range<usize>, s: &mut Scratch<F>) {
        let Some(warp) = self.warp else {
            return tile::stage(self.input, rows, block, &mut s.x);
        };
        s.raw.stage(warp, self.input, |from, to| {
            tile::stage(from, rows.clone(), block.clone(), to);
        });
        s.raw.warped(warp, &mut s.x);
    }

    /// Writes a tile of an output: where it lies, or through a staged copy; without an output the copy
    /// is all.
    fn emit_to<M: Map, P: Parts>(
        &self,
        span: &mut Span<'_>,
        output: Option<usize>,
        (rows, block): (Range<usize>, Range<usize>),
        from: &Sources<'_, F>,
        staged: &mut Buffer<F>,
    ) {
        let n = rows.len();
        if let Some(output) = output
            && span.layout(output).lends_columns::<F>(&rows)
        {
            let mut out = span.lines_of_rows_mut(output, rows, block);
            kernels::emit::<M, P, F>(from, n, &mut out, self.stream);
            return;
        }
        let step = tile::step(n);
        let mut out = LinesMut::of(staged.fit(step * block.len()), n, block.len(), step);
        kernels::emit::<M, P, F>(from, n, &mut out, false);
        if let Some(output) = output {
            tile::write(staged, span, output, rows, block);
        }
    }

    /// The masses of a tile.
    fn tile_mass<'b, P: Parts>(
        &'b self,
        rows: Range<usize>,
        block: Range<usize>,
        staged: &'b mut Buffer<F>,
    ) -> TileMass<'b, F> {
        let Some(mass) = self.mass else {
            return TileMass::none();
        };
        let soft: &[F] = match &mass.soft {
            Some(soft) => {
                tile::stage(soft, rows, block.clone(), staged);
                staged
            }
            None => &[],
        };
        let weight: &[F] = mass.weight.as_ref().map_or(&[], |w| &w[block]);
        TileMass { soft, weight, share: mass.share, base: mass.base }
    }
}

/// Blocks of `width` classes.
fn tiles(classes: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..classes).step_by(width.max(1)).map(move |start| start..(start + width).min(classes))
}

/// Target classes counted from the first class of a block.
fn indices<F: Element>(target: &[i64], first: usize, out: &mut Buffer<F>) {
    let out = out.fit(target.len());
    simd::vectorized(
        #[inline(always)]
        || {
            for (out, t) in out.iter_mut().zip(target) {
                *out = F::of((*t - first as i64) as f64);
            }
        },
    );
}

/// Coefficients in the kernel's type; of a plain factor, that and its bound.
fn narrow<'b, F: Element>(
    factors: &[Factors<Field>],
    of: impl Fn(&Factors<Field>) -> &Coefficients<Field>,
    rows: usize,
    all: bool,
    out: &'b mut [Buffer<F>; 7],
    index: &'b [F],
) -> (Coefficients<&'b [F]>, Target<&'b [F]>) {
    let groups = rows.div_ceil(ROWS);
    let [a, keep, patch, b, c, max, at_max] = out;
    for out in [&mut *a, keep, patch, b, c, max, at_max] {
        out.fit(groups * ROWS);
    }
    simd::vectorized(
        #[inline(always)]
        || {
            for (i, factors) in factors[..groups].iter().enumerate() {
                let lanes = i * ROWS..(i + 1) * ROWS;
                let from = of(factors);
                narrow_field(&from.a, &mut a[lanes.clone()]);
                narrow_field(&from.c, &mut c[lanes.clone()]);
                narrow_field(&factors.keep, &mut keep[lanes.clone()]);
                narrow_field(&factors.patch, &mut patch[lanes.clone()]);
                if all {
                    narrow_field(&from.b, &mut b[lanes.clone()]);
                    narrow_field(&from.max, &mut max[lanes.clone()]);
                    narrow_field(&from.at_max, &mut at_max[lanes]);
                }
            }
        },
    );
    (Coefficients { a, b, c, max, at_max }, Target { index, keep, patch })
}

#[inline(always)]
fn narrow_field<F: Element>(from: &Field, to: &mut [F]) {
    to.iter_mut().zip(&from.0).for_each(|(to, from)| *to = F::of(*from));
}
