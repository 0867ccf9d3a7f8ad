//! `gattway top`: the gateway that runs, as it changes, on a terminal.
//!
//! One thread asks, so that a gateway that is slow to answer holds up no key; `history` remembers what was told, `view` draws it.

mod history;
mod view;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::history::History;
use self::view::View;
use crate::cli::commands::control::gateway::{self as control, OrderWord, SyncRequest};
use crate::cli::commands::status::{SocketArgs, done};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{counted, stdout_is_terminal};
use crate::gateway::status::GatewayStatus;

/// How often the gateway is asked, and how long a key waits for its answer at most.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
const KEY_WAIT_MAX: Duration = Duration::from_millis(100);

/// Watch the gateway that runs: what is synced and how fast, who was heard, what fails and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys:
  up, down, page up, page down   move through the neighbours
  n                              let all syncs begin now
  p, r                           pause all syncs, let them go on
  q, Esc, Ctrl-C                 end

Examples:
  gattway top
  ssh -t gateway gattway top
  gattway top --socket /run/gattway/control")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// What the thread that asks is told.
enum Wish {
    /// Tell syncs something, then ask.
    Order(OrderWord),
}

/// What it has heard.
enum Heard {
    Status(Box<GatewayStatus>),
    /// Nobody answers.
    Nothing(String),
    /// What became of an order.
    Told(String),
}

pub(crate) fn run(args: &TopArgs) -> Result<(), CliError> {
    if !stdout_is_terminal() {
        return Err(CliError::new(Exit::Usage, "top draws on a terminal, and standard output is none")
            .help("`gattway status --watch` prints the same as text, with --json for programs"));
    }
    let socket = args.socket.socket();
    // One that does not run is told before the screen is taken.
    let first = control::status(&socket)?;
    let (wishes, to_ask) = channel();
    let (heard, hears) = sync_channel(1);
    std::thread::spawn(move || {
        // It ends when nobody listens any more.
        let _ = ask(&socket, &to_ask, |news| heard.send(news).map_err(drop));
    });
    let mut terminal = ratatui::try_init()?;
    let ended = watch(&mut terminal, first, &wishes, &hears);
    ratatui::restore();
    Ok(ended?)
}

/// Asks again and again until `tell` fails: nobody wants to know any more.
fn ask(socket: &Path, wishes: &Receiver<Wish>, tell: impl Fn(Heard) -> Result<(), ()>) -> Result<(), ()> {
    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
    loop {
        match wishes.recv_timeout(ASK_INTERVAL) {
            Ok(Wish::Order(order)) => tell(Heard::Told(told(socket, order)))?,
            Err(Timeout) => {}
            Err(Disconnected) => return Ok(()),
        }
        tell(match control::status(socket) {
            Ok(status) => Heard::Status(Box::new(status)),
            Err(error) => Heard::Nothing(error.to_string()),
        })?;
    }
}

fn told(socket: &Path, order: OrderWord) -> String {
    match control::order(socket, &SyncRequest { order, name: None }) {
        Ok(syncs) => format!("{} {}", counted(syncs as u64, "sync"), done(order)),
        Err(error) => error.to_string(),
    }
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    first: GatewayStatus,
    wishes: &Sender<Wish>,
    hears: &Receiver<Heard>,
) -> std::io::Result<()> {
    let mut history = History::new(first);
    let mut view = View::default();
    loop {
        terminal.draw(|frame| view.draw(&history, frame))?;
        if event::poll(KEY_WAIT_MAX)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match pressed(key, &mut view) {
                    Pressed::End => return Ok(()),
                    // The other thread ends after this one.
                    Pressed::Order(order) => drop(wishes.send(Wish::Order(order))),
                    Pressed::Other => {}
                },
                _ => {}
            }
        }
        for news in hears.try_iter() {
            match news {
                Heard::Status(status) => history.take(*status),
                Heard::Nothing(error) => history.miss(error),
                Heard::Told(text) => view.told = Some(text),
            }
        }
    }
}

/// What a key asks for beyond moving.
enum Pressed {
    End,
    Order(OrderWord),
    Other,
}

fn pressed(key: KeyEvent, view: &mut View) -> Pressed {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Pressed::End,
        KeyCode::Char('q') | KeyCode::Esc => return Pressed::End,
        KeyCode::Char('n') => return Pressed::Order(OrderWord::Now),
        KeyCode::Char('p') => return Pressed::Order(OrderWord::Pause),
        KeyCode::Char('r') => return Pressed::Order(OrderWord::Resume),
        KeyCode::Up => view.move_by(-1),
        KeyCode::Down => view.move_by(1),
        KeyCode::PageUp => view.move_by(-view.page_len()),
        KeyCode::PageDown => view.move_by(view.page_len()),
        KeyCode::Home => view.move_by(isize::MIN),
        KeyCode::End => view.move_by(isize::MAX),
        _ => {}
    }
    Pressed::Other
}
