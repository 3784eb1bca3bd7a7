//! From the losses of rows to the answer: reductions, class weights, denominators, upstream
//! gradients.

use crate::error::{Error, Result};
use crate::pool;
use crate::simd;
use crate::simd::sum::Compensated;
use crate::view::{Rows, Spans};
use std::sync::OnceLock;

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

/// The upstream gradient: of a reduced loss a number, of losses an array of their shape.
#[derive(Clone, Debug)]
pub enum Upstream<'a> {
    /// The same for every row.
    Same(f64),
    /// One a row.
    PerRow(Rows<'a>),
}

/// Rows of one number each from which threads pay.
pub(crate) const PARALLEL: usize = 256 << 10;
/// Rows that are looked at together.
const GROUP: usize = 512;

/// What a look at the target classes of rows finds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    /// The sum of the class weights of the rows that count, each 1 without weights.
    counted: Compensated,
    /// The first row with a class out of range.
    pub(crate) wrong: Option<usize>,
}

impl Census {
    /// Of the rows from `first` on, which have these targets.
    pub(crate) fn of(
        target: &[i64],
        first: usize,
        classes: usize,
        ignore_index: i64,
        weight: Option<&[f64]>,
    ) -> Self {
        let (live, bad) = count(target, classes, ignore_index);
        let mut census = Self::default();
        if bad > 0 {
            let is_bad = |t: &i64| *t != ignore_index && *t as u64 >= classes as u64;
            census.wrong = target.iter().position(is_bad).map(|at| first + at);
        } else if let Some(weight) = weight {
            for &t in target.iter().filter(|t| **t != ignore_index) {
                census.counted.add(weight[t as usize]);
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

    /// The sum of the class weights of the rows that count.
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
    ignore_index: i64,
    weight: Option<&[f64]>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Census> {
    let spans = Spans::new(target.rows(), 32 * GROUP, Vec::new());
    let found: Vec<OnceLock<Census>> = vec![OnceLock::new(); spans.count()];
    pool::run(&spans, target.rows() >= PARALLEL, interrupted, |span, group: &mut Vec<i64>| {
        let mut census = Census::default();
        group.resize(GROUP, 0);
        let rows = span.rows();
        for start in rows.clone().step_by(GROUP) {
            let group = &mut group[..GROUP.min(rows.end - start)];
            target.stage_indices(start..start + group.len(), group);
            census.merge(Census::of(group, start, classes, ignore_index, weight));
        }
        found[span.index()].set(census).expect("a span is drawn once");
    })?;
    let mut all = Census::default();
    for found in &found {
        all.merge(*found.get().expect("every span was drawn"));
    }
    Ok(all)
}

/// How many targets count, and how many of these are no class.
fn count(target: &[i64], classes: usize, ignore_index: i64) -> (u64, u64) {
    simd::vectorized(
        #[inline(always)]
        || {
            let (mut live, mut bad) = (0, 0);
            for &t in target {
                let counts = t != ignore_index;
                live += u64::from(counts);
                bad += u64::from(counts & (t as u64 >= classes as u64));
            }
            (live, bad)
        },
    )
}
