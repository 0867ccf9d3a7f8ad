//! `gattway top` on a terminal, as an emulator of one shows it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{central_and_field, put, wait_until};

const ROWS: u16 = 30;
const COLUMNS: u16 = 100;

/// A terminal with a program on it.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(mut command: std::process::Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let child =
            command.stdin(stdio()).stdout(stdio()).stderr(stdio()).env("TERM", "xterm").spawn().unwrap();
        let keys = File::from(master);
        let mut output = keys.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with an error when nobody has the terminal open any more.
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..len]);
            }
        });
        Terminal { child, keys, screen }
    }

    fn shows(&self, text: &str) -> bool {
        self.screen.lock().unwrap().screen().contents().contains(text)
    }

    fn is_full_screen(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_shows_what_changes_and_gives_the_terminal_back() {
    let (central, mut at_central, field) = central_and_field();
    put(&field.path("state/field.db"), "first");
    // Standard output is a pipe: there is nothing to draw on.
    let refused = field.run(&["top"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("gattway status --watch"), "{refused:?}");
    let mut at_field = field.start();
    wait_until("it answers", || field.run(&["status"]).code == Some(0));
    let mut terminal = Terminal::start(field.command(&["top"]));
    wait_until("the upstream is shown in sync", || {
        terminal.shows("central") && terminal.shows("idle") && terminal.shows("documents a second")
    });
    terminal.press("p");
    wait_until("it is paused", || terminal.shows("1 sync paused") && terminal.shows("paused   "));
    terminal.press("r");
    wait_until("it goes on", || terminal.shows("1 sync told to go on") && terminal.shows("idle"));
    at_central.child.kill().unwrap();
    at_central.child.wait().unwrap();
    drop(central);
    wait_until("what fails stands with its reason", || {
        terminal.shows("1 fail") && terminal.shows("upstream central (")
    });
    at_field.child.kill().unwrap();
    at_field.child.wait().unwrap();
    wait_until("that nobody answers is told", || terminal.shows("NO ANSWER"));
    assert!(terminal.is_full_screen());
    terminal.press("q");
    assert!(terminal.child.wait().unwrap().success());
    wait_until("the terminal is as before", || !terminal.is_full_screen());
}
