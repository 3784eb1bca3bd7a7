//! Negative log-likelihood of log-probabilities: `loss = -w_y x_y`.
//!
//! The gradient is `-w_y` at the target class and 0 elsewhere: no pass over the classes but the one
//! that writes zeros.

use super::common::{Inputs, Outputs, Targets};
use crate::error::Result;
use crate::memory;
use crate::pool::{self, Crew};
use crate::reduce::PARALLEL;
use crate::rows::ROWS;
use crate::rows::settle::{IGNORED, Terms};
use crate::simd::sum::Compensated;
use crate::view::{Rows, RowsMut, Spans};

/// Elements of the gradient that are written at a time.
const TILE: usize = 16 << 10;

/// Computes the negative log-likelihood, and the gradient where `outputs` asks for it. Returns the
/// reduced loss, or the sum of the losses where they are not reduced.
///
/// # Errors
/// Where shapes or class indices do not fit, before anything is written; and where `interrupted`
/// says so.
pub fn nll_loss(
    inputs: &Inputs<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.check(false, &outputs)?;
    let order = inputs.order();
    let input = Rows::new(inputs.input.clone(), Some(inputs.axis), &order);
    let (rows, classes) = (input.rows(), input.classes());
    let target = inputs.column(inputs.target.clone(), &order);
    let sample = inputs.sample_weight(&order);
    let census = inputs.census(&target, sample.as_ref(), interrupted)?;
    let denominator = inputs.reduce.denominator(inputs.counted(&census, &target, &order)?);
    let targets = Targets {
        target,
        classes,
        ignore_index: inputs.ignore_index,
        weight: inputs.weight.as_deref().map(memory::copied).transpose()?,
        sample,
        upstream: Some((inputs.upstream(&order), denominator)),
        checked: true,
    };

    let mut all = Vec::new();
    let mut push = |o| {
        all.push(o);
        all.len() - 1
    };
    let loss_out = outputs.losses.map(|v| push(RowsMut::new(v, None, &order.without(inputs.axis))));
    let grad_out = outputs.grad.map(|v| push(RowsMut::new(v, Some(inputs.axis), &order)));
    let work = if grad_out.is_some() { rows * classes } else { rows };
    let group = (TILE / classes.max(1)).clamp(1, 512);
    let spans =
        Spans::new(rows, (4 * TILE / if work > rows { classes } else { 1 }).max(group), all);
    let sums = memory::places::<Compensated>(spans.count())?;

    type Scratch = (Terms, (Vec<f64>, Vec<f64>));
    pool::run(
        &spans,
        Crew::of(work, PARALLEL),
        interrupted,
        |span, (terms, (losses, tile)): &mut Scratch| {
            let mut sum = Compensated::default();
            let all = span.rows();
            for start in all.clone().step_by(group) {
                let rows = start..(start + group).min(all.end);
                let n = rows.len();
                terms.begin(n);
                targets.fill(rows.clone(), terms);
                losses.clear();
                memory::reserve(losses, n);
                losses.extend(rows.clone().enumerate().map(|(i, row)| {
                    let term = &terms.rows[i / ROWS];
                    let weight = term.hard.0[i % ROWS] * term.live.0[i % ROWS];
                    // Weight 0 on an infinite loss is nothing.
                    match usize::try_from(terms.target[i]) {
                        Ok(class) if weight != 0.0 => -weight * input.pick::<f64>(row, class),
                        Ok(_) => 0.0,
                        Err(_) if terms.target[i] == IGNORED => 0.0,
                        Err(_) => f64::NAN,
                    }
                }));
                losses.iter().for_each(|l| sum.add(*l));
                if let Some(output) = loss_out {
                    span.write_column(output, rows.clone(), losses);
                }
                let Some(output) = grad_out else { continue };
                // Rows and classes are staged in the order in which they lie.
                let width = classes.clamp(1, TILE);
                for first in (0..classes).step_by(width) {
                    let block = first..(first + width).min(classes);
                    let (row_step, class_step) =
                        if input.classes_are_close() { (block.len(), 1) } else { (1, n) };
                    tile.clear();
                    memory::resize(tile, n * block.len(), 0.0);
                    for i in 0..n {
                        let class =
                            usize::try_from(terms.target[i]).ok().filter(|c| block.contains(c));
                        if let Some(class) = class {
                            let term = &terms.rows[i / ROWS];
                            tile[i * row_step + (class - first) * class_step] =
                                -term.upstream.0[i % ROWS] * term.hard.0[i % ROWS];
                        }
                    }
                    span.write(output, rows.clone(), block, row_step, class_step, tile);
                }
            }
            sums[span.index()].set(sum).expect("a span is drawn once");
        },
    )?;
    let mut total = Compensated::default();
    for sum in &sums {
        total.merge(*sum.get().expect("every span was drawn"));
    }
    Ok(inputs.reduce.answer(total.value(), denominator))
}
