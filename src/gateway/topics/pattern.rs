//! Topics and IDs with places that a document or a message fills: `plant/{sensor}/reading`.

use serde_json::{Map, Value};

use crate::database::{DocumentPath as Path, PathPlace as Place, look_up};

/// Longest topic, and longest pattern, in bytes.
pub(crate) const TOPIC_BYTES_MAX: usize = 1_024;

/// A text with names in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(Name),
}

/// What fills a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `{_id}`: the document's.
    Id,
    /// `{_collection}`: the full name.
    Collection,
    /// `{_database}`: as the configuration names it.
    Database,
    /// `{_topic}`: of a message.
    Topic,
    /// `{_1}`: one level of it, from 1.
    Level(usize),
    /// A value of the body.
    Value(Path),
}

/// Names that a pattern may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Document,
    Message,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str, of: Of) -> Result<Pattern, String> {
        if text.len() > TOPIC_BYTES_MAX {
            return Err(format!("it has {} bytes, at most {TOPIC_BYTES_MAX} can be", text.len()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = brace.strip_prefix('{').ok_or("a `}` stands without a `{`")?;
            let (name, behind) = inside.split_once('}').ok_or("a `{` is not closed")?;
            parts.push(Part::Name(Name::parse(name, of)?));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Pattern { parts })
    }

    /// Fills the places as `value` says; `make_safe` makes each value fit.
    ///
    /// # Errors
    /// The name that has no value, as it stands in the pattern.
    pub(crate) fn fill(
        &self,
        value: impl Fn(&Name) -> Option<String>,
        make_safe: impl Fn(String) -> String,
    ) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Name(name) => {
                    filled.push_str(&make_safe(value(name).ok_or_else(|| name.text())?));
                }
            }
        }
        Ok(filled)
    }

    /// Whether it has this name.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Name(own) if own == name))
    }

    /// Whether the body of a document is needed.
    pub(crate) fn has_values(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Name(Name::Value(_))))
    }

    /// The levels of a topic, `None` where any text can stand.
    pub(crate) fn levels(&self) -> Vec<Option<String>> {
        let mut levels = vec![Some(String::new())];
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    for (nth, level) in text.split('/').enumerate() {
                        if nth > 0 {
                            levels.push(Some(String::new()));
                        }
                        if let Some(Some(last)) = levels.last_mut() {
                            last.push_str(level);
                        }
                    }
                }
                Part::Name(_) => {
                    if let Some(last) = levels.last_mut() {
                        *last = None;
                    }
                }
            }
        }
        levels
    }
}

impl Name {
    fn parse(name: &str, of: Of) -> Result<Name, String> {
        Ok(match (name, of) {
            ("_id", Of::Document) => Name::Id,
            ("_collection", Of::Document) => Name::Collection,
            ("_database", Of::Document) => Name::Database,
            ("_topic", Of::Message) => Name::Topic,
            (name, _) if name.starts_with('_') => {
                let level = name[1..].parse().ok().filter(|level| *level > 0 && of == Of::Message);
                let known = match of {
                    Of::Document => "{_id}, {_collection} and {_database}",
                    Of::Message => "{_topic} and {_1}, {_2} and so on, its levels",
                };
                Name::Level(level.ok_or_else(|| format!("{{{name}}} is not known; {known} are"))?)
            }
            (name, _) => Name::Value(Path::parse(name).map_err(|error| error.to_string())?),
        })
    }

    fn text(&self) -> String {
        match self {
            Name::Id => "_id".into(),
            Name::Collection => "_collection".into(),
            Name::Database => "_database".into(),
            Name::Topic => "_topic".into(),
            Name::Level(level) => format!("_{level}"),
            Name::Value(path) => path.text().into(),
        }
    }
}

/// The value at a path of a body.
pub(crate) fn value_at<'v>(body: &'v Map<String, Value>, path: &Path) -> Option<&'v Value> {
    match path.place() {
        Place::Body(steps) => look_up(body, steps),
        _ => None,
    }
}

/// A value as it stands in a topic or an ID; `None`: it is not there, or an object, an array or null.
pub(crate) fn text_at(body: &Map<String, Value>, path: &Path) -> Option<String> {
    match value_at(body, path)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A value as one level of a topic: what has a meaning there, or cannot be there, becomes `_`.
pub(crate) fn one_level(value: String) -> String {
    let has_place = |c: char| !matches!(c, '+' | '#' | '/') && !c.is_control();
    let level: String = value.chars().map(|c| if has_place(c) { c } else { '_' }).collect();
    if level.is_empty() { "_".into() } else { level }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(pattern: &str, body: Value) -> Result<String, String> {
        let pattern = Pattern::parse(pattern, Of::Document).expect("a pattern");
        let body = body.as_object().expect("an object").clone();
        let value = |name: &Name| match name {
            Name::Value(path) => text_at(&body, path),
            Name::Id => Some("r-7".into()),
            _ => Some("other".into()),
        };
        pattern.fill(value, one_level)
    }

    #[test]
    fn places_are_filled_and_stay_one_level() {
        let body =
            json!({ "sensor": "a/b+c#\u{0}d", "n": 7, "empty": "", "deep": { "x": [true] }, "none": null });
        for (pattern, topic) in [
            ("plant/{sensor}/reading", "plant/a_b_c__d/reading"),
            ("{n}{empty}/{deep.x[0]}", "7_/true"),
            ("{_id}", "r-7"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(filled(pattern, body.clone()).as_deref(), Ok(topic));
        }
        for (pattern, missing) in [("x/{other}", "other"), ("{none}", "none"), ("{deep}", "deep")] {
            assert_eq!(filled(pattern, body.clone()), Err(missing.to_owned()));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["{", "}", "a{b", "a}b", "{}", "{_x}", "{_1}", "{_topic}", "{a..b}", "{a{b}}"] {
            assert!(Pattern::parse(text, Of::Document).is_err(), "{text}");
        }
        assert!(Pattern::parse(&"x".repeat(TOPIC_BYTES_MAX + 1), Of::Document).is_err());
        for text in ["{_id}", "{_0}", "{_-1}", "{_1x}"] {
            assert!(Pattern::parse(text, Of::Message).is_err(), "{text}");
        }
        assert!(Pattern::parse("{_topic}-{_2}-{time}", Of::Message).is_ok());
    }

    #[test]
    fn levels_are_known_as_far_as_they_can_be() {
        let levels = |text| Pattern::parse(text, Of::Document).expect("a pattern").levels();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(levels("a/b{_id}/c"), [some("a"), None, some("c")]);
        assert_eq!(levels("{_id}/{_id}"), [None, None]);
        assert_eq!(levels("a//b"), [some("a"), some(""), some("b")]);
    }
}
