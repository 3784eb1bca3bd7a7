//! What every loss of the sigmoid family takes and gives: arrays of one shape.

use super::common::Outputs;
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::pointwise::{Argument, Domain, Job, Pointwise};
use crate::reduce::{Reduce, Upstream};
use crate::simd::Element;
use crate::view::{Order, Rows, RowsMut, View, ViewMut, show_shape};

/// The arguments that losses of elements share.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    /// What errors call the input and the target.
    pub names: [&'static str; 2],
    /// Logits or probabilities.
    pub input: View<'a>,
    /// Shaped as the input.
    pub target: Option<View<'a>>,
    /// What each element's loss is multiplied by; broadcast to the input's shape.
    pub weight: Option<View<'a>>,
    /// What each element's target is multiplied by; broadcast to the input's shape.
    pub pos_weight: Option<View<'a>>,
    /// The axis over which losses are added up, where they are one a row of it.
    pub axis: Option<usize>,
    /// Whether they are the mean over the axis instead.
    pub averages: bool,
    /// What becomes of the losses.
    pub reduce: Reduce<'a>,
}

impl<'a> Elements<'a> {
    /// Of the input alone.
    pub fn of(input: View<'a>) -> Self {
        Self {
            names: ["input", "target"],
            input,
            target: None,
            weight: None,
            pos_weight: None,
            axis: None,
            averages: false,
            reduce: Reduce::default(),
        }
    }

    /// The shape of the losses.
    fn losses_shape(&self) -> Vec<usize> {
        let mut shape = self.input.shape().to_vec();
        if let Some(axis) = self.axis {
            shape.remove(axis);
        }
        shape
    }

    /// A view that repeats along what the input has more.
    fn broadcast(&self, name: &str, view: &View<'a>) -> Result<View<'a>> {
        view.broadcast(self.input.shape()).ok_or_else(|| {
            Error::Value(format!(
                "{name} must broadcast to the shape of {} {}, got {}",
                self.names[0],
                show_shape(self.input.shape()),
                show_shape(view.shape())
            ))
        })
    }

    /// Checks the target's shape, if there is one.
    pub(super) fn check_target(&self) -> Result<()> {
        let shape = self.input.shape();
        match &self.target {
            Some(target) if target.shape() != shape => Err(Error::Value(format!(
                "{} must have the shape of {} {}, got {}",
                self.names[1],
                self.names[0],
                show_shape(shape),
                show_shape(target.shape())
            ))),
            _ => Ok(()),
        }
    }

    /// The upstream gradient by rows of an axis.
    pub(crate) fn upstream_of_rows(&self, axis: usize, order: &Order) -> Result<Upstream<'a>> {
        self.reduce.check(&self.losses_shape())?;
        Ok(self.reduce.upstream(|g| Rows::new(g, None, &order.without(axis))))
    }

    /// Whether numbers need `f64` to be what they are.
    fn is_wide(view: &View<'_>) -> bool {
        const FEW: usize = 1 << 12;
        let fits = |x: &f64| f64::from(*x as f32) == *x || x.is_nan();
        view.format().kind == Kind::F64
            && (view.len() > FEW || !view.to_vec::<f64>().iter().all(fits))
    }

    /// Computes a loss, and what `outputs` asks for besides. Returns the reduced loss, or the sum
    /// of the losses where they are not reduced.
    ///
    /// # Errors
    /// Where shapes do not fit, before anything is written; where an element is outside of where
    /// the loss is defined; and where `interrupted` says so.
    pub(crate) fn run<L: Pointwise>(
        &self,
        loss: L,
        outputs: Outputs<'_>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<f64> {
        let others = [&self.target, &self.weight, &self.pos_weight, &self.reduce.sample_weight];
        if self.input.format().kind == Kind::F64 || others.into_iter().flatten().any(Self::is_wide)
        {
            self.compute::<f64, L>(loss, outputs, interrupted)
        } else {
            self.compute::<f32, L>(loss, outputs, interrupted)
        }
    }

    fn compute<F: Element, L: Pointwise>(
        &self,
        loss: L,
        outputs: Outputs<'_>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<f64> {
        let shape = self.input.shape();
        self.check_target()?;
        self.reduce.check(&self.losses_shape())?;
        let weight = self.weight.as_ref().map(|w| self.broadcast("weight", w)).transpose()?;
        let positive =
            self.pos_weight.as_ref().map(|w| self.broadcast("pos_weight", w)).transpose()?;

        let classes = match self.axis {
            Some(axis) if self.averages => shape[axis] as f64,
            _ => 1.0,
        };
        let losses = self.losses_shape().iter().product::<usize>();
        let counted = self.reduce.applied(losses, interrupted)?;
        let denominator = self.reduce.denominator(counted);
        let order = Order::of(&self.input, self.axis);
        let seen = |view| Rows::new(view, self.axis, &order);
        let read = |view: &ViewMut<'_>| {
            let view = view.as_view();
            view.same_memory(&self.input)
                || self.target.as_ref().is_some_and(|t| view.same_memory(t))
        };
        let written = [&outputs.losses, &outputs.grad, &outputs.hess, &outputs.target_grad];
        let in_place = written.into_iter().flatten().any(read);
        // An array shaped as the losses, once an element.
        let of_losses = |view: View<'a>| match self.axis {
            Some(axis) => seen(view.with_axis(axis, shape[axis])),
            None => seen(view),
        };
        let upstream = self.reduce.upstream(of_losses);
        let sample = self.reduce.sample_weight.clone().map(of_losses);
        let job = |outputs: Outputs<'_>| {
            let of_rows = match self.axis {
                Some(axis) => order.without(axis),
                None => order.clone(),
            };
            let found = Job {
                input: seen(self.input.clone()),
                target: self.target.clone().map(seen),
                weight: weight.clone().map(seen),
                positive: positive.clone().map(seen),
                sample: sample.clone(),
                upstream: (upstream.clone(), denominator * classes),
                loss,
                losses: outputs.losses.map(|view| RowsMut::new(view, None, &of_rows)),
                grad: outputs.grad.map(|view| RowsMut::new(view, self.axis, &order)),
                second: outputs
                    .hess
                    .or(outputs.target_grad)
                    .map(|view| RowsMut::new(view, self.axis, &order)),
                share: classes,
                in_place,
            }
            .run::<F>(interrupted)?;
            match found.outside {
                None => Ok(found.sum.value()),
                Some(at) => Err(self.outside::<L>(&order, at)),
            }
        };
        // A call that is refused changes nothing.
        if L::DOMAIN != Domain::Everywhere && !written.into_iter().flatten().all(ViewMut::is_fresh)
        {
            let (input, target) = (seen(self.input.clone()), self.target.clone().map(seen));
            let (target, sample) = (target.as_ref(), sample.as_ref());
            let found = L::DOMAIN.look_for_outside::<F>(&input, target, sample, interrupted)?;
            if let Some(at) = found {
                return Err(self.outside::<L>(&order, at));
            }
        }
        Ok(self.reduce.answer(job(outputs)?, denominator * classes))
    }

    fn outside<L: Pointwise>(
        &self,
        order: &Order,
        (row, class, which): (usize, usize, Argument),
    ) -> Error {
        let shape = self.losses_shape();
        let index = match self.axis {
            Some(axis) => order.without(axis).index_of(&shape, row),
            None => order.index_of(&shape, row),
        };
        let mut index: Vec<_> = index.iter().map(ToString::to_string).collect();
        if let Some(axis) = self.axis {
            index.insert(axis, class.to_string());
        }
        let (name, view) = match (which, &self.target) {
            (Argument::T, Some(target)) => (self.names[1], target),
            _ => (self.names[0], &self.input),
        };
        let x = Rows::new(view.clone(), self.axis, order).pick::<f64>(row, class);
        let place =
            if index.is_empty() { String::new() } else { format!("[{}]", index.join(", ")) };
        let range = L::DOMAIN.name();
        Error::Value(format!("{name}{place} must be a probability {range}, got {x}"))
    }
}
