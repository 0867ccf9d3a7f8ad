//! Paths into a document: `sensor`, `position.height`, `samples[0].celsius`, `_id`.

use crate::database::DatabaseError;
use crate::database::packed::Step;
use crate::replica::clip;

/// Longest path in bytes, and most steps of one.
pub(crate) const PATH_BYTES_MAX: usize = 1_024;
pub(crate) const PATH_STEPS_MAX: usize = 100;

/// The path of the document's ID, of its revision, and of the document as a whole.
const ID: &str = "_id";
const REVISION: &str = "_rev";
const DOCUMENT: &str = "_doc";

/// Where in a document a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    text: Box<str>,
    place: Place,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Id,
    Revision,
    /// ID, revision and body.
    Document,
    Body(Vec<Step>),
}

impl Path {
    /// Reads a path. Members are separated by a dot, the number of an item stands in brackets; a backslash takes away what
    /// a dot, a bracket or a backslash means.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`].
    pub(crate) fn parse(text: &str) -> Result<Path, DatabaseError> {
        let wrong =
            |reason: &str| DatabaseError::BadQuery { reason: format!("path {:?}: {reason}", clip(text)) };
        if text.len() > PATH_BYTES_MAX {
            return Err(wrong(&format!("it has {} bytes, at most {PATH_BYTES_MAX} can be", text.len())));
        }
        let place = match text {
            ID => Place::Id,
            REVISION => Place::Revision,
            DOCUMENT => Place::Document,
            text if text.starts_with('_') => {
                return Err(wrong("only `_id`, `_rev` and `_doc` begin with `_`"));
            }
            text => Place::Body(steps(text).map_err(wrong)?),
        };
        Ok(Path { text: text.into(), place })
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn is_id(&self) -> bool {
        self.place == Place::Id
    }
}

fn steps(text: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    let mut rest = text.chars();
    let mut next = rest.next();
    loop {
        if steps.len() >= PATH_STEPS_MAX {
            return Err("it has more than 100 steps");
        }
        let mut name = String::new();
        loop {
            match next {
                Some('\\') => name.push(
                    rest.next()
                        .filter(|c| ['.', '[', ']', '\\'].contains(c))
                        .ok_or("a backslash stands before a dot, a bracket or a backslash")?,
                ),
                None | Some('.' | '[') => break,
                Some(']') => return Err("a bracket is closed that was not opened"),
                Some(other) => name.push(other),
            }
            next = rest.next();
        }
        if name.is_empty() {
            return Err("a name is empty");
        }
        steps.push(Step::Member(name.into()));
        while next == Some('[') {
            let (number, behind) = rest.as_str().split_once(']').ok_or("a bracket is not closed")?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| number.parse().ok()).flatten();
            steps.push(Step::Item(number.ok_or("in brackets stands the number of an item, from 0")?));
            rest = behind.chars();
            next = rest.next();
        }
        match next {
            None => break,
            Some('.') => next = rest.next(),
            Some(_) => return Err("behind a bracket comes a dot, another bracket or the end"),
        }
    }
    if steps.len() > PATH_STEPS_MAX { Err("it has more than 100 steps") } else { Ok(steps) }
}

/// The value in a body that was unpacked.
pub(crate) fn look_up<'v>(
    body: &'v serde_json::Map<String, serde_json::Value>,
    steps: &[Step],
) -> Option<&'v serde_json::Value> {
    let (Step::Member(first), rest) = steps.split_first()? else { return None };
    rest.iter().try_fold(body.get(&**first)?, |value, step| match step {
        Step::Member(name) => value.as_object()?.get(&**name),
        Step::Item(at) => value.as_array()?.get(*at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let member = |name: &str| Step::Member(name.into());
        for (text, expected) in [
            ("a", vec![member("a")]),
            ("a.b_c", vec![member("a"), member("b_c")]),
            ("a[0]", vec![member("a"), Step::Item(0)]),
            ("a[0][12].b", vec![member("a"), Step::Item(0), Step::Item(12), member("b")]),
            (r"a\.b.c\[0\]\\", vec![member("a.b"), member(r"c[0]\")]),
            ("\u{e4}.$x y", vec![member("\u{e4}"), member("$x y")]),
        ] {
            assert_eq!(Path::parse(text).expect(text).place, Place::Body(expected));
        }
        assert_eq!(Path::parse("_id").expect("the ID").place, Place::Id);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long = "a".repeat(PATH_BYTES_MAX + 1);
        let deep = "a.".repeat(PATH_STEPS_MAX) + "a";
        let items = format!("a{}", "[0]".repeat(PATH_STEPS_MAX));
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[+1]",
            "a[0",
            "a[0]b",
            "[0]",
            "a]",
            r"a\",
            r"a\b",
            "_x",
            "_id.a",
            "a[99999999999999999999999]",
            &long,
            &deep,
            &items,
        ] {
            let refused = Path::parse(text);
            assert!(matches!(refused, Err(DatabaseError::BadQuery { .. })), "{text:.40}: {refused:?}");
        }
        assert!(Path::parse(&long[1..]).is_ok());
    }
}
