//! `gattway query`: finds documents, or tells of them in groups.

use clap::Args;
use serde_json::{Map, Value, json};

use super::CollectionArg;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::{Database, Query};

/// Comparisons of --where and their operators; those of which others are the beginning come first.
const COMPARISONS: [(&str, &str); 8] = [
    ("!=", "$ne"),
    ("<=", "$lte"),
    (">=", "$gte"),
    ("^=", "$beginsWith"),
    ("==", "$eq"),
    ("<", "$lt"),
    (">", "$gt"),
    ("=", "$eq"),
];

/// Find documents by what is in them, or tell of them in groups.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db query -c readings --where sensor=boiler --sort time:desc --limit 20
  gattway --db my.db query -c readings --where sensor=boiler --where 'time>=2026-11-01' --fields time,celsius --json
  gattway --db my.db query -c readings --group sensor --tell celsius=last:celsius:time      # the last of each sensor
  gattway --db my.db query -c readings --group time:1h --tell mean=avg:celsius --tell n=count
  gattway --db my.db query -c readings '{\"selector\": {\"$or\": [{\"alarm\": true}, {\"celsius\": {\"$gt\": 90}}]}}'
The whole form of a query: firmware-notes/query.md")]
pub(crate) struct QueryArgs {
    /// The query as a JSON object; the options below are added to it
    #[arg(value_name = "JSON")]
    query: Option<String>,

    /// Only documents in which it holds: PATH and a value, with =, !=, <, <=, >, >= or ^= (begins with) between them. The value is
    /// JSON where it can be (20, true, null, "20"), else text. Several have to hold all
    #[arg(long = "where", value_name = "TEST")]
    tests: Vec<String>,

    /// In order of the values at this path; several go by turns
    #[arg(long, value_name = "PATH[:desc]", value_delimiter = ',')]
    sort: Vec<String>,

    /// At most this many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Go on where the same query has ended for its limit
    #[arg(long, value_name = "TEXT")]
    bookmark: Option<String>,

    /// Only the values at these paths
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    fields: Vec<String>,

    /// A row for each value at this path, or for each bucket of a time: 15m, 1h, 1d, 1w, 1mo, 1y
    #[arg(long, value_name = "PATH[:TIME]", value_delimiter = ',')]
    group: Vec<String>,

    /// What to tell of each group: `n=count`, or min, max, avg, sum, count of a path, or first, last of a path by another one
    /// (`last:celsius:time`)
    #[arg(long, value_name = "NAME=WHAT[:PATH[:BY]]")]
    tell: Vec<String>,

    /// Tell how it would be run instead: which documents are read, and where rows are ordered
    #[arg(long)]
    explain: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// One JSON object a line; where the limit ends them, the last one is {"_bookmark": TEXT}
    #[arg(long)]
    json: bool,
}

fn wrong(message: String) -> CliError {
    CliError::new(Exit::Usage, message)
}

impl QueryArgs {
    /// The query in JSON.
    ///
    /// # Errors
    /// What is no query, as far as can be seen without it.
    fn query(&self) -> Result<Value, CliError> {
        let mut query = match &self.query {
            None => Map::new(),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(query)) => query,
                Ok(_) => return Err(wrong("the query is no JSON object".into())),
                Err(error) => return Err(wrong(format!("the query is no JSON object: {error}"))),
            },
        };
        if !self.tests.is_empty() {
            let mut all = self.tests.iter().map(|test| one_test(test)).collect::<Result<Vec<_>, _>>()?;
            all.extend(query.remove("selector"));
            query.insert("selector".into(), json!({"$and": all}));
        }
        let mut lists = vec![("fields", self.fields.iter().map(|path| json!(path)).collect::<Vec<_>>())];
        lists.push(("sort", self.sort.iter().map(|sort| with_word(sort, is_direction)).collect()));
        lists.push(("group", self.group.iter().map(|group| with_word(group, is_bucket)).collect()));
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            query.insert(name.into(), list.into());
        }
        if !self.tell.is_empty() {
            let told = self.tell.iter().map(|tell| one_aggregate(tell)).collect::<Result<Map<_, _>, _>>()?;
            query.insert("aggregate".into(), told.into());
        }
        query.extend(self.limit.map(|limit| ("limit".into(), limit.into())));
        query.extend(self.bookmark.as_ref().map(|text| ("bookmark".into(), text.as_str().into())));
        Ok(Value::Object(query))
    }
}

/// A test of --where as a selector.
fn one_test(test: &str) -> Result<Value, CliError> {
    let found = test.char_indices().find_map(|(at, _)| {
        let fits = COMPARISONS.iter().find(|(sign, _)| test[at..].starts_with(sign));
        fits.map(|(sign, operator)| (&test[..at], *operator, &test[at + sign.len()..]))
    });
    let Some((path, operator, value)) = found.filter(|(path, ..)| !path.trim().is_empty()) else {
        return Err(wrong(format!("--where {test:?}: PATH, one of = != < <= > >= ^=, and a value")));
    };
    let value = value.trim();
    let text = || Value::from(value);
    let value = match operator {
        "$beginsWith" => serde_json::from_str(value).ok().filter(Value::is_string).unwrap_or_else(text),
        _ => serde_json::from_str(value).unwrap_or_else(|_| text()),
    };
    Ok(json!({path.trim(): {operator: value}}))
}

fn is_direction(word: &str) -> bool {
    ["asc", "desc"].contains(&word)
}

fn is_bucket(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit())
}

/// `PATH`, or `{"PATH": WORD}` where such a word stands behind a colon.
fn with_word(text: &str, is_word: impl Fn(&str) -> bool) -> Value {
    match text.rsplit_once(':').filter(|(_, word)| is_word(word)) {
        Some((path, word)) => json!({path: word}),
        None => text.into(),
    }
}

fn one_aggregate(text: &str) -> Result<(String, Value), CliError> {
    let form =
        || wrong(format!("--tell {text:?}: such as n=count, mean=avg:celsius or latest=last:celsius:time"));
    let (name, what) = text.split_once('=').ok_or_else(form)?;
    let parts: Vec<&str> = what.split(':').collect();
    let value = match parts[..] {
        ["count"] => json!("count"),
        [kind @ ("first" | "last"), of, by] => json!({kind: of, "by": by}),
        [kind @ ("count" | "min" | "max" | "avg" | "sum"), of] => json!({kind: of}),
        _ => return Err(form()),
    };
    Ok((name.to_owned(), value))
}

pub(super) fn run(db: &Database, args: &QueryArgs, out: &mut Output) -> Result<(), CliError> {
    let query = Query::from_json(&args.query()?).map_err(store::failed)?;
    let collection = store::collection(db, &args.collection.collection)?;
    if args.explain {
        let told = collection.explain(&query).map_err(store::failed)?;
        if args.json {
            out.json(&told)?
        } else {
            out.pretty_json(&told)?
        }
        return out.flush();
    }
    let mut rows = collection.query(&query).map_err(store::failed)?;
    for row in rows.by_ref() {
        let row = row.map_err(store::failed)?;
        if args.json { out.json(&row)? } else { out.text(&as_text(&row))? }
    }
    if let Some(bookmark) = rows.bookmark().map_err(store::failed)? {
        if args.json {
            out.json(&json!({"_bookmark": bookmark}))?;
        } else {
            out.flush()?;
            out.note(&format!("there may be more: the same with --bookmark {bookmark}"));
        }
    }
    out.flush()
}

/// A row for people: names and values, the ID first.
fn as_text(row: &Map<String, Value>) -> String {
    let cell = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={text}"),
        value => format!("{name}={value}"),
    };
    row.iter().filter(|(name, _)| *name != "_rev").map(cell).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read() {
        for (text, expected) in [
            ("sensor=boiler", json!({"sensor": {"$eq": "boiler"}})),
            ("a.b[0] >= 20.5", json!({"a.b[0]": {"$gte": 20.5}})),
            ("a<-1", json!({"a": {"$lt": -1}})),
            ("a!=null", json!({"a": {"$ne": null}})),
            ("a==\"20\"", json!({"a": {"$eq": "20"}})),
            ("a^=20", json!({"a": {"$beginsWith": "20"}})),
            ("time>2026-11-27T07:00=x", json!({"time": {"$gt": "2026-11-27T07:00=x"}})),
        ] {
            assert_eq!(one_test(text).expect(text), expected);
        }
        for text in ["", "a", "=a", " =a"] {
            assert_eq!(one_test(text).expect_err(text).exit(), Exit::Usage);
        }
    }

    #[test]
    fn words_behind_a_colon_are_read() {
        assert_eq!(with_word("time:desc", is_direction), json!({"time": "desc"}));
        assert_eq!(with_word("a:b", is_direction), json!("a:b"));
        assert_eq!(with_word("time:15m", is_bucket), json!({"time": "15m"}));
        assert_eq!(one_aggregate("n=count").expect("a count"), ("n".into(), json!("count")));
        let last = json!({"last": "celsius", "by": "time"});
        assert_eq!(one_aggregate("c=last:celsius:time").expect("the last"), ("c".into(), last));
        for text in ["count", "n=", "n=last:a", "n=median:a", "n=sum", "n=sum:a:b"] {
            assert!(one_aggregate(text).is_err(), "{text}");
        }
    }
}
