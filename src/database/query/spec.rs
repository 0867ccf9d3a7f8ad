//! A query as it is put together.

use super::filter::Filter;

/// What to find in a [`Collection`](crate::Collection), in which order, and what of it; for
/// [`Collection::query`](crate::Collection::query). Nothing is checked before it is run.
///
/// Values are ordered null < false < true < numbers < text < arrays < objects, and no value comes before all; numbers are
/// compared exactly, text by its bytes. `firmware-notes/query.md` has the rest.
/// ```
/// use gattway::database::{Aggregate, Query, Test};
/// use serde_json::json;
///
/// # use gattway::{Database, DatabaseConfig};
/// # let directory = tempfile::tempdir()?;
/// # let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// # let readings = db.default_collection()?;
/// for (id, sensor, time, celsius) in
///     [("1", "boiler", "2026-11-27T07:00", 71.5), ("2", "roof", "2026-11-27T07:01", 4.0), ("3", "boiler", "2026-11-27T07:02", 72.5)]
/// {
///     readings.put(id, &json!({"sensor": sensor, "time": time, "celsius": celsius}))?;
/// }
/// // The newest of one sensor.
/// let newest = Query::new().filter(("sensor", Test::Equal("boiler".into()))).sort("time", true).limit(1);
/// let rows = readings.query(&newest)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(rows[0]["celsius"], 72.5);
/// // Means of each hour.
/// let hourly = Query::new().group_by_time("time", "1h").aggregate("mean", Aggregate::Avg("celsius".into()));
/// let row = readings.query(&hourly)?.next().expect("there are readings")?;
/// assert_eq!(row["time"], "2026-11-27T07:00:00Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub(super) filters: Vec<Filter>,
    pub(super) sort: Vec<(String, bool)>,
    pub(super) limit: Option<u64>,
    pub(super) bookmark: Option<String>,
    pub(super) fields: Vec<String>,
    pub(super) groups: Vec<(String, Option<String>)>,
    pub(super) aggregates: Vec<(String, Aggregate)>,
}

/// What a group of documents is told by. Where it has no value to tell, it is null; a count and a sum are 0.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Aggregate {
    /// How many documents.
    Count,
    /// How many of them have a value at this path that is not null.
    CountOf(String),
    /// The lowest value at a path; null is none.
    Min(String),
    /// The highest.
    Max(String),
    /// The mean of the numbers at a path.
    Avg(String),
    /// Their sum; whole as long as they are and it fits 64 bits.
    Sum(String),
    /// The value at the path `of` where that at `by` is lowest, of documents that have both.
    First {
        /// What to give; `_doc` is the document.
        of: String,
        /// By what, mostly the time.
        by: String,
    },
    /// The value at the path `of` where that at `by` is highest, of documents that have both: the last reading.
    Last {
        /// What to give; `_doc` is the document.
        of: String,
        /// By what, mostly the time.
        by: String,
    },
}

impl Query {
    /// All documents, whole, in order of their IDs.
    pub fn new() -> Query {
        Query::default()
    }

    /// Only documents for which this holds, too: a [`Filter`], or a path and a [`Test`](super::Test).
    #[must_use]
    pub fn filter(mut self, filter: impl Into<Filter>) -> Query {
        self.filters.push(filter.into());
        self
    }

    /// In order of the values at this path, after those paths that were said before; from the highest if `descending`. Last
    /// decides the ID, in the direction of the last path.
    #[must_use]
    pub fn sort(mut self, path: impl Into<String>, descending: bool) -> Query {
        self.sort.push((path.into(), descending));
        self
    }

    /// So many rows at most. The rest can be had by [`Rows::bookmark`](super::Rows::bookmark).
    #[must_use]
    pub fn limit(mut self, rows: u64) -> Query {
        self.limit = Some(rows);
        self
    }

    /// From where another run of the same query had ended.
    #[must_use]
    pub fn bookmark(mut self, bookmark: impl Into<String>) -> Query {
        self.bookmark = Some(bookmark.into());
        self
    }

    /// Only the value at this path, and others said so; the path is its name in the row. One that is not there is left out.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Query {
        self.fields.push(path.into());
        self
    }

    /// A row for each value at this path, in their order; with several, for each of what they are together.
    #[must_use]
    pub fn group_by(mut self, path: impl Into<String>) -> Query {
        self.groups.push((path.into(), None));
        self
    }

    /// As [`group_by`](Self::group_by) for the beginning of the time's bucket: `10s`, `15m`, `1h`, `1d`, `1w` (from Monday),
    /// `1mo` or `1y` long, in UTC. Times are texts of ISO 8601, seconds or milliseconds since 1970; what is none falls under null.
    #[must_use]
    pub fn group_by_time(mut self, path: impl Into<String>, every: impl Into<String>) -> Query {
        self.groups.push((path.into(), Some(every.into())));
        self
    }

    /// What to tell of each group, or of all documents where there are no groups, and its name in the row.
    #[must_use]
    pub fn aggregate(mut self, name: impl Into<String>, aggregate: Aggregate) -> Query {
        self.aggregates.push((name.into(), aggregate));
        self
    }
}
