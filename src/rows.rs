//! The softmax family's engine: three movements over groups of rows small enough to stay in cache.
//!
//! 1. *Summarise*: one pass over a row gives its [`Summary`](summary::Summary): the maximum, the
//!    rest, and what the loss asks for besides.
//! 2. *Settle*: from the summaries alone, a loss and the coefficients of its derivatives. A loss
//!    *is* this movement ([`Settle`](settle::Settle)).
//! 3. *Emit*: a second pass, from cache, writes what each class gets ([`Map`](emit::Map)).
//!
//! Two traversals share the movements: [`along`] the classes where they lie next to each other and
//! are many, [`across`] rows where rows do, or where classes are too few to fill vectors.

mod across;
mod along;
mod emit;
#[cfg(feature = "python")]
pub(crate) mod floor;
pub(crate) mod mass;
pub(crate) mod settle;
mod summary;
mod tile;

use crate::error::Result;
use crate::pool;
use crate::simd::sum::Compensated;
use crate::simd::{self, Element, Isa, dispatch};
use crate::view::{LinesMut, Rows, RowsMut, Span, Spans};
use emit::{Curvature, LogProbability, Map, Scaled, Spread, Targeted};
use mass::{Mass, Nothing, Parts, RowMass, TileMass, with_parts};
use settle::{Coefficients, IGNORED, Room, Settle, Settled, Terms, settle_rows, wanted};
use std::ops::Range;
use std::sync::OnceLock;
pub(crate) use summary::{Field, ROWS};
use summary::{Summary, merge_rows};

/// Classes that are summarised at a time: a block and its exponentials fit the first-level cache.
const BLOCK: usize = 4096;
/// Bytes of exponentials kept between the passes along a row; longer rows compute them twice.
const KEPT: usize = 640 << 10;
/// Elements of the rows along which a group is settled together.
const GROUP: usize = 16 << 10;
/// Elements of a tile across rows.
const TILE: usize = 160 << 10;
/// Elements that a tile may grow to rather than compute exponentials twice.
const TILE_KEPT: usize = 160 << 10;
/// With fewer classes than these, lanes are rows.
const ALONG: usize = 80;
/// Elements of a span, the unit of work that threads draw.
const SPAN: usize = 160 << 10;
/// Elements from which threads pay.
const PARALLEL: usize = 192 << 10;
/// Bytes of output from which it is written past the caches.
const STREAM: usize = 8 << 20;
/// Bytes of a row from which that pays although the row shares its first and last cache lines.
const STREAM_ROW: usize = 2 << 10;

/// What is written for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emission {
    /// The gradient of the loss.
    Gradient,
    /// The probabilities.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
}

/// What a call of the family computes, and where to.
pub(crate) struct Job<'a, F: Element, L> {
    pub(crate) input: Rows<'a>,
    pub(crate) mass: Option<Mass<'a, F>>,
    pub(crate) settle: L,
    /// One value a row.
    pub(crate) loss: Option<RowsMut<'a>>,
    /// One value a class.
    pub(crate) first: Option<(Emission, RowsMut<'a>)>,
    /// The Hessian's diagonal.
    pub(crate) second: Option<RowsMut<'a>>,
    /// Whether `first` is the input's own memory.
    pub(crate) in_place: bool,
}

/// What spans share.
struct Shared<'a, F: Element, L> {
    input: Rows<'a>,
    mass: Option<Mass<'a, F>>,
    settle: L,
    loss: Option<usize>,
    first: Option<(Emission, usize)>,
    second: Option<usize>,
    in_place: bool,
    stream: bool,
}

/// A thread's memory for a call.
#[derive(Default)]
struct Scratch<F> {
    e: Vec<F>,
    x: Vec<F>,
    q: Vec<F>,
    out: Vec<F>,
    index: Vec<F>,
    ignored: Vec<F>,
    narrow: [Vec<F>; 6],
    units: Vec<Summary>,
    summaries: Vec<Summary<Field>>,
    part: Vec<Summary<Field>>,
    terms: Terms,
    settled: Vec<Settled<Field>>,
    /// Of the group's losses.
    sum: f64,
}

impl<'a, F: Element, L: Settle> Job<'a, F, L> {
    /// Runs the job; returns the sum of the losses, in twice the precision.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn run(self, interrupted: &dyn Fn() -> bool) -> Result<f64> {
        let Self { input, mass, settle, loss, first, second, in_place } = self;
        let (rows, classes) = (input.rows(), input.classes());
        let mut outputs = Vec::with_capacity(3);
        let mut push = |o: RowsMut<'a>| {
            outputs.push(o);
            outputs.len() - 1
        };
        let shared = Shared {
            loss: loss.map(&mut push),
            first: first.map(|(emission, o)| (emission, push(o))),
            second: second.map(&mut push),
            stream: rows * classes * size_of::<F>() >= STREAM,
            input,
            mass,
            settle,
            in_place,
        };
        let along = shared.goes_along();
        let group = shared.group(along);
        let step = (SPAN / classes.max(1)).next_multiple_of(group);
        let spans = Spans::new(rows, step, outputs);
        let sums: Vec<OnceLock<Compensated>> = vec![OnceLock::new(); spans.count()];
        pool::run(&spans, rows * classes >= PARALLEL, interrupted, |span, scratch| {
            let sum = shared.span(span, along, group, scratch);
            sums[span.index()].set(sum).expect("a span is drawn once");
        })?;
        let mut total = Compensated::default();
        for sum in &sums {
            total.merge(*sum.get().expect("every span was drawn"));
        }
        Ok(total.value())
    }
}

impl<F: Element, L: Settle> Shared<'_, F, L> {
    /// Whether lanes are classes.
    fn goes_along(&self) -> bool {
        let close = self.input.classes_are_close() || self.input.rows() < 8;
        close && self.input.classes() >= ALONG
    }

    /// Rows that are settled together.
    fn group(&self, along: bool) -> usize {
        let classes = self.input.classes().max(1);
        if along {
            (GROUP / classes).clamp(1, 16)
        } else {
            // An odd number of cache lines needs no padding: see across::step.
            let lines = (TILE / classes / ROWS).clamp(1, 640).min(self.input.rows().div_ceil(ROWS));
            ((lines.max(1) - 1) | 1) * ROWS
        }
    }

    fn span(
        &self,
        span: &mut Span<'_>,
        along: bool,
        group: usize,
        scratch: &mut Scratch<F>,
    ) -> Compensated {
        let mut sum = Compensated::default();
        let rows = span.rows();
        let mut at = rows.start;
        while at < rows.end {
            let mut end = (at + group).min(rows.end);
            if !along {
                // A tile that can be lent stays within a run.
                end = end.min(at + self.input.run(at));
            }
            let n = end - at;
            scratch.begin(n);
            self.settle.terms(at..end, &mut scratch.terms);
            scratch.terms.end(n);
            if along {
                with_parts!(&self.mass, P => self.along::<P>(span, at..end, scratch));
            } else {
                with_parts!(&self.mass, P => self.across::<P>(span, at..end, scratch));
            }
            sum.add(scratch.sum);
            at = end;
        }
        if self.stream {
            dispatch!(simd::level(), s => s.fence());
        }
        sum
    }

    /// Whether an output is but a factor times the exponentials.
    fn is_plain(&self, emission: Emission) -> bool {
        match emission {
            Emission::Softmax => true,
            Emission::Gradient => self.mass.is_none(),
            Emission::LogSoftmax => false,
        }
    }

    /// The second movement, and the losses written.
    fn settle(&self, span: &mut Span<'_>, rows: Range<usize>, s: &mut Scratch<F>) {
        let n = rows.len();
        let plain = self.first.is_some_and(|(emission, _)| self.is_plain(emission));
        let wanted = match (self.first.is_some(), self.second.is_some()) {
            (false, false) => wanted::LOSS,
            (true, false) if plain => wanted::FACTOR,
            _ => wanted::ALL,
        };
        s.sum =
            settle_rows::<F, L>(&self.settle, &s.summaries, &s.terms, n, wanted, &mut s.settled);
        if let Some(output) = self.loss {
            s.out.clear();
            s.out.extend(s.settled.iter().flat_map(|of| of.loss.0.map(F::of)).take(n));
            span.write_column(output, rows, &s.out);
        }
    }

    /// A group of rows, lanes along their classes.
    fn along<P: Parts>(&self, span: &mut Span<'_>, rows: Range<usize>, s: &mut Scratch<F>) {
        let classes = self.input.classes();
        let writes = self.first.is_some() || self.second.is_some();
        let keeps = writes && rows.len() * classes * size_of::<F>() <= KEPT;
        s.e.resize(
            if !writes {
                0
            } else if keeps {
                rows.len() * classes
            } else {
                BLOCK
            },
            F::of(0.0),
        );
        let room = Room::<F>::new(writes);
        s.units.clear();
        for (i, row) in rows.clone().enumerate() {
            let mut total = Summary::EMPTY;
            if s.terms.target[i] == IGNORED {
                total = Summary { max: 0.0, center: 0.0, ties: 1.0, ..total };
                s.units.extend((0..classes).step_by(BLOCK).map(|_| total));
                s.summaries[i / ROWS].set_row(i % ROWS, total);
                continue;
            }
            let headroom = room.of_one(s.terms.rows[i / ROWS].exponent.0[i % ROWS]);
            let mut max = F::of(f64::NEG_INFINITY);
            for block in blocks(classes) {
                let x = lend_or_stage(&self.input, row, block.clone(), &mut s.x, false);
                let mass = self.row_mass::<P>(row, block.clone(), &mut s.q);
                let largest = along::largest(x);
                max = if largest <= max { max } else { largest };
                let part = if keeps {
                    let e = &mut s.e[i * classes..][block.clone()];
                    along::summarise::<P, F, true>(x, max, headroom, &mass, e, BLOCK)
                } else {
                    along::summarise::<P, F, false>(x, max, headroom, &mass, &mut [], BLOCK)
                };
                total = if block.start == 0 { part } else { total.merge(part) };
                s.units.push(part);
            }
            s.summaries[i / ROWS].set_row(i % ROWS, total);
            if let Ok(target) = usize::try_from(s.terms.target[i]) {
                s.terms.rows[i / ROWS].picked.0[i % ROWS] = if self.input.lends_rows::<F>() {
                    self.input.row::<F>(row, target..target + 1)[0].wide()
                } else {
                    self.input.pick::<F>(row, target).wide()
                };
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
            for (b, block) in blocks(classes).enumerate() {
                let unit = s.units[i * per_row + b];
                // Exponentials kept in a unit far from the row's may have lost bits.
                let fits = unit.center == total.center && (unit.k - total.k).abs() <= 16.0;
                let scale = if keeps && fits && per_row > 1 { unit.unit_over(&total) } else { 1.0 };
                self.emit_block::<P>(span, (i, row), block, (keeps, keeps && fits), scale, s);
            }
        }
    }

    /// The third movement of a block of a row: from its kept exponentials where `fits`, which are
    /// `scale` of the row's unit, else from new ones.
    fn emit_block<P: Parts>(
        &self,
        span: &mut Span<'_>,
        (i, row): (usize, usize),
        block: Range<usize>,
        (keeps, fits): (bool, bool),
        scale: f64,
        s: &mut Scratch<F>,
    ) {
        let classes = self.input.classes();
        let first = self.first.map(|(emission, _)| emission);
        let log = first == Some(Emission::LogSoftmax);
        let spread = first == Some(Emission::Gradient) && P::USED;
        let needs_logits = !fits || self.second.is_some() || log || spread;
        let x = if needs_logits {
            // What is written in the input's place must not be read from there.
            lend_or_stage(&self.input, row, block.clone(), &mut s.x, self.in_place)
        } else {
            &[]
        };
        let e =
            if keeps { &mut s.e[i * classes..][block.clone()] } else { &mut s.e[..block.len()] };
        let needs_exponentials = !log || self.second.is_some();
        if !fits && needs_exponentials {
            let exponent = s.terms.rows[i / ROWS].exponent.0[i % ROWS];
            let (max, headroom) =
                (F::of(s.summaries[i / ROWS].max.0[i % ROWS]), Room::new(true).of_one(exponent));
            let none = RowMass { soft: &[], weight: &[], share: headroom, base: headroom };
            along::summarise::<Nothing, F, true>(x, max, headroom, &none, e, BLOCK);
        }
        if let Some(output) = self.second {
            let c = s.settled[i / ROWS].second.row(i % ROWS);
            let c = Coefficients { a: c.a * scale, b: c.b * scale, ..c };
            let from = along::Sources { e, x, mass: RowMass::none() };
            self.emit_row::<Curvature, Nothing>(
                span,
                (output, row),
                block.clone(),
                c,
                &from,
                &mut s.out,
            );
        }
        let Some((emission, output)) = self.first else { return };
        let settled = &s.settled[i / ROWS];
        let c = settled.first.row(i % ROWS);
        let c = Coefficients { a: c.a * scale, ..c };
        if emission == Emission::LogSoftmax {
            let from = along::Sources { e, x, mass: RowMass::none() };
            self.emit_row::<LogProbability, Nothing>(
                span,
                (output, row),
                block,
                c,
                &from,
                &mut s.out,
            );
            return;
        }
        let target = usize::try_from(s.terms.target[i]).ok().filter(|t| block.contains(t));
        if let (Some(target), Emission::Gradient) = (target, emission) {
            let e = &mut e[target - block.start];
            let (keep, patch) = (settled.keep.0[i % ROWS], settled.patch.0[i % ROWS]);
            *e = F::of(keep * e.wide() + patch / scale);
        }
        if spread {
            let mass = self.row_mass::<P>(row, block.clone(), &mut s.q);
            let from = along::Sources { e, x, mass };
            self.emit_row::<Spread<P>, P>(span, (output, row), block, c, &from, &mut s.out);
        } else {
            let from = along::Sources { e, x, mass: RowMass::none() };
            self.emit_row::<Scaled, Nothing>(span, (output, row), block, c, &from, &mut s.out);
        }
    }

    /// Writes a block of an output's row: where it lies, or through a staged copy.
    fn emit_row<M: Map, P: Parts>(
        &self,
        span: &mut Span<'_>,
        (output, row): (usize, usize),
        block: Range<usize>,
        c: Coefficients<f64>,
        from: &along::Sources<'_, F>,
        staged: &mut Vec<F>,
    ) {
        let c = c.map(F::of);
        if span.shape_of(output).lends_rows::<F>() {
            let out = span.row_mut(output, row, block);
            along::emit::<M, P, F>(
                &c,
                from,
                out,
                self.stream && self.input.classes() * size_of::<F>() >= STREAM_ROW,
            );
        } else {
            staged.resize(block.len(), F::of(0.0));
            along::emit::<M, P, F>(&c, from, staged, false);
            span.write(output, row..row + 1, block, 1, 1, staged);
        }
    }

    /// Zeros for a row that does not count.
    fn clear_row(&self, span: &mut Span<'_>, row: usize, s: &mut Scratch<F>) {
        let classes = self.input.classes();
        for output in self.first.map(|(_, o)| o).into_iter().chain(self.second) {
            if span.shape_of(output).lends_rows::<F>() {
                span.row_mut::<F>(output, row, 0..classes).fill(F::of(0.0));
                continue;
            }
            s.out.clear();
            s.out.resize(BLOCK.min(classes), F::of(0.0));
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
        staged: &'b mut Vec<F>,
    ) -> RowMass<'b, F> {
        let Some(mass) = &self.mass else { return RowMass::none() };
        let soft: &[F] = match &mass.soft {
            Some(soft) => lend_or_stage(soft, row, block.clone(), staged, false),
            None => &[],
        };
        let weight: &[F] = mass.weight.as_ref().map_or(&[], |w| &w[block]);
        RowMass { soft, weight, share: mass.share, base: mass.base }
    }

    /// A group of rows, lanes across them.
    fn across<P: Parts>(&self, span: &mut Span<'_>, rows: Range<usize>, s: &mut Scratch<F>) {
        let classes = self.input.classes();
        let n = rows.len();
        let step = tile::step(n);
        let writes = self.first.is_some() || self.second.is_some();
        let width = if step * classes <= TILE_KEPT { classes } else { (TILE / step).max(1) };
        let keeps = width >= classes;
        resize(&mut s.e, if writes { step * width } else { 0 });
        if classes == 0 {
            (0..n).for_each(|i| s.summaries[i / ROWS].set_row(i % ROWS, Summary::EMPTY));
        }
        for block in tiles(classes, width) {
            tile::stage(&self.input, rows.clone(), block.clone(), &mut s.x);
            let mass = self.tile_mass::<P>(rows.clone(), block.clone(), &mut s.q);
            let size = across::Size { rows: n, classes: block.len() };
            let into = if block.start == 0 { &mut s.summaries } else { &mut s.part };
            let room = Room::new(writes);
            let Terms { target, rows: terms } = &mut s.terms;
            indices(target, block.start, &mut s.index);
            if writes && keeps {
                let e = &mut s.e;
                across::summarise::<P, F, true>(&s.x, size, room, &s.index, terms, &mass, e, into);
            } else {
                let e = &mut [];
                across::summarise::<P, F, false>(&s.x, size, room, &s.index, terms, &mass, e, into);
            }
            if block.start > 0 {
                merge_rows(&mut s.summaries, &s.part);
            }
        }
        self.settle(span, rows.clone(), s);
        if !writes {
            return;
        }
        let any_ignored = s.terms.target[..n].contains(&IGNORED);
        if any_ignored {
            s.ignored.clear();
            let flag = |t: &i64| F::of(f64::from(u8::from(*t == IGNORED)));
            s.ignored.extend(s.terms.target[..n].iter().map(flag));
            s.ignored.resize(n.next_multiple_of(ROWS), F::of(0.0));
        }
        for block in tiles(classes, width) {
            self.emit_tile::<P>(span, rows.clone(), block, (keeps, any_ignored), s);
        }
    }

    /// The third movement of a tile. Where exponentials were kept, so were logits.
    fn emit_tile<P: Parts>(
        &self,
        span: &mut Span<'_>,
        rows: Range<usize>,
        block: Range<usize>,
        (keeps, any_ignored): (bool, bool),
        s: &mut Scratch<F>,
    ) {
        let n = rows.len();
        let step = tile::step(n);
        let e = &mut s.e[..step * block.len()];
        if !keeps {
            tile::stage(&self.input, rows.clone(), block.clone(), &mut s.x);
            let size = across::Size { rows: n, classes: block.len() };
            across::exponentials(&s.x, size, &s.summaries, e);
        }
        let ignored = any_ignored.then_some(s.ignored.as_slice());
        let none = TileMass { soft: &[], weight: &[], share: F::of(0.0), base: F::of(0.0) };
        let at = (rows.clone(), block.clone());
        if let Some(output) = self.second {
            let (coefficients, target) =
                narrow(&s.settled, |of| &of.second, n, true, &mut s.narrow, &[]);
            let from = across::Sources { coefficients, target, ignored, e, x: &s.x, mass: none };
            self.emit_to::<Curvature, Nothing>(span, output, at.clone(), &from, &mut s.out);
        }
        let Some((emission, output)) = self.first else { return };
        indices(&s.terms.target, block.start, &mut s.index);
        let plain = self.is_plain(emission);
        let (coefficients, target) =
            narrow(&s.settled, |of| &of.first, n, !plain, &mut s.narrow, &s.index);
        let mut from = across::Sources { coefficients, target, ignored, e, x: &s.x, mass: none };
        if emission == Emission::LogSoftmax {
            self.emit_to::<LogProbability, Nothing>(span, output, at, &from, &mut s.out);
        } else if emission == Emission::Gradient && P::USED {
            from.mass = self.tile_mass::<P>(rows, block, &mut s.q);
            self.emit_to::<Spread<P>, P>(span, output, at, &from, &mut s.out);
        } else if emission == Emission::Gradient {
            self.emit_to::<Targeted, Nothing>(span, output, at, &from, &mut s.out);
        } else {
            self.emit_to::<Scaled, Nothing>(span, output, at, &from, &mut s.out);
        }
    }

    /// Writes a tile of an output: where it lies, or through a staged copy.
    fn emit_to<M: Map, P: Parts>(
        &self,
        span: &mut Span<'_>,
        output: usize,
        (rows, block): (Range<usize>, Range<usize>),
        from: &across::Sources<'_, F>,
        staged: &mut Vec<F>,
    ) {
        let n = rows.len();
        if span.shape_of(output).lends_columns::<F>(&rows) {
            let mut out = span.lines_of_rows_mut(output, rows, block);
            across::emit::<M, P, F>(from, n, &mut out, self.stream);
            return;
        }
        let step = tile::step(n);
        resize(staged, step * block.len());
        let mut out = LinesMut::of(staged, n, block.len(), step);
        across::emit::<M, P, F>(from, n, &mut out, false);
        tile::write(staged, span, output, rows, block);
    }

    /// The masses of a tile.
    fn tile_mass<'b, P: Parts>(
        &'b self,
        rows: Range<usize>,
        block: Range<usize>,
        staged: &'b mut Vec<F>,
    ) -> TileMass<'b, F> {
        let Some(mass) = &self.mass else {
            return TileMass { soft: &[], weight: &[], share: F::of(0.0), base: F::of(0.0) };
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

impl<F: Element> RowMass<'_, F> {
    fn none() -> Self {
        Self { soft: &[], weight: &[], share: F::of(0.0), base: F::of(0.0) }
    }
}

impl<F: Element> Scratch<F> {
    /// Makes room for a group of rows.
    fn begin(&mut self, rows: usize) {
        let groups = rows.div_ceil(ROWS);
        self.terms.begin(rows);
        if self.settled.len() < groups {
            self.summaries.resize(groups, Summary::default());
            self.part.resize(groups, Summary::default());
            self.settled.resize(groups, Settled::default());
        }
    }
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
    staged: &'b mut Vec<F>,
    copy: bool,
) -> &'b [F] {
    if !copy && from.lends_rows::<F>() {
        return from.row(row, block);
    }
    staged.resize(BLOCK, F::of(0.0));
    let n = block.len();
    from.stage(row..row + 1, block, 1, 1, staged);
    &staged[..n]
}

/// Blocks of `width` classes.
fn tiles(classes: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..classes).step_by(width.max(1)).map(move |start| start..(start + width).min(classes))
}

/// Target classes counted from the first class of a block.
fn indices<F: Element>(target: &[i64], first: usize, out: &mut Vec<F>) {
    resize(out, target.len());
    simd::vectorized(
        #[inline(always)]
        || {
            for (out, t) in out.iter_mut().zip(target) {
                *out = F::of((*t - first as i64) as f64);
            }
        },
    );
}

/// Makes a slice at least so long.
fn resize<F: Element>(v: &mut Vec<F>, len: usize) {
    if v.len() < len {
        v.resize(len, F::of(0.0));
    }
}

/// Coefficients in the kernel's type; of a plain factor, that alone.
fn narrow<'b, F: Element>(
    settled: &[Settled<Field>],
    of: impl Fn(&Settled<Field>) -> &Coefficients<Field>,
    rows: usize,
    all: bool,
    out: &'b mut [Vec<F>; 6],
    index: &'b [F],
) -> (Coefficients<&'b [F]>, across::Target<&'b [F]>) {
    let groups = rows.div_ceil(ROWS);
    let [a, keep, patch, b, max, at_max] = out;
    for out in [&mut *a, keep, patch, b, max, at_max] {
        resize(out, groups * ROWS);
    }
    simd::vectorized(
        #[inline(always)]
        || {
            for (i, settled) in settled[..groups].iter().enumerate() {
                let lanes = i * ROWS..(i + 1) * ROWS;
                let from = of(settled);
                narrow_field(&from.a, &mut a[lanes.clone()]);
                narrow_field(&settled.keep, &mut keep[lanes.clone()]);
                narrow_field(&settled.patch, &mut patch[lanes.clone()]);
                if all {
                    narrow_field(&from.b, &mut b[lanes.clone()]);
                    narrow_field(&from.max, &mut max[lanes.clone()]);
                    narrow_field(&from.at_max, &mut at_max[lanes]);
                }
            }
        },
    );
    (Coefficients { a, b, max, at_max }, across::Target { index, keep, patch })
}

#[inline(always)]
fn narrow_field<F: Element>(from: &Field, to: &mut [F]) {
    to.iter_mut().zip(&from.0).for_each(|(to, from)| *to = F::of(*from));
}
