//! Progress of long work: a bar on a terminal, a line now and then otherwise, nothing when a script reads events.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::cli::support::{output, words};

/// How often a line tells of progress when there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a bar is drawn.
const DRAWS_PER_S: u8 = 10;

/// Width of a terminal that does not say.
const COLUMNS: u16 = 80;

/// All bars of the terminal, one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let terminal = ProgressDrawTarget::term_like_with_hz(Box::new(Terminal::default()), DRAWS_PER_S);
    MultiProgress::with_draw_target(terminal)
});

/// Shows how far one step of the work is.
pub(crate) struct Progress {
    view: View,
    what: String,
}

enum View {
    Bar(ProgressBar),
    Lines(Lines),
    Hidden,
}

/// When a line tells of progress, and what the last one told: a step that only waits says nothing, for days if need be.
struct Lines {
    next: Instant,
    told: (u64, u64),
}

impl Lines {
    fn is_due(&mut self, now: Instant, progress: (u64, u64)) -> bool {
        let is_due = now >= self.next && progress != self.told;
        if is_due {
            (self.next, self.told) = (now + LINE_INTERVAL, progress);
        }
        is_due
    }
}

impl Progress {
    /// Starts a step of `total` units (0 if unknown), for instance documents.
    pub(crate) fn start(what: &str, total: u64, hidden: bool) -> Progress {
        let view = if hidden {
            View::Hidden
        } else if output::stderr_is_terminal() && !words::is_json() {
            View::Bar(bar(what, total))
        } else {
            View::Lines(Lines { next: Instant::now() + LINE_INTERVAL, told: (0, 0) })
        };
        Progress { view, what: what.to_owned() }
    }

    /// Tells how far it is.
    pub(crate) fn update(&mut self, done: u64, total: u64, note: &str) {
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(note.to_owned());
            }
            View::Lines(lines) => {
                if lines.is_due(Instant::now(), (done, total)) {
                    let of =
                        if total > 0 { format!(" of {}", output::thousands(total)) } else { String::new() };
                    let comma = if note.is_empty() { "" } else { ", " };
                    output::note(&format!("{}: {}{of}{comma}{note}", self.what, output::thousands(done)));
                }
            }
            View::Hidden => {}
        }
    }

    /// Prints a line for people above the bar, or by itself.
    pub(crate) fn say(&self, line: &str) {
        match &self.view {
            View::Bar(_) => BARS.suspend(|| output::note(line)),
            View::Lines(_) => output::note(line),
            View::Hidden => {}
        }
    }

    /// Ends the step; `summary` stays on the screen.
    pub(crate) fn finish(self, summary: &str) {
        match &self.view {
            View::Bar(bar) => {
                bar.finish_and_clear();
                BARS.suspend(|| output::note(summary));
            }
            View::Lines(_) => output::note(summary),
            View::Hidden => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let template = "{prefix:<22} {bar:30} {human_pos:>8} of {human_len} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(total));
    bar.set_style(style);
    bar.set_prefix(what.to_owned());
    bar
}

/// The terminal behind standard error, for the bar: a picture is handed over whole, and left out when the terminal stands
/// still.
#[derive(Debug, Default)]
struct Terminal {
    picture: Mutex<Vec<u8>>,
}

impl Terminal {
    fn add(&self, text: &str) -> io::Result<()> {
        let mut picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        picture.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn steer(&self, count: usize, how: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.add(&format!("\x1b[{count}{how}")) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        size.map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.steer(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.steer(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.steer(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.steer(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let picture = std::mem::take(&mut *self.picture.lock().unwrap_or_else(PoisonError::into_inner));
        if !picture.is_empty() {
            words::draw(picture);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_waits_says_nothing() {
        let begin = Instant::now();
        let mut lines = Lines { next: begin + LINE_INTERVAL, told: (0, 0) };
        let at = |intervals: u32| begin + LINE_INTERVAL * intervals;
        assert!(!lines.is_due(at(1), (0, 0)), "nothing has begun");
        assert!(!lines.is_due(begin, (5, 10)), "too soon");
        assert!(lines.is_due(at(1), (5, 10)));
        assert!(!lines.is_due(at(1), (6, 10)), "too soon after the last");
        assert!(!lines.is_due(at(9), (5, 10)), "it stands still");
        assert!(lines.is_due(at(9), (6, 10)));
    }
}
