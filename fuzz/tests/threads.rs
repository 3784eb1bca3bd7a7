//! Calls that threads share, from several threads at once: the same bits as alone. `make tsan` runs
//! these where every access is watched.

use crossent::losses::cross_entropy::{Options, cross_entropy};
use crossent::losses::{Elements, Inputs, Outputs};
use crossent::pool::set_num_threads;
use crossent::reduce::{Reduce, Reduction};
use crossent::view::{View, ViewMut};
use std::thread;

/// Shapes that each traversal shares between threads: many rows, few long ones, few classes, pixels.
const SHAPES: [(&[usize], usize); 4] =
    [(&[400, 1000], 1), (&[1, 400_001], 1), (&[100_000, 3], 1), (&[2, 21, 100, 100], 1)];

/// Numbers of a row of logits, without a library.
fn logits(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 2e6 - 4.0).collect()
}

fn reduced() -> Reduce<'static> {
    Reduce { reduction: Reduction::Mean, ..Reduce::default() }
}

/// The bits of a cross-entropy and its gradient, and of a loss of elements.
fn answers(shape: &[usize], axis: usize) -> Vec<u64> {
    let n = shape.iter().product();
    let x = logits(n);
    let mut rows = shape.to_vec();
    let classes = rows.remove(axis);
    let y: Vec<i64> = (0..n / classes).map(|row| (row * 7 % classes) as i64).collect();
    let t: Vec<f32> = x.iter().map(|x| f32::from(u8::from(*x > 0.0))).collect();
    let mut grad = vec![0_f32; n];
    let inputs = Inputs {
        input: View::of(&x, shape),
        target: View::of_indices(&y, &rows),
        axis,
        weight: None,
        ignore_index: Some(-100),
        reduce: reduced(),
    };
    let outputs = Outputs { grad: Some(ViewMut::of(&mut grad, shape)), ..Outputs::default() };
    let loss = cross_entropy(&inputs, &Options::default(), outputs, &|| false).expect("it fits");
    // What a mean of logits this far apart may be, whatever the shape.
    assert!(loss > 0.5 && loss < 20.0, "{loss}");
    let mut bits = vec![loss.to_bits()];
    bits.extend(grad.iter().map(|g| u64::from(g.to_bits())));

    let target = Some(View::of(&t, shape));
    let inputs = Elements { target, reduce: reduced(), ..Elements::of(View::of(&x, shape)) };
    let outputs = Outputs { grad: Some(ViewMut::of(&mut grad, shape)), ..Outputs::default() };
    let with_logits =
        crossent::losses::binary_cross_entropy_with_logits::binary_cross_entropy_with_logits;
    bits.push(with_logits(&inputs, outputs, &|| false).expect("it fits").to_bits());
    bits.extend(grad.iter().map(|g| u64::from(g.to_bits())));
    bits
}

#[test]
fn many_callers_at_once_have_the_bits_of_one_alone() {
    set_num_threads(1);
    let alone: Vec<_> = SHAPES.iter().map(|(shape, axis)| answers(shape, *axis)).collect();
    set_num_threads(3);
    thread::scope(|scope| {
        for first in 0..2 {
            let alone = &alone;
            scope.spawn(move || {
                for turn in 0..SHAPES.len() {
                    let which = (first * 2 + turn) % SHAPES.len();
                    let (shape, axis) = SHAPES[which];
                    assert!(answers(shape, axis) == alone[which], "{shape:?}");
                }
            });
        }
    });
}
