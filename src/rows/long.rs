//! Rows that threads share: long ones, where by whole rows some would idle at the end.
//!
//! Summaries of parts merge, and what is written of a class needs but its row's: a first sweep
//! summarises parts, a second settles the row of each and emits it. Long rows are
//! summarised in the same parts where one thread has them, so that nothing shows of who did what.

use super::Shared;
use super::along::{self, Block, blocks};
use super::mass::{Parts, with_parts};
use super::scratch::Scratch;
use super::settle::IGNORED;
use super::summary::Summary;
use crate::error::Result;
use crate::memory;
use crate::pool::{self, Crew};
use crate::reduce::Census;
use crate::simd::sum::Compensated;
use crate::simd::{self, Element};
use crate::view::{RowsMut, Span, Spans};
use std::ops::Range;
use std::sync::OnceLock;

/// Classes of a part: whole blocks.
pub(super) const PART: usize = 128 << 10;

/// The parts of a row.
pub(super) fn parts(classes: usize) -> impl Iterator<Item = Range<usize>> {
    along::parts(0..classes, PART)
}

/// Whether threads share rows: for one sweep where that leaves less to wait for at the end, for two,
/// which read a row twice from afar, where a fifth of the threads' time would go by idly.
pub(super) fn are_shared(rows: usize, classes: usize, writes: bool) -> bool {
    let threads = pool::num_threads();
    let slots = threads * rows.div_ceil(threads);
    classes >= 2 * PART
        && if writes { 5 * rows < 4 * slots } else { rows < 16 * threads && rows < slots }
}

/// What the first sweep finds of a part, and then of a row.
#[derive(Clone, Copy, Debug)]
struct Found {
    summary: Summary,
    /// The target's logit, which another part may write over later.
    picked: f64,
}

impl<F: Element> Shared<'_, '_, F> {
    /// Computes all rows in parts; of each, the sum of its losses and what was found of its target.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(super) fn share_rows(
        &self,
        outputs: Vec<RowsMut<'_>>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<OnceLock<(Compensated, Census)>>> {
        let rows = self.input.rows();
        let results = memory::places(rows)?;
        let count = self.input.classes().div_ceil(PART);
        let spans = Spans::in_parts(rows, (count, PART), Vec::new());
        let parts = memory::places::<Found>(spans.count())?;
        pool::run(&spans, Crew::All, interrupted, |span, s: &mut Scratch<F>| {
            self.begin(span, s);
            self.pick(0, span.rows().start, s);
            let picked = s.terms.rows[0].picked.0[0];
            let summary = with_parts!(self.mass, P => self.summarise_part::<P>(span, s));
            parts[span.index()].set(Found { summary, picked }).expect("a span is drawn once");
        })?;
        let own = with_parts!(self.mass, P => P::OWN);
        let whole = |parts: &[OnceLock<Found>]| {
            let parts = parts.iter().map(|part| *part.get().expect("every part was summarised"));
            let merged = |all: Found, part: Found| Found {
                summary: all.summary.merge(part.summary, own),
                ..all
            };
            parts.reduce(merged).expect("a row has parts")
        };
        let found: Vec<Found> = parts.chunks(count).map(whole).collect();
        let (parts, crew) = if self.writes() { (count, Crew::All) } else { (1, Crew::Alone) };
        let spans = Spans::in_parts(rows, (parts, PART), outputs);
        pool::run(&spans, crew, interrupted, |span, s: &mut Scratch<F>| {
            let row = span.rows().start;
            let census = self.begin(span, s);
            with_parts!(self.mass, P => self.emit_part::<P>(span, found[row], s));
            if span.classes().start == 0 {
                let mut sum = Compensated::default();
                sum.add(s.sum);
                results[row].set((sum, census)).expect("a row has one first part");
            }
            if self.stream {
                simd::fence();
            }
        })?;
        Ok(results)
    }

    /// Takes the row of a part.
    fn begin(&self, span: &Span<'_>, s: &mut Scratch<F>) -> Census {
        s.begin(1);
        let census = self.settle.terms(span.rows(), &mut s.terms);
        s.terms.end(1);
        s.units.clear();
        census
    }

    fn classes(&self, span: &Span<'_>) -> Range<usize> {
        let part = span.classes();
        part.start..part.end.min(self.input.classes())
    }

    fn summarise_part<P: Parts>(&self, span: &Span<'_>, s: &mut Scratch<F>) -> Summary {
        let row = span.rows().start;
        if s.terms.target[0] == IGNORED {
            return Summary::IGNORED;
        }
        let writes = (self.writes(), false);
        self.summarise::<P>((0, row), self.classes(span), writes, &mut None, s)
    }

    /// The second movement of a part's row, and the third of the part.
    fn emit_part<P: Parts>(&self, span: &mut Span<'_>, found: Found, s: &mut Scratch<F>) {
        let (row, classes) = (span.rows().start, self.classes(span));
        let ignored = s.terms.target[0] == IGNORED;
        let total = if ignored { Summary::IGNORED } else { found.summary };
        s.terms.rows[0].picked.0[0] = found.picked;
        s.summaries[0].set_row(0, total);
        self.settle(1, s);
        if classes.start == 0 {
            self.write_losses(span, row..row + 1, s);
        }
        if !self.writes() {
            return;
        }
        if ignored {
            self.clear(span, row, classes, s);
            return;
        }
        s.e.fit(along::block::<P>());
        for classes in blocks::<P>(classes) {
            self.emit_block::<P>(span, Block { i: 0, row, classes }, None, &total, s);
        }
    }
}
