//! The softmax family's engine: three movements over groups of rows small enough to stay in cache.
//!
//! 1. *Summarise*: one pass over a row gives its [`Summary`](summary::Summary): the maximum, the
//!    rest, and what the loss asks for besides.
//! 2. *Settle*: from the summaries alone, a loss and the coefficients of its derivatives. A loss
//!    *is* this movement ([`Settle`](settle::Settle)).
//! 3. *Emit*: a second pass, from cache, writes what each class gets ([`Map`](emit::Map)).
//!
//! Two traversals share the movements: [`along`] the classes where they lie next to each other and
//! are many, [`across`] rows where rows do, or where classes are too few to fill vectors. Threads draw
//! rows; of few rows that are [`long`], parts.

mod across;
mod along;
mod emit;
#[cfg(feature = "python")]
pub(crate) mod floor;
mod long;
pub(crate) mod mass;
pub(crate) mod pairs;
mod scratch;
pub(crate) mod settle;
mod summary;
mod tile;

use crate::error::Result;
use crate::memory;
use crate::pool::{self, Crew};
use crate::reduce::Census;
use crate::simd::sum::Compensated;
use crate::simd::{self, Element};
use crate::view::{Rows, RowsMut, Span, Spans};
use crate::warp::Warped;
use mass::{Mass, with_parts};
use scratch::Scratch;
use settle::{MORE, Member, Room, wanted};
use std::ops::Range;
pub(crate) use summary::{Field, ROWS};

/// With fewer classes than these, lanes are rows: where a vector has sixteen lanes, and where it has
/// fewer. A row along its classes takes time for itself, whatever it holds.
const ALONG: [usize; 2] = [112, 80];
/// The first of these where rows are swept together, which shares that time.
const TOGETHER: usize = 60;
/// Elements of the rows along which a group is settled together.
const GROUP: usize = 16 << 10;
/// Elements of a span, the unit of work that threads draw.
const SPAN: usize = 160 << 10;
/// Elements from which threads pay.
const PARALLEL: usize = 192 << 10;

/// What is written for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emission {
    /// The gradient of the loss.
    Gradient,
    /// The probabilities.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
    /// The gradient of their entropy.
    Tilt,
    /// That of their entropy and of the target's log-probability.
    Token,
}

impl Emission {
    /// Whether it is with respect to the logits, which may be warped.
    fn is_derivative(self) -> bool {
        match self {
            Self::Gradient | Self::Tilt | Self::Token => true,
            Self::Softmax | Self::LogSoftmax => false,
        }
    }
}

/// What a call of the family computes, and where to.
pub(crate) struct Job<'a, F: Element> {
    pub(crate) input: Rows<'a>,
    /// What becomes of the input before anything else.
    pub(crate) warp: Option<Warped<'a>>,
    pub(crate) mass: Option<Mass<'a, F>>,
    pub(crate) settle: &'a dyn Member<F>,
    /// One value a row.
    pub(crate) loss: Option<RowsMut<'a>>,
    /// More of each row, where the member of the family has it.
    pub(crate) more: [Option<RowsMut<'a>>; MORE],
    /// What [`Self::first`] is.
    pub(crate) emission: Emission,
    /// One value a class.
    pub(crate) first: Option<RowsMut<'a>>,
    /// The Hessian's diagonal.
    pub(crate) second: Option<RowsMut<'a>>,
    /// Whether an output is the input's own memory.
    pub(crate) in_place: bool,
    /// The least magnitude but 0 that the upstream gradient of a row may have.
    pub(crate) least_upstream: f64,
}

/// What spans share.
struct Shared<'j, 'a, F: Element> {
    input: &'j Rows<'a>,
    warp: Option<&'j Warped<'a>>,
    mass: Option<&'j Mass<'a, F>>,
    settle: &'j dyn Member<F>,
    loss: Option<usize>,
    more: [Option<usize>; MORE],
    emission: Emission,
    first: Option<usize>,
    second: Option<usize>,
    in_place: bool,
    stream: bool,
}

impl<'a, F: Element> Job<'a, F> {
    /// Runs the job; returns the sum of the losses, and what was found among the targets.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn run(mut self, interrupted: &dyn Fn() -> bool) -> Result<(f64, Census)> {
        let derives = self.first.is_some() || self.second.is_some();
        let small = self.least_upstream.log2() < Room::<F>::least_exponent();
        if !(derives && small) {
            return self.pass(interrupted);
        }
        // A very small upstream gradient takes the headroom that a very small loss needs: losses are
        // computed by themselves.
        let (first, second) = (self.first.take(), self.second.take());
        let answer = self.pass(interrupted)?;
        (self.first, self.second) = (first, second);
        self.pass(interrupted)?;
        Ok(answer)
    }

    /// Computes the outputs that are there, and takes them.
    fn pass(&mut self, interrupted: &dyn Fn() -> bool) -> Result<(f64, Census)> {
        let (rows, classes) = (self.input.rows(), self.input.classes());
        let written = || [&self.first, &self.second].into_iter().flatten();
        let stream = written().next().is_some() && written().all(RowsMut::streams::<F>);
        let mut outputs = Vec::new();
        let mut push = |o: RowsMut<'a>| {
            outputs.push(o);
            outputs.len() - 1
        };
        let shared = Shared {
            loss: self.loss.take().map(&mut push),
            more: std::mem::take(&mut self.more).map(|o| o.map(&mut push)),
            first: self.first.take().map(&mut push),
            second: self.second.take().map(&mut push),
            stream,
            input: &self.input,
            warp: self.warp.as_ref(),
            mass: self.mass.as_ref(),
            settle: self.settle,
            emission: self.emission,
            in_place: self.in_place,
        };
        let along = shared.goes_along();
        let group = shared.group(along);
        let results = if along && long::are_shared(rows, classes, shared.writes()) {
            shared.share_rows(outputs, interrupted)?
        } else {
            let step = (SPAN / classes.max(1)).max(1).next_multiple_of(group);
            let spans = Spans::new(rows, step, outputs);
            let results = memory::places(spans.count())?;
            pool::run(&spans, Crew::of(rows * classes, PARALLEL), interrupted, |span, scratch| {
                let result = shared.span(span, along, group, scratch);
                results[span.index()].set(result).expect("a span is drawn once");
            })?;
            results
        };
        let (mut total, mut found) = (Compensated::default(), Census::default());
        for result in &results {
            let (sum, census) = result.get().expect("every span was drawn");
            total.merge(*sum);
            found.merge(*census);
        }
        Ok((total.value(), found))
    }
}

impl<F: Element> Shared<'_, '_, F> {
    /// Whether lanes are classes.
    fn goes_along(&self) -> bool {
        let close = self.input.classes_are_close() || self.input.rows() < 8;
        let [of_many, of_few] = ALONG;
        let along = match (simd::lanes_in_force::<F>() >= 16, self.sweeps_together()) {
            (true, true) => TOGETHER,
            (true, false) => of_many,
            (false, _) => of_few,
        };
        close && self.input.classes() >= along
    }

    /// Rows that are settled together.
    fn group(&self, along: bool) -> usize {
        if along { (GROUP / self.input.classes()).clamp(1, ROWS) } else { self.rows_across() }
    }

    fn span(
        &self,
        span: &mut Span<'_>,
        along: bool,
        group: usize,
        scratch: &mut Scratch<F>,
    ) -> (Compensated, Census) {
        let (mut sum, mut census) = (Compensated::default(), Census::default());
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
            census.merge(self.settle.terms(at..end, &mut scratch.terms));
            scratch.terms.end(n);
            if along {
                with_parts!(self.mass, P => self.along::<P>(span, at..end, scratch));
            } else {
                with_parts!(self.mass, P => self.across::<P>(span, at..end, scratch));
            }
            sum.add(scratch.sum);
            at = end;
        }
        if self.stream {
            simd::fence();
        }
        (sum, census)
    }

    /// Whether anything is written for each class.
    fn writes(&self) -> bool {
        self.first.is_some() || self.second.is_some()
    }

    /// Whether the first output is but a factor times the exponentials.
    fn is_plain(&self) -> bool {
        match self.emission {
            Emission::Softmax => true,
            Emission::Gradient => self.mass.is_none(),
            Emission::LogSoftmax | Emission::Tilt | Emission::Token => false,
        }
    }

    /// The second movement, of `n` rows.
    fn settle(&self, n: usize, s: &mut Scratch<F>) {
        let wanted = match (self.first.is_some(), self.second.is_some()) {
            (false, false) => wanted::LOSS,
            (true, false) if self.is_plain() => wanted::FACTOR,
            _ => wanted::ALL,
        };
        let (losses, factors) = ((&mut s.losses[..], &mut s.more[..]), &mut s.factors);
        s.sum = self.settle.settle_rows(&s.summaries, &s.terms, n, wanted, losses, factors);
    }

    /// Writes what was settled of rows.
    fn write_losses(&self, span: &mut Span<'_>, rows: Range<usize>, s: &mut Scratch<F>) {
        let n = rows.len();
        for (of, output) in self.more.iter().enumerate() {
            if let Some(output) = output {
                let all: Vec<f64> = s.more.iter().flat_map(|more| more[of].0).take(n).collect();
                span.write_column(*output, rows.clone(), &all);
            }
        }
        if let Some(output) = self.loss {
            let losses = s.losses.iter().flat_map(|of| of.0);
            for (out, loss) in s.out.fit(n).iter_mut().zip(losses) {
                *out = F::of(loss);
            }
            span.write_column(output, rows, &s.out);
        }
    }
}
