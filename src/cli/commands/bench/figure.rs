//! One measured number, with its target.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// What a number has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// One measured number.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    bench: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    /// Where it should come to, beyond what it must.
    aim: Option<f64>,
}

impl Figure {
    /// A number without a target.
    pub(super) fn new(
        bench: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Figure {
        Figure { bench, name: name.into(), value, unit, target: None, aim: None }
    }

    /// Must be this or more.
    pub(super) fn at_least(self, limit: f64) -> Figure {
        Figure { target: Some(Target::AtLeast(limit)), ..self }
    }

    /// Must be this or less.
    pub(super) fn at_most(self, limit: f64) -> Figure {
        Figure { target: Some(Target::AtMost(limit)), ..self }
    }

    /// Should come to this.
    pub(super) fn aim(self, aim: f64) -> Figure {
        Figure { aim: Some(aim), ..self }
    }

    /// Whether it is what it has to be; `None` without a target.
    pub(super) fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtLeast(limit) => self.value >= limit,
            Target::AtMost(limit) => self.value <= limit,
        })
    }

    fn target_text(&self) -> String {
        let sign = match self.target {
            None => return String::new(),
            Some(Target::AtLeast(limit)) => format!(">= {}", number(limit)),
            Some(Target::AtMost(limit)) => format!("<= {}", number(limit)),
        };
        self.aim.map_or(sign.clone(), |aim| format!("{sign}, aim {}", number(aim)))
    }

    fn object(&self) -> Value {
        let (at_least, at_most) = match self.target {
            None => (None, None),
            Some(Target::AtLeast(limit)) => (Some(limit), None),
            Some(Target::AtMost(limit)) => (None, Some(limit)),
        };
        json!({
            "bench": self.bench, "name": self.name, "value": self.value, "unit": self.unit,
            "at_least": at_least, "at_most": at_most, "aim": self.aim, "met": self.met(),
        })
    }
}

/// All figures for a script.
pub(super) fn object(figures: &[Figure]) -> Value {
    let met = figures.iter().all(|figure| figure.met() != Some(false));
    json!({ "met": met, "figures": figures.iter().map(Figure::object).collect::<Vec<_>>() })
}

/// All figures for people.
pub(super) fn table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "figure", "value", "unit", "target", ""]);
    for figure in figures {
        let met = match figure.met() {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        let value = number(figure.value);
        table.add_row([figure.bench, &figure.name, &value, figure.unit, &figure.target_text(), met]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Three significant digits where there are fractions, thousands apart where there are none.
fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        crate::cli::support::output::thousands(value.round() as u64)
    } else if value.fract() == 0.0 {
        format!("{value}")
    } else if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}
