//! The director's end of one machine: requests out, replies and counters in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::agent::protocol::{Command, Request, Said, Sample};
use crate::agent::{Result, fail};

/// Longest wait for an answer that a request does not limit itself.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// Counters that came in, each with its machine and node.
pub type Samples = Arc<Mutex<Vec<(usize, u32, Sample)>>>;

/// A machine.
#[derive(Clone)]
pub struct Host {
    requests: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    samples: Samples,
    /// Which machine of the rig this is.
    machine: usize,
    /// What to add to the machine's time to have ours, microseconds.
    offset_us: Mutex<i64>,
}

/// What an agent says to a request.
type Answer = std::result::Result<serde_json::Value, String>;

#[derive(Default)]
struct Waiting {
    /// With the node whose process answers; none if that is the agent itself.
    answers: HashMap<u64, (Option<u32>, oneshot::Sender<Answer>)>,
    gone: bool,
}

impl Shared {
    /// No change under this lock can be left half done.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offset_us(&self) -> i64 {
        *self.offset_us.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, said: Said) {
        match said {
            Said::Done { id, value } => self.answer(id, Ok(value)),
            Said::Failed { id, error } => self.answer(id, Err(error)),
            Said::Sample { node, mut sample } => {
                sample.at_us = sample.at_us.saturating_add_signed(self.offset_us());
                let row = (self.machine, node, sample);
                self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(row);
            }
            Said::Gone { node } => {
                let mut waiting = self.waiting();
                let lost: Vec<u64> = waiting
                    .answers
                    .iter()
                    .filter(|(_, (n, _))| *n == Some(node))
                    .map(|(id, _)| *id)
                    .collect();
                for id in lost {
                    if let Some((_, sender)) = waiting.answers.remove(&id) {
                        let _ = sender.send(Err("the node's process has ended".to_owned()));
                    }
                }
            }
        }
    }

    fn answer(&self, id: u64, result: std::result::Result<serde_json::Value, String>) {
        if let Some((_, sender)) = self.waiting().answers.remove(&id) {
            // Nobody waits any more: it took too long.
            let _ = sender.send(result);
        }
    }

    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.gone = true;
        for (_, (_, sender)) in waiting.answers.drain() {
            let _ = sender.send(Err("the machine's agent has ended".to_owned()));
        }
    }
}

impl Host {
    /// A machine whose agent is reached by these; the second half gives what it says.
    fn new(samples: Samples, machine: usize) -> (Host, mpsc::UnboundedReceiver<Request>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            samples,
            machine,
            offset_us: Mutex::new(0),
        };
        (Host { requests, shared: Arc::new(shared) }, receiver)
    }

    /// An agent that speaks over a stream.
    pub fn over(
        input: impl AsyncRead + Send + Unpin + 'static,
        mut output: impl AsyncWrite + Send + Unpin + 'static,
        samples: Samples,
        machine: usize,
    ) -> Host {
        let (host, mut requests) = Host::new(samples, machine);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let Ok(mut line) = serde_json::to_string(&request) else { continue };
                line.push('\n');
                if output.write_all(line.as_bytes()).await.is_err() || output.flush().await.is_err() {
                    return;
                }
            }
        });
        let shared = Arc::clone(&host.shared);
        tokio::spawn(async move {
            let mut lines = BufReader::new(input).lines();
            // A line that makes no sense is the noise of a terminal that was not yet raw.
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(said) = serde_json::from_str(&line) {
                    shared.take(said);
                }
            }
            shared.end();
        });
        host
    }

    /// An agent in this process.
    pub fn local(
        samples: Samples,
        machine: usize,
    ) -> (Host, mpsc::UnboundedReceiver<Request>, mpsc::UnboundedSender<Said>) {
        let (host, requests) = Host::new(samples, machine);
        let (said, mut saying) = mpsc::unbounded_channel();
        let shared = Arc::clone(&host.shared);
        tokio::spawn(async move {
            while let Some(said) = saying.recv().await {
                shared.take(said);
            }
        });
        (host, requests, said)
    }

    /// Asks, and waits for the answer at most `limit`.
    pub async fn ask<T: DeserializeOwned>(&self, node: u32, command: Command, limit: Duration) -> Result<T> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.gone {
                return fail("the machine's agent has ended");
            }
            waiting.answers.insert(id, ((!command.is_of_agent()).then_some(node), sender));
        }
        let what = format!("{command:?}");
        let _ = self.requests.send(Request { id, node, command });
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(value))) => Ok(serde_json::from_value(value)?),
            Ok(Ok(Err(error))) => fail(error),
            Ok(Err(_)) => fail("the machine's agent has ended"),
            Err(_) => {
                self.shared.waiting().answers.remove(&id);
                fail(format!("no answer within {} s to {what}", limit.as_secs()))
            }
        }
    }

    /// Asks for something that may take `seconds` by itself.
    pub async fn ask_for<T: DeserializeOwned>(&self, node: u32, command: Command, seconds: f64) -> Result<T> {
        self.ask(node, command, Duration::from_secs_f64(seconds) + Duration::from_secs(10)).await
    }

    /// The machine's clock is this much behind ours.
    pub fn set_offset_us(&self, offset_us: i64) {
        *self.shared.offset_us.lock().unwrap_or_else(PoisonError::into_inner) = offset_us;
    }

    /// A time of the machine in ours.
    pub fn our_time_us(&self, at_us: u64) -> u64 {
        at_us.saturating_add_signed(self.shared.offset_us())
    }

    /// Asks the agent to end everything and go. It does not answer.
    pub fn quit(&self) {
        let _ = self.requests.send(Request { id: 0, node: u32::MAX, command: Command::Quit });
    }
}
