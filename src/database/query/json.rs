//! The JSON form of a query, in the manner of CouchDB's `_find`.

use serde_json::Value;

use super::filter::{Filter, Test};
use super::spec::{Aggregate, Query};
use crate::database::DatabaseError;
use crate::replica::clip;

/// Operators within each other at most. What a filter may have is looked at again where it is checked.
const DEPTH_MAX: usize = 40;

type Read<T> = Result<T, DatabaseError>;

fn wrong(reason: impl Into<String>) -> DatabaseError {
    DatabaseError::BadQuery { reason: reason.into() }
}

impl Query {
    /// A query as HTTP and the command take it: `{"selector": {"sensor": "boiler"}, "sort": [{"time": "desc"}], "limit": 20}`.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`] says what is wrong with its form; the rest is checked when it is run.
    pub fn from_json(query: &Value) -> Result<Query, DatabaseError> {
        read(query)
    }
}

fn read(query: &Value) -> Read<Query> {
    let query = query.as_object().ok_or_else(|| wrong("a query is a JSON object"))?;
    let mut read = Query::new();
    for (key, value) in query {
        match key.as_str() {
            "selector" => read.filters.push(selector(value, 0)?),
            "sort" => read.sort = items("sort", value)?.iter().map(sort).collect::<Read<_>>()?,
            "limit" => {
                read.limit = Some(value.as_u64().ok_or_else(|| wrong("`limit` is a whole number from 0"))?);
            }
            "bookmark" => {
                read.bookmark = match value {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    _ => return Err(wrong("`bookmark` is a text")),
                };
            }
            "fields" => {
                read.fields =
                    items("fields", value)?.iter().map(|v| path("fields", v)).collect::<Read<_>>()?
            }
            "group" => read.groups = items("group", value)?.iter().map(group).collect::<Read<_>>()?,
            "aggregate" => {
                let members = value.as_object().ok_or_else(|| wrong("`aggregate` is an object of names"))?;
                let one = |(name, value): (&String, &Value)| Ok((name.clone(), aggregate(name, value)?));
                read.aggregates = members.iter().map(one).collect::<Read<_>>()?;
            }
            other => {
                return Err(wrong(format!(
                    "{:?} is nothing that a query has: selector, sort, limit, bookmark, fields, group, aggregate",
                    clip(other)
                )));
            }
        }
    }
    Ok(read)
}

fn items<'v>(name: &str, value: &'v Value) -> Read<&'v [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(format!("`{name}` is an array")))
}

fn path(name: &str, value: &Value) -> Read<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(format!("`{name}`: a path is a text")))
}

/// The one member of an object.
fn only(value: &Value) -> Option<(&String, &Value)> {
    value.as_object().filter(|members| members.len() == 1)?.iter().next()
}

fn sort(value: &Value) -> Read<(String, bool)> {
    let direction = |text: &str| match text {
        "asc" => Some(false),
        "desc" => Some(true),
        _ => None,
    };
    let sorted = match value {
        Value::String(path) => Some((path.clone(), false)),
        value => only(value).and_then(|(path, way)| Some((path.clone(), direction(way.as_str()?)?))),
    };
    sorted.ok_or_else(|| wrong("`sort` has paths, or objects such as {\"time\": \"desc\"}"))
}

fn group(value: &Value) -> Read<(String, Option<String>)> {
    let group = match value {
        Value::String(path) => Some((path.clone(), None)),
        value => only(value).and_then(|(path, every)| Some((path.clone(), Some(every.as_str()?.to_owned())))),
    };
    group.ok_or_else(|| wrong("`group` has paths, or objects such as {\"time\": \"1h\"}"))
}

fn aggregate(name: &str, value: &Value) -> Read<Aggregate> {
    let form = || {
        wrong(format!(
            "`aggregate`, {:?}: \"count\", or one of {{\"count\": PATH}}, min, max, avg, sum, \
            {{\"first\": PATH, \"by\": PATH}}, last",
            clip(name)
        ))
    };
    if value == "count" {
        return Ok(Aggregate::Count);
    }
    let members = value.as_object().ok_or_else(form)?;
    let of = |key: &str| members.get(key).and_then(Value::as_str).map(str::to_owned);
    if members.len() == 2 {
        let by = of("by").ok_or_else(form)?;
        return match (of("first"), of("last")) {
            (Some(of), None) => Ok(Aggregate::First { of, by }),
            (None, Some(of)) => Ok(Aggregate::Last { of, by }),
            _ => Err(form()),
        };
    }
    let (kind, path) = only(value).ok_or_else(form)?;
    let path = path.as_str().ok_or_else(form)?.to_owned();
    Ok(match kind.as_str() {
        "count" => Aggregate::CountOf(path),
        "min" => Aggregate::Min(path),
        "max" => Aggregate::Max(path),
        "avg" => Aggregate::Avg(path),
        "sum" => Aggregate::Sum(path),
        _ => return Err(form()),
    })
}

fn selector(value: &Value, depth: usize) -> Read<Filter> {
    if depth > DEPTH_MAX {
        return Err(wrong(format!("filters within filters, more than {DEPTH_MAX} deep")));
    }
    let members = value.as_object().ok_or_else(|| wrong("a selector is an object of paths and operators"))?;
    let several = |key: &str, value: &Value| -> Read<Vec<Filter>> {
        items(key, value)?.iter().map(|value| selector(value, depth + 1)).collect()
    };
    let mut filters = Vec::with_capacity(members.len());
    for (key, value) in members {
        filters.push(match key.as_str() {
            "$and" => Filter::All(several("$and", value)?),
            "$or" => Filter::Any(several("$or", value)?),
            "$nor" => Filter::Not(Box::new(Filter::Any(several("$nor", value)?))),
            "$not" => Filter::Not(Box::new(selector(value, depth + 1)?)),
            key if key.starts_with('$') => {
                return Err(wrong(format!(
                    "{:?} joins nothing: $and, $or, $nor, $not do; a path that begins with $ is not possible here",
                    clip(key)
                )));
            }
            path => at(path, value, depth + 1)?,
        });
    }
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) })
}

/// What is asked of one path.
fn at(path: &str, value: &Value, depth: usize) -> Read<Filter> {
    if depth > DEPTH_MAX {
        return Err(wrong(format!("filters within filters, more than {DEPTH_MAX} deep")));
    }
    let Value::Object(members) = value else {
        return Ok(Filter::At(path.to_owned(), Test::Equal(value.clone())));
    };
    if members.is_empty() || !members.keys().all(|key| key.starts_with('$')) {
        return Err(wrong(format!(
            "{:?}: an object has operators such as {{\"$gte\": 20}}; write `a.b` for what is inside, and $eq to compare with \
            an object",
            clip(path)
        )));
    }
    let mut filters = Vec::with_capacity(members.len());
    for (operator, value) in members {
        filters.push(match operator.as_str() {
            "$not" => Filter::Not(Box::new(at(path, value, depth + 1)?)),
            operator => Filter::At(path.to_owned(), test(operator, value)?),
        });
    }
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::All(filters) })
}

fn test(operator: &str, value: &Value) -> Read<Test> {
    Ok(match operator {
        "$eq" => Test::Equal(value.clone()),
        "$ne" => Test::NotEqual(value.clone()),
        "$lt" => Test::Below(value.clone()),
        "$lte" => Test::AtMost(value.clone()),
        "$gt" => Test::Above(value.clone()),
        "$gte" => Test::AtLeast(value.clone()),
        "$in" => Test::In(items("$in", value)?.to_vec()),
        "$nin" => Test::NotIn(items("$nin", value)?.to_vec()),
        "$exists" => Test::Exists(value.as_bool().ok_or_else(|| wrong("`$exists` is true or false"))?),
        "$beginsWith" => Test::BeginsWith(
            value.as_str().map(str::to_owned).ok_or_else(|| wrong("`$beginsWith` is a text"))?,
        ),
        other => {
            return Err(wrong(format!(
                "{:?} is no operator: $eq, $ne, $lt, $lte, $gt, $gte, $in, $nin, $exists, $beginsWith, $not",
                clip(other)
            )));
        }
    })
}
