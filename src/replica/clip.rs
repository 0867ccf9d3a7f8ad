//! Text that others gave, in messages.

/// The start of text given by somebody else, for an error message.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
