//! Lines for a reader that may be slow, stopped or gone, and for whom nothing else may wait.
//!
//! A thread of its own writes; what waits for it is bounded. Lines beyond that are dropped and counted, and the count is
//! told as soon as the reader goes on. A reader that is gone is no error of whoever has something to say.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait for the reader.
pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;

/// Bytes written with one call: so many at least show that the reader goes on.
const PIECE_BYTES: usize = 16 * 1024;

/// Pause before the next attempt where a write failed for another reason than a reader that is gone (a full disk), or would
/// block.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Says that so many lines were dropped.
type Tell = dyn Fn(u64) -> Vec<u8> + Send + Sync;

/// Where lines go. Clones share it.
#[derive(Clone)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Something was written.
    moved: Condvar,
    bytes_max: usize,
    tell: Box<Tell>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of `lines` and of what is being written.
    bytes: usize,
    /// Lines dropped and not told of yet.
    dropped: u64,
    is_writing: bool,
    /// Pieces written so far.
    written: u64,
    is_gone: bool,
}

impl Sink {
    /// Writes to `out`; `tell` makes the line that tells of dropped ones, `gone` is called when the reader is gone. Without a
    /// thread or a descriptor everything is dropped.
    pub(crate) fn start(
        name: &'static str,
        out: impl AsFd,
        tell: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
        gone: impl FnOnce() + Send + 'static,
    ) -> Sink {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            moved: Condvar::new(),
            bytes_max: WAITING_BYTES_MAX,
            tell: Box::new(tell),
        });
        let writer = Arc::clone(&shared);
        // A descriptor of its own: the standard library's lock stays free while a write waits.
        let started = out.as_fd().try_clone_to_owned().and_then(|fd| {
            let run = move || {
                if writer.write(File::from(fd)) {
                    gone();
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn(run)
        });
        if started.is_err() {
            shared.lock().is_gone = true;
        }
        Sink { shared }
    }

    /// Gives one line to the writer, with the end of line that it has; never waits for the reader.
    pub(crate) fn push(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        if state.is_gone {
            return;
        }
        if state.bytes + line.len() > self.shared.bytes_max {
            state.dropped += 1;
            return;
        }
        self.shared.tell_dropped(&mut state);
        self.shared.add(&mut state, line);
    }

    /// The last line, which is never dropped.
    pub(crate) fn push_last(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        if !state.is_gone {
            self.shared.tell_dropped(&mut state);
            self.shared.add(&mut state, line);
        }
    }

    /// Something that is of no use later: dropped without a word if the reader is behind.
    pub(crate) fn push_passing(&self, bytes: Vec<u8>) {
        let mut state = self.shared.lock();
        if !state.is_gone && state.bytes + bytes.len() <= PIECE_BYTES.min(self.shared.bytes_max) {
            self.shared.add(&mut state, bytes);
        }
    }

    /// Waits until all is written, unless nothing is written for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let mut state = self.shared.lock();
        let mut until = Instant::now() + patience;
        while !state.is_gone && (state.is_writing || !state.lines.is_empty()) {
            let written = state.written;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = (self.shared.moved.wait_timeout(state, left)).unwrap_or_else(PoisonError::into_inner).0;
            if state.written != written {
                until = Instant::now() + patience;
            }
        }
    }
}

impl Shared {
    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, state: &mut State, line: Vec<u8>) {
        state.bytes += line.len();
        state.lines.push_back(line);
        self.filled.notify_one();
    }

    /// Beyond the limit if need be, by one short line.
    fn tell_dropped(&self, state: &mut State) {
        if state.dropped > 0 {
            let line = (self.tell)(std::mem::take(&mut state.dropped));
            self.add(state, line);
        }
    }

    /// Writes for as long as there is a reader; true: it is gone.
    fn write(&self, mut out: File) -> bool {
        // Whether the last line stands there in part.
        let mut is_torn = false;
        loop {
            let (piece, lines) = self.next_piece(is_torn);
            let result = write_whole(&mut out, &piece);
            let mut state = self.lock();
            state.is_writing = false;
            state.bytes = state.bytes.saturating_sub(piece.len());
            match result {
                Ok(()) => {
                    is_torn = false;
                    state.written += 1;
                    if state.lines.is_empty() {
                        self.tell_dropped(&mut state);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    *state = State { is_gone: true, ..State::default() };
                    self.moved.notify_all();
                    return true;
                }
                // What stands in a file whose disk is full is not known.
                Err(_) => {
                    is_torn = true;
                    state.dropped += lines;
                }
            }
            self.moved.notify_all();
            drop(state);
            if is_torn {
                thread::sleep(RETRY_PAUSE);
            }
        }
    }

    /// Waits for lines; gives some of them, and how many they are.
    fn next_piece(&self, is_torn: bool) -> (Vec<u8>, u64) {
        let mut state = self.lock();
        while state.lines.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut piece = if is_torn { vec![b'\n'] } else { Vec::new() };
        let mut lines = 0;
        while let Some(line) = state.lines.front()
            && (piece.is_empty() || piece.len() + line.len() <= PIECE_BYTES)
        {
            piece.extend_from_slice(line);
            state.lines.pop_front();
            lines += 1;
        }
        state.is_writing = true;
        (piece, lines)
    }
}

/// As `write_all`, also where the descriptor was set to non-blocking by somebody who shares it.
fn write_whole(out: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    fn sink() -> (Sink, io::PipeReader, mpsc::Receiver<()>) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (gone, told) = mpsc::channel();
        let sink = Sink::start(
            "test",
            &writer,
            |dropped| format!("dropped {dropped}\n").into_bytes(),
            move || gone.send(()).expect("the test waits"),
        );
        (sink, reader, told)
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_counted_and_told() {
        let (sink, mut reader, _told) = sink();
        let line = |n: u64| format!("{n:0>1023}\n").into_bytes();
        let lines = 3 * WAITING_BYTES_MAX as u64 / 1024;
        (0..lines).for_each(|n| sink.push(line(n)));
        sink.flush(Duration::from_millis(10));
        sink.push_last(b"end\n".to_vec());
        drop(sink);
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !text.ends_with("end\n") {
            let len = reader.read(&mut bytes).expect("a pipe is read");
            text.push_str(std::str::from_utf8(&bytes[..len]).expect("text"));
        }
        let told: u64 =
            text.lines().filter_map(|line| line.strip_prefix("dropped ")?.parse::<u64>().ok()).sum();
        let written = text.lines().filter(|line| line.len() == 1023).count() as u64;
        assert_eq!((written + told, told > 0), (lines, true), "{written} {told}");
        assert!(text.lines().filter(|line| line.len() == 1023).is_sorted());
    }

    #[test]
    fn a_reader_that_is_gone_is_told_once_and_costs_nothing() {
        let (sink, reader, told) = sink();
        drop(reader);
        sink.push(b"a\n".to_vec());
        told.recv().expect("the end is told");
        sink.push_last(b"b\n".to_vec());
        sink.flush(Duration::from_secs(60));
        assert!(told.recv().is_err(), "the writer has ended");
    }
}
