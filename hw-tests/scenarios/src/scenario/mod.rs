//! What is tested: each scenario is one function over a [`Context`], whatever the rig.
//!
//! A scenario uses nodes by number: 0 is the peripheral, 1 the central, 2 a second central. It measures with
//! [`Context::metric`], demands with [`Context::require`], and gives up with a reason by [`skip`]. The table in [`table`] is the
//! only list.

mod calls;
mod cuts;
mod external;
mod first_sync;
mod flow;
mod meet;
pub mod node;
mod speed;
mod sync;
pub mod table;

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;

use crate::agent::now_us;
use crate::agent::protocol::{Service, Way};
use crate::report::{Mark, Metric, Record};
use crate::rig::{Config, Rig};

pub use self::node::{Node, Session, pause, rate, transfer};

/// Why a scenario ended early.
#[derive(Debug)]
pub enum Stop {
    /// The rig cannot do it.
    Skip(String),
    /// It went wrong.
    Fail(String),
}

impl<E: Display> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Fail(error.to_string())
    }
}

/// How a scenario ends.
pub type Outcome<T = ()> = Result<T, Stop>;
/// A running scenario.
type Run<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// For `--scenario`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// How the machines are set up.
    pub config: Config,
    /// Nodes that it needs; 0: none, it runs a program of its own.
    pub nodes: usize,
    /// Time it may take, seconds.
    pub limit_s: u64,
    /// The function.
    pub run: for<'a> fn(&'a mut Context<'_>) -> Run<'a>,
}

/// What a scenario works with.
pub struct Context<'a> {
    /// The rig; for the scenarios that disturb it.
    pub rig: &'a mut Rig,
    /// Long forms.
    pub full: bool,
    record: &'a mut Record,
}

/// The reason why the rig cannot do it.
pub fn skip<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skip(reason.into()))
}

/// What went wrong.
pub fn failed<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fail(reason.into()))
}

impl<'a> Context<'a> {
    /// A scenario on a rig.
    pub fn new(rig: &'a mut Rig, full: bool, record: &'a mut Record) -> Context<'a> {
        Context { rig, full, record }
    }

    /// The rig's node; it must have been spawned.
    pub fn node(&self, number: usize) -> Node {
        Node { place: self.rig.places[number].clone() }
    }

    /// A figure for the report.
    pub fn metric(&mut self, name: &str, value: f64, unit: &str) {
        self.record.metrics.push(Metric {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            target: None,
        });
    }

    /// A figure with a target: fails if it is missed.
    pub fn target(&mut self, name: &str, value: f64, unit: &str, at_least: f64) -> Outcome {
        let target = Some(format!("at least {at_least}"));
        self.record.metrics.push(Metric { name: name.to_owned(), value, unit: unit.to_owned(), target });
        if value < at_least {
            failed(format!("{name} is {value:.3} {unit}, wanted at least {at_least}"))
        } else {
            Ok(())
        }
    }

    /// A figure with a limit: fails if it is passed.
    pub fn limit(&mut self, name: &str, value: f64, unit: &str, at_most: f64) -> Outcome {
        let target = Some(format!("at most {at_most}"));
        self.record.metrics.push(Metric { name: name.to_owned(), value, unit: unit.to_owned(), target });
        if value > at_most {
            failed(format!("{name} is {value:.3} {unit}, wanted at most {at_most}"))
        } else {
            Ok(())
        }
    }

    /// Something happened now: a line in the plots.
    pub fn mark(&mut self, text: &str) -> u64 {
        let at_us = now_us();
        self.record.marks.push(Mark { at_us, text: text.to_owned() });
        at_us
    }

    /// Output of a program, for the report.
    pub fn note(&mut self, text: &str) {
        self.record.notes.push(text.to_owned());
    }

    /// Fails unless it is so.
    pub fn require(&self, so: bool, otherwise: impl Into<String>) -> Outcome {
        if so { Ok(()) } else { failed(otherwise) }
    }

    /// Skips unless the rig has this way to a peripheral.
    pub fn needs_way(&self, way: Way) -> Outcome {
        if self.rig.ways().contains(&way) { Ok(()) } else { skip(format!("the rig has no {}", way.name())) }
    }

    /// A session between central 1 and peripheral 0.
    pub async fn pair(&mut self, ways: &[Way]) -> Outcome<(Session, Session)> {
        self.node(0).listen(Service::Bytes, true).await?;
        self.session(1, 0, ways).await
    }

    /// A session from a central to a peripheral that listens: the peripheral's end first.
    pub async fn session(
        &mut self,
        central: usize,
        peripheral: usize,
        ways: &[Way],
    ) -> Outcome<(Session, Session)> {
        let (at, from) = (self.node(peripheral), self.node(central));
        let peer = at.place.address.clone();
        let (accepted, dialed) = tokio::join!(at.accept(), from.dial(&peer, ways));
        let (dialed, opened) = dialed?;
        self.record.connects.push(opened.seconds);
        Ok((accepted?, dialed))
    }
}
