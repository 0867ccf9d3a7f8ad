//! What peers chose (IDs, values, names, reasons) as people may see it: nothing in it steers a terminal, turns the direction of
//! text round, or makes one line look like two.

use std::borrow::Cow;

/// Text in which control characters stand as `\u{...}`, the end of line among them.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// As [`visible`], for text of several lines.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// JSON that means the same and has no character that steers a terminal. JSON itself escapes those up to U+001F in strings;
/// the others occur in strings alone.
pub(crate) fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(|c| steers(c) && c >= '\u{7f}') {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            // All of them are in the basic plane.
            c if steers(c) && c >= '\u{7f}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_hidden = |c: char| steers(c) && !is_kept(c);
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { seen.extend(c.escape_unicode()) } else { seen.push(c) }
    }
    Cow::Owned(seen)
}

/// C0 and C1 controls, line and paragraph separators, and what changes the direction of text.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let all: String = ('\0'..='\u{ffff}').collect();
        let seen = visible(&all);
        assert!(!seen.chars().any(steers));
        assert_eq!(visible("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\u{a}c");
        assert_eq!(visible_lines("a\u{9b}2J\nc\u{202e}"), "a\\u{9b}2J\nc\\u{202e}");
        for plain in ["Größe", "日本語", "עברית", "👩‍👩‍👧", "a\\b"] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"\u{9b}a": "\u{1b}\u{7f}\u{202e}\u{2028}ü\n"});
        let json = value.to_string();
        let seen = visible_json(&json);
        assert!(!seen.chars().any(steers), "{seen}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&seen).expect("JSON"), value);
    }
}
