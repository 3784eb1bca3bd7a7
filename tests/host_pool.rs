//! The rayon pool of the application is not touched: a process alone, as it has one such pool.

use crossent::losses::{Inputs, Outputs, cross_entropy};
use crossent::pool;
use crossent::reduce::{Reduce, Reduction};
use crossent::view::View;

const ROWS: usize = 2000;
const CLASSES: usize = 1000;

/// A call that several threads share; its answer is log 1000.
fn call(x: &[f32], targets: &[i64]) -> f64 {
    let inputs = Inputs {
        input: View::of(x, &[ROWS, CLASSES]),
        target: View::of_indices(targets, &[ROWS]),
        axis: 1,
        weight: None,
        ignore_index: None,
        reduce: Reduce { reduction: Reduction::Mean, ..Reduce::default() },
    };
    let options = cross_entropy::Options::default();
    cross_entropy::cross_entropy(&inputs, &options, Outputs::default(), &|| false)
        .expect("the call fits")
}

#[test]
fn the_applications_pool_is_its_own() {
    let (x, targets) = (vec![0.0_f32; ROWS * CLASSES], vec![0_i64; ROWS]);
    pool::set_num_threads(4);
    let alone = call(&x, &targets);
    assert!((alone / 1000_f64.ln() - 1.0).abs() < 1e-7);
    // It fails where something has started the global pool already.
    rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build_global()
        .expect("the global pool is as nobody has used it");
    assert_eq!(rayon::current_num_threads(), 3);
    assert_eq!(pool::num_threads(), 4);
    // From within the application's threads, all of which call at once.
    for answer in rayon::broadcast(|_| call(&x, &targets)) {
        assert_eq!(answer.to_bits(), alone.to_bits());
    }
    assert_eq!(rayon::current_num_threads(), 3);
    pool::set_num_threads(2);
    assert_eq!(call(&x, &targets).to_bits(), alone.to_bits());
    assert_eq!(rayon::current_num_threads(), 3);
}
