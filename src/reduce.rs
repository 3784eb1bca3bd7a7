//! From the losses of rows to the answer: reductions, class weights, denominators, upstream
//! gradients.

use crate::error::{Error, Result};
use crate::memory::{self, resize};
use crate::pool::{self, Crew};
use crate::simd;
use crate::simd::sum::Compensated;
use crate::view::{Order, Rows, Spans, View, show_shape};
use std::ops::Range;

/// What becomes of the losses of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// They are the answer.
    None,
    /// Their sum over a denominator: the sum of the class weights applied, or the number of rows.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// From its name in the Python interface.
    ///
    /// # Errors
    /// Where there is no such reduction.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            _ => Err(Error::Value(format!(
                "reduction must be 'none', 'mean' or 'sum', got {name:?}"
            ))),
        }
    }
}

/// From the losses of rows to the answer: what a caller says of it.
#[derive(Clone, Debug)]
pub struct Reduce<'a> {
    /// What becomes of the losses.
    pub reduction: Reduction,
    /// What each loss is multiplied by, shaped as the losses; 0 leaves a row out, whatever is in it.
    pub sample_weight: Option<View<'a>>,
    /// What a mean divides by, if not by the sum of the weights that were applied.
    pub denominator: Option<f64>,
    /// The mean of nothing.
    pub empty: f64,
    /// The upstream gradient, a number.
    pub grad_output: f64,
    /// The upstream gradient, an array of the answer's shape; comes before the number.
    pub grad_outputs: Option<View<'a>>,
}

impl Default for Reduce<'_> {
    fn default() -> Self {
        Self {
            reduction: Reduction::None,
            sample_weight: None,
            denominator: None,
            empty: f64::NAN,
            grad_output: 1.0,
            grad_outputs: None,
        }
    }
}

impl<'a> Reduce<'a> {
    /// Checks against the shape of the losses.
    pub(crate) fn check(&self, losses: &[usize]) -> Result<()> {
        if let Some(weight) = &self.sample_weight
            && weight.shape() != losses
        {
            return Err(Error::Value(format!(
                "sample_weight must have the shape {} of the losses, got {}",
                show_shape(losses),
                show_shape(weight.shape())
            )));
        }
        let answer = if self.reduction == Reduction::None { losses } else { &[] };
        if let Some(g) = &self.grad_outputs
            && g.shape() != answer
        {
            return Err(Error::Value(format!(
                "grad_output must be a number or have the loss's shape {}, got {}",
                show_shape(answer),
                show_shape(g.shape())
            )));
        }
        Ok(())
    }

    /// The upstream gradient, by rows where `rows` sees an array shaped as the losses so.
    pub(crate) fn upstream(&self, rows: impl Fn(View<'a>) -> Rows<'a>) -> Upstream<'a> {
        match &self.grad_outputs {
            Some(g) if self.reduction == Reduction::None => Upstream::PerRow(rows(g.clone())),
            Some(g) => Upstream::Same(g.to_vec::<f64>()[0]),
            None => Upstream::Same(self.grad_output),
        }
    }

    /// What the sum of the losses is divided by, where weights that sum to `counted` were applied.
    pub(crate) fn denominator(&self, counted: f64) -> f64 {
        match self.reduction {
            Reduction::Mean => self.denominator.unwrap_or(counted),
            Reduction::None | Reduction::Sum => 1.0,
        }
    }

    /// The answer: the sum of the losses over a denominator.
    pub(crate) fn answer(&self, sum: f64, denominator: f64) -> f64 {
        if denominator == 0.0 { self.empty } else { sum / denominator }
    }

    /// The sum of the weights of `losses` losses, each 1 without weights.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn applied(&self, losses: usize, interrupted: &dyn Fn() -> bool) -> Result<f64> {
        match &self.sample_weight {
            Some(weight) if self.reduction == Reduction::Mean && self.denominator.is_none() => {
                total(&Rows::new(weight.clone(), None, &Order::of(weight, None)), interrupted)
            }
            _ => Ok(losses as f64),
        }
    }

    /// The least magnitude but 0 of what derivatives are multiplied by, where what is counted of each
    /// of `losses` losses is at most `counted`, and its weight.
    pub(crate) fn least(&self, upstream: &Upstream<'_>, losses: usize, counted: f64) -> f64 {
        let [least, most] = self.sample_weight.as_ref().map_or([1.0; 2], |weight| {
            magnitudes(&Rows::new(weight.clone(), None, &Order::of(weight, None)))
        });
        upstream.least() * least / self.denominator(losses.max(1) as f64 * counted * most)
    }
}

/// The smallest magnitude in a column but 0, infinite where there is none, and the largest.
fn magnitudes(rows: &Rows<'_>) -> [f64; 2] {
    // By the bits less one, which makes 0 the largest: extrema of integers are what loops take by
    // vectors.
    let (mut some, mut least, mut most) = ([0.0_f64; GROUP], u64::MAX, 0);
    for start in (0..rows.rows()).step_by(GROUP) {
        let end = (start + GROUP).min(rows.rows());
        rows.stage_column(start..end, &mut some);
        for v in &some[..end - start] {
            let bits = v.abs().to_bits();
            (least, most) = (u64::min(least, bits.wrapping_sub(1)), u64::max(most, bits));
        }
    }
    let least = if least == u64::MAX { f64::INFINITY } else { f64::from_bits(least + 1) };
    [least, f64::from_bits(most)]
}

/// The sum of an array of one number a row.
///
/// # Errors
/// Where `interrupted` says so.
fn total(rows: &Rows<'_>, interrupted: &dyn Fn() -> bool) -> Result<f64> {
    let spans = Spans::new(rows.rows(), 32 * GROUP, Vec::new());
    let sums = memory::places::<Compensated>(spans.count())?;
    let crew = Crew::of(rows.rows(), PARALLEL);
    pool::run(&spans, crew, interrupted, |span, some: &mut Vec<f64>| {
        let mut sum = Compensated::default();
        resize(some, GROUP, 0.0);
        for start in span.rows().step_by(GROUP) {
            let some = &mut some[..GROUP.min(span.rows().end - start)];
            rows.stage_column(start..start + some.len(), some);
            some.iter().for_each(|v| sum.add(*v));
        }
        sums[span.index()].set(sum).expect("a span is drawn once");
    })?;
    let mut all = Compensated::default();
    for sum in &sums {
        all.merge(*sum.get().expect("every span was drawn"));
    }
    Ok(all.value())
}

/// The upstream gradient: of a reduced loss a number, of losses an array of their shape.
#[derive(Clone, Debug)]
pub enum Upstream<'a> {
    /// The same for every row.
    Same(f64),
    /// One a row.
    PerRow(Rows<'a>),
}

impl Upstream<'_> {
    /// Its least magnitude but 0.
    pub(crate) fn least(&self) -> f64 {
        match self {
            Self::Same(0.0) => f64::INFINITY,
            Self::Same(g) => g.abs(),
            Self::PerRow(rows) => magnitudes(rows)[0],
        }
    }
}

/// Rows of one number each from which threads pay.
pub(crate) const PARALLEL: usize = 256 << 10;
/// Rows that are looked at together.
const GROUP: usize = 512;

/// What marks a row of weight 0 where no index says that a row does not count.
pub(crate) const NO_INDEX: i64 = i64::MIN;

/// What a look at the target classes of rows finds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    /// The sum of the weights of the rows that count, each 1 without weights.
    counted: Compensated,
    /// The first row with a class out of range, and that class as it was read.
    pub(crate) wrong: Option<(usize, i64)>,
}

impl Census {
    /// Of the rows from `first` on, which have these targets and, where given, weights of their own.
    pub(crate) fn of(
        target: &[i64],
        first: usize,
        classes: usize,
        ignore_index: Option<i64>,
        weight: Option<&[f64]>,
        sample: Option<&[f64]>,
    ) -> Self {
        let (live, bad) = count(target, classes, ignore_index);
        let mut census = Self::default();
        if bad > 0 {
            let is_bad = |t: &i64| Some(*t) != ignore_index && *t as u64 >= classes as u64;
            census.wrong = target.iter().position(is_bad).map(|at| (first + at, target[at]));
        } else if weight.is_some() || sample.is_some() {
            for (i, &t) in target.iter().enumerate().filter(|(_, t)| Some(**t) != ignore_index) {
                let of_class = weight.map_or(1.0, |weight| weight[t as usize]);
                census.counted.add(of_class * sample.map_or(1.0, |sample| sample[i]));
            }
        } else {
            census.counted.add(live as f64);
        }
        census
    }

    /// Adds what was found in later rows.
    pub(crate) fn merge(&mut self, later: Self) {
        self.counted.merge(later.counted);
        self.wrong = self.wrong.or(later.wrong);
    }

    /// The sum of the weights of the rows that count.
    pub(crate) fn counted(&self) -> f64 {
        self.counted.value()
    }
}

/// Looks at every target class, before anything is computed.
///
/// # Errors
/// Where `interrupted` says so.
pub(crate) fn census(
    target: &Rows<'_>,
    classes: usize,
    ignore_index: Option<i64>,
    weight: Option<&[f64]>,
    sample: Option<&Rows<'_>>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Census> {
    let ignore_index = ignore_index.or(sample.map(|_| NO_INDEX));
    let spans = Spans::new(target.rows(), 32 * GROUP, Vec::new());
    let found = memory::places::<Census>(spans.count())?;
    let crew = Crew::of(target.rows(), PARALLEL);
    pool::run(&spans, crew, interrupted, |span, scratch: &mut (Vec<i64>, Vec<f64>)| {
        let mut census = Census::default();
        let rows = span.rows();
        for start in rows.clone().step_by(GROUP) {
            let rows = start..(start + GROUP).min(rows.end);
            let (targets, own) = scratch;
            resize(targets, rows.len(), 0);
            target.stage_indices(rows.clone(), targets);
            let own = sample.zip(ignore_index).map(|(sample, ignored)| {
                resize(own, rows.len(), 0.0);
                stage_weights(sample, rows, targets, ignored, own);
                &own[..]
            });
            census.merge(Census::of(targets, start, classes, ignore_index, weight, own));
        }
        found[span.index()].set(census).expect("a span is drawn once");
    })?;
    let mut all = Census::default();
    for found in &found {
        all.merge(*found.get().expect("every span was drawn"));
    }
    Ok(all)
}

/// Copies the weights of some rows; where one is 0, the row's target becomes `ignored`.
pub(crate) fn stage_weights(
    sample: &Rows<'_>,
    rows: Range<usize>,
    targets: &mut [i64],
    ignored: i64,
    weights: &mut [f64],
) {
    sample.stage_column(rows, weights);
    for (target, weight) in targets.iter_mut().zip(weights) {
        if *weight == 0.0 {
            *target = ignored;
        }
    }
}

/// How many targets count, and how many of these are no class.
fn count(target: &[i64], classes: usize, ignore_index: Option<i64>) -> (u64, u64) {
    let (ignores, ignored) = (ignore_index.is_some(), ignore_index.unwrap_or_default());
    simd::vectorized(
        #[inline(always)]
        || {
            let (mut live, mut bad) = (0, 0);
            for &t in target {
                let counts = !(ignores & (t == ignored));
                live += u64::from(counts);
                bad += u64::from(counts & (t as u64 >= classes as u64));
            }
            (live, bad)
        },
    )
}
