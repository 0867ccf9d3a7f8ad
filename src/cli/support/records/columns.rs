//! The types of a table's columns. A column has one type, decided by all of its cells or told by the user, so that `20.50`
//! and `20.55` become the same kind of value. A number is what JSON calls one (`4.0`, `-1e5`, not `007`), and only as long as
//! the digits it has stay what they are.

use std::str::FromStr;

use serde_json::{Number, Value};

use super::record::malformed;
use crate::cli::support::error::CliError;
use crate::cli::support::error::Exit;
use crate::cli::support::output::{counted, thousands};

/// Digits that every double keeps.
const DIGITS_KEPT: usize = 15;

/// What the cells of a column become. An empty cell is null in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As they stand.
    Text,
    /// Whole numbers of 64 bits.
    Integer,
    /// Doubles, also where they are whole.
    Number,
    /// `true` or `false`.
    Bool,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Bool => "bool",
        }
    }
}

/// `--types COLUMN=TYPE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeArg {
    /// The column's name.
    pub(crate) column: String,
    /// What its cells become.
    pub(crate) kind: Kind,
}

impl FromStr for TypeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<TypeArg, String> {
        let expected = || format!("{text:?} is not COLUMN=TYPE with a type of text, integer, number, bool");
        let (column, name) = text.rsplit_once('=').ok_or_else(expected)?;
        let kinds = [Kind::Text, Kind::Integer, Kind::Number, Kind::Bool];
        let kind = kinds.into_iter().find(|kind| kind.name() == name).ok_or_else(expected)?;
        Ok(TypeArg { column: column.to_owned(), kind })
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    /// What separates the cells.
    pub(super) delimiter: u8,
}

impl Columns {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// A cell of a row as a member of the record.
    ///
    /// # Errors
    /// It does not fit the column's type.
    pub(super) fn member(&self, column: usize, cell: &str, line: u64) -> Result<(String, Value), CliError> {
        let Some(Column { name, kind }) = self.columns.get(column) else {
            return Err(malformed(line, "more cells than the header has"));
        };
        let value = value_of(cell, *kind).ok_or_else(|| {
            malformed(line, &format!("`{name}` is {cell:?}, which is no {}", described(*kind)))
                .help(format!("take the column as it stands with --types {name}=text"))
        })?;
        Ok((name.clone(), value))
    }
}

fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "whole number of 64 bits",
        Kind::Number => "number that a double keeps",
        Kind::Bool => "`true` or `false`",
    }
}

fn value_of(cell: &str, kind: Kind) -> Option<Value> {
    if cell.is_empty() {
        return Some(Value::Null);
    }
    match kind {
        Kind::Text => Some(cell.into()),
        Kind::Integer => integer(cell).map(Value::Number),
        Kind::Number => number(cell).and_then(Number::from_f64).map(Value::Number),
        Kind::Bool => match cell {
            "true" | "True" | "TRUE" => Some(true.into()),
            "false" | "False" | "FALSE" => Some(false.into()),
            _ => None,
        },
    }
}

/// A whole number that prints back the same.
fn integer(cell: &str) -> Option<Number> {
    let number =
        cell.parse::<i64>().map(Number::from).or_else(|_| cell.parse::<u64>().map(Number::from)).ok()?;
    (number.to_string() == cell).then_some(number)
}

/// A number whose digits a double keeps.
fn number(cell: &str) -> Option<f64> {
    is_json_number(cell)
        .then(|| cell.parse::<f64>().ok())?
        .filter(|value| value.is_finite() && keeps(*value, cell))
}

/// The grammar of JSON: no leading zeros, no `+`, a digit on each side of the point.
fn is_json_number(cell: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = cell.strip_prefix('-').unwrap_or(cell);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// Whether the double, printed with as many digits, is `cell` again.
fn keeps(value: f64, cell: &str) -> bool {
    let digits = digits_of(cell);
    match digits.len() {
        0..=DIGITS_KEPT => true,
        count => digits_of(&format!("{:.*e}", count - 1, value.abs())) == digits,
    }
}

/// The digits of a number, exponent and leading zeros left aside.
fn digits_of(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').to_owned()
}

/// What the cells of one column are.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    name: String,
    integers: u64,
    /// Numbers with a fraction or an exponent.
    fractions: u64,
    /// Whole numbers that no double holds exactly.
    long: u64,
    texts: u64,
    /// The first cell that is no number, and its line.
    first_text: Option<(u64, String)>,
}

impl Count {
    pub(super) fn new(name: &str) -> Count {
        Count { name: name.to_owned(), ..Count::default() }
    }

    pub(super) fn add(&mut self, cell: &str, line: u64) {
        if cell.is_empty() {
            return;
        }
        if integer(cell).is_some() {
            self.integers += 1;
            self.long += u64::from(number(cell).is_none());
        } else if number(cell).is_some() {
            self.fractions += 1;
        } else {
            self.texts += 1;
            let shown = || (line, crate::replica::clip(cell));
            self.first_text.get_or_insert_with(shown);
        }
    }

    fn numbers(&self) -> u64 {
        self.integers + self.fractions
    }

    fn kind(&self) -> Kind {
        match (self.texts, self.integers, self.fractions) {
            (0, 1.., 0) => Kind::Integer,
            (0, _, 1..) if self.long == 0 => Kind::Number,
            _ => Kind::Text,
        }
    }

    /// What the user should know: a column of numbers that became text.
    fn warning(&self) -> Option<String> {
        if self.kind() != Kind::Text || self.numbers() == 0 {
            return None;
        }
        let name = &self.name;
        let of = thousands(self.numbers() + self.texts);
        let why = match &self.first_text {
            Some((line, cell)) => {
                let these = if self.texts == 1 { "is no number" } else { "are no numbers" };
                format!(
                    "{} of {of} cells {these} that a double keeps (line {line}: {cell:?})",
                    thousands(self.texts)
                )
            }
            None => format!(
                "{} too long for the doubles that its fractions need",
                match self.long {
                    1 => "1 whole number is".to_owned(),
                    n => format!("{} are", counted(n, "whole number")),
                }
            ),
        };
        Some(format!("column `{name}` is text: {why}; --types {name}=text if that is right"))
    }
}

/// Decides the types of all columns; with what the user should know.
///
/// # Errors
/// A type for a column that does not exist.
pub(super) fn decide(
    counts: &[Count],
    types: &[TypeArg],
    delimiter: u8,
) -> Result<(Columns, Vec<String>), CliError> {
    if let Some(unknown) = types.iter().find(|t| counts.iter().all(|count| count.name != t.column)) {
        let known: Vec<&str> = counts.iter().map(|count| count.name.as_str()).collect();
        let message = format!("--types names a column {:?}; there are: {}", unknown.column, known.join(", "));
        return Err(CliError::new(Exit::Usage, message));
    }
    let mut warnings = Vec::new();
    let mut column = |count: &Count| {
        let told = types.iter().rfind(|t| t.column == count.name).map(|t| t.kind);
        if told.is_none() {
            warnings.extend(count.warning());
        }
        Column { name: count.name.clone(), kind: told.unwrap_or_else(|| count.kind()) }
    };
    let columns = counts.iter().map(&mut column).collect();
    Ok((Columns { columns, delimiter }, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind_of(cells: &[&str]) -> (Kind, Option<String>) {
        let mut count = Count::new("x");
        cells.iter().zip(2..).for_each(|(cell, line)| count.add(cell, line));
        (count.kind(), count.warning())
    }

    #[test]
    fn a_column_has_one_type() {
        for (cells, kind) in [
            (&["1", "-7", "", "18446744073709551615"][..], Kind::Integer),
            (&["20.50", "20.55", "21"], Kind::Number),
            (&["4.0", "1e5", "-0", "1.5E-05"], Kind::Number),
            (&["9007199254740993", "1"], Kind::Integer),
            (&["", ""], Kind::Text),
            (&["a", "b"], Kind::Text),
        ] {
            assert_eq!(kind_of(cells), (kind, None), "{cells:?}");
        }
        for (cells, warning) in [
            (&["1", "n/a", "2.5"][..], "1 of 3 cells is no number that a double keeps (line 3: \"n/a\")"),
            (&["007", "12", "013"], "2 of 3 cells are no numbers that a double keeps (line 2: \"007\")"),
            (&["0.12345678901234567890", "1"], "(line 2: \"0.12345678901234567890\")"),
            (&["18446744073709551617", "1"], "(line 2: \"18446744073709551617\")"),
            (
                &["9007199254740993", "0.5"],
                "1 whole number is too long for the doubles that its fractions need",
            ),
        ] {
            let (kind, said) = kind_of(cells);
            assert_eq!(kind, Kind::Text, "{cells:?}");
            assert!(said.as_ref().is_some_and(|said| said.contains(warning)), "{cells:?}: {said:?}");
        }
    }

    #[test]
    fn cells_become_what_their_column_is() {
        for (cell, kind, value) in [
            ("20.50", Kind::Number, json!(20.5)),
            ("21", Kind::Number, json!(21.0)),
            ("0.1", Kind::Number, json!(0.1)),
            ("5e-324", Kind::Number, json!(5e-324)),
            ("1e21", Kind::Number, json!(1e21)),
            ("18446744073709551616", Kind::Number, json!(18446744073709551616.0)),
            ("3.1415926535897931", Kind::Number, json!(std::f64::consts::PI)),
            ("0.10000000000000001", Kind::Number, json!(0.1)),
            ("007", Kind::Text, json!("007")),
            ("18446744073709551615", Kind::Integer, json!(u64::MAX)),
            ("TRUE", Kind::Bool, json!(true)),
            ("", Kind::Integer, Value::Null),
            ("", Kind::Text, Value::Null),
        ] {
            assert_eq!(value_of(cell, kind), Some(value), "{cell:?}");
        }
        for cell in ["NaN", "inf", "1e400", "1,5", " 1", "+1", "4.", ".5", "1e", "0x1", "3.14159265358979323"]
        {
            assert_eq!(value_of(cell, Kind::Number), None, "{cell:?}");
        }
        for cell in ["1.0", "007", "-0", "18446744073709551616"] {
            assert_eq!(value_of(cell, Kind::Integer), None, "{cell:?}");
        }
        assert_eq!(value_of("yes", Kind::Bool), None);
    }

    #[test]
    fn types_are_told_by_column() {
        let told = |text: &str| text.parse::<TypeArg>();
        assert_eq!(told("a=b=text"), Ok(TypeArg { column: "a=b".into(), kind: Kind::Text }));
        assert!(told("a").is_err() && told("a=float").is_err());
        let types = [told("x=text").expect("a type")];
        let (columns, warnings) = decide(&[Count::new("x")], &types, b',').expect("known");
        assert_eq!((columns.member(0, "1", 2).expect("text").1, warnings.len()), (json!("1"), 0));
        let refused = decide(&[Count::new("y")], &types, b',').expect_err("unknown");
        assert_eq!(
            (refused.exit(), refused.to_string().as_str()),
            (Exit::Usage, "--types names a column \"x\"; there are: y")
        );
    }
}
