//! `virtual-radio`: virtual Bluetooth LE controllers for guests and other host stacks, in real time.

#![allow(clippy::disallowed_methods, reason = "a program with a clock around the sans-IO core")]

mod ports;
mod server;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand, ValueEnum};
use gattway::lab::time::Instant;
use gattway::lab::transport::sim::radio::Path;
use ports::{Port, PortEvent};
use rustix::event::{PollFd, PollFlags, Timespec};
use server::Server;
use virtual_radio::btsnoop::{self, Log};
use virtual_radio::hci::opcode::Capabilities;
use virtual_radio::world::{Config, World};

/// Most controllers of one radio.
const CONTROLLERS_MAX: usize = 64;
/// Longest wait: how late the end of the command is noticed.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// How early this process asks to be woken late by, nanoseconds: radio events are microseconds apart.
const TIMER_SLACK_NS: u64 = 1;

/// Virtual Bluetooth LE controllers joined by the radio model of gattway.
///
/// With a COMMAND, its controllers are serial lines (H4) that the command inherits as file descriptors 10, 11, ...; the program
/// ends when the command does, with its exit code.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Controllers on serial lines of the command
    #[arg(long, default_value_t = 2)]
    controllers: usize,
    /// A Unix socket at which a host stack finds one more controller (H4; for Bumble: unix:PATH). May be repeated
    #[arg(long, value_name = "PATH")]
    socket: Vec<PathBuf>,
    /// A Unix socket for faults and questions, JSON lines
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// A log of all packets for Wireshark
    #[arg(long, value_name = "FILE")]
    btsnoop: Option<PathBuf>,
    /// PHY of connections: 1m is what kernel 6.1 asks for; 2m: the central's controller moves each connection there by itself
    #[arg(long, value_enum, default_value_t = PhyChoice::OneM)]
    phy: PhyChoice,
    /// Share of PDUs lost, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Signal strength everywhere, dBm
    #[arg(long, default_value_t = -50, allow_negative_numbers = true)]
    rssi: i8,
    /// ACL buffers of each controller
    #[arg(long, default_value_t = 8)]
    buffers: u8,
    /// Controllers without data length extension: PDUs of 27 octets
    #[arg(long)]
    no_data_length: bool,
    /// Controllers without extended advertising: the hosts use the legacy commands
    #[arg(long)]
    legacy: bool,
    /// Decides every loss and delay
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The command that uses the controllers
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PhyChoice {
    #[value(name = "1m")]
    OneM,
    #[value(name = "2m")]
    TwoM,
}

#[derive(Subcommand)]
enum Task {
    /// Sends commands to the control socket of a running radio and prints the answers; fails if one is refused
    Control {
        /// The control socket
        socket: PathBuf,
        /// JSON objects, such as {"command":"cut","a":0,"ms":3000}
        #[arg(required = true)]
        lines: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.task {
        Some(Task::Control { socket, lines }) => server::ask(socket, lines),
        None => Program::new(&arguments).and_then(Program::run),
    };
    result.unwrap_or_else(|error| {
        eprintln!("virtual-radio: {error}");
        ExitCode::FAILURE
    })
}

struct Program {
    world: World,
    ports: Vec<Port>,
    child: Option<Child>,
    server: Option<Server>,
    log: Option<Log<BufWriter<File>>>,
    started: std::time::Instant,
}

impl Program {
    fn new(arguments: &Arguments) -> io::Result<Program> {
        let lines = if arguments.command.is_empty() { 0 } else { arguments.controllers };
        let count = lines + arguments.socket.len();
        if count == 0 || count > CONTROLLERS_MAX || !(0.0..=1.0).contains(&arguments.loss) {
            return Err(io::Error::other(format!(
                "1 to {CONTROLLERS_MAX} controllers, a loss of 0 to 1; see --help"
            )));
        }
        let config = Config {
            capabilities: Capabilities {
                data_length: !arguments.no_data_length,
                two_m: true,
                extended_advertising: !arguments.legacy,
            },
            acl_buffers: arguments.buffers.max(1),
            moves_to_two_m: arguments.phy == PhyChoice::TwoM,
            path: Path { rssi_dbm: arguments.rssi, loss: arguments.loss, ..Path::default() },
            seed: arguments.seed,
        };
        let world = World::new(config, count);
        let server = arguments.control.as_deref().map(Server::new).transpose()?;
        let log = match &arguments.btsnoop {
            Some(path) => {
                let addresses: Vec<_> = (0..count).filter_map(|c| world.address(c)).collect();
                Some(Log::new(BufWriter::new(File::create(path)?), &addresses, unix_us())?)
            }
            None => None,
        };
        // on a kernel without it, wake-ups are 50 us later
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(TIMER_SLACK_NS));
        let (mut ports, child) = match lines {
            0 => (Vec::new(), None),
            _ => ports::start(&arguments.command, lines).map(|(ports, child)| (ports, Some(child)))?,
        };
        for path in &arguments.socket {
            ports.push(Port::listen(path)?);
        }
        Ok(Program { world, ports, child, server, log, started: std::time::Instant::now() })
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.started.elapsed().as_micros() as u64)
    }

    fn run(mut self) -> io::Result<ExitCode> {
        loop {
            let (ready, control_ready) = self.wait()?;
            // what was due before these packets came happens first
            self.world.handle_timeout(self.now());
            for port in ready {
                self.serve_port(port)?;
            }
            if control_ready && let Some(server) = &mut self.server {
                server.serve(&mut self.world);
            }
            self.world.handle_timeout(self.now());
            self.send_packets()?;
            if let Some(code) = self.child_end()? {
                if let Some(log) = &mut self.log {
                    log.flush()?;
                }
                return Ok(code);
            }
        }
    }

    /// Waits for hosts, control connections or the next event on the radio. Gives the ports with something to do.
    fn wait(&self) -> io::Result<(Vec<usize>, bool)> {
        let deadline = self.world.poll_at().map_or(WAIT_MAX, |at| (at - self.now()).min(WAIT_MAX));
        let mut owners = Vec::new();
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for (index, port) in self.ports.iter().enumerate() {
            if let Some(fd) = port.fd() {
                let write = if port.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
                owners.push(index);
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN | write));
            }
        }
        let control_fds: Vec<BorrowedFd<'_>> = self.server.as_ref().map_or_else(Vec::new, Server::fds);
        fds.extend(control_fds.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec { tv_sec: deadline.as_secs() as _, tv_nsec: deadline.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = owners.iter().zip(&fds).filter(|(_, fd)| is_ready(fd)).map(|(owner, _)| *owner).collect();
        Ok((ready, fds[owners.len()..].iter().any(is_ready)))
    }

    fn serve_port(&mut self, port: usize) -> io::Result<()> {
        let mut events = Vec::new();
        self.ports[port].flush(&mut events);
        self.ports[port].read(&mut events);
        self.handle_events(port, events)
    }

    fn handle_events(&mut self, port: usize, events: Vec<PortEvent>) -> io::Result<()> {
        for event in events {
            match event {
                PortEvent::Packet(packet) => {
                    if let Some(log) = &mut self.log {
                        log.packet(port, btsnoop::From::Host, &packet, unix_us())?;
                    }
                    self.world.handle_packet(port, &packet);
                }
                PortEvent::Gone(error) => {
                    if let Some(error) = error {
                        eprintln!("virtual-radio: controller {port}: {error}");
                    }
                    // every port has a controller
                    let _ = self.world.power_off(port);
                }
            }
        }
        Ok(())
    }

    fn send_packets(&mut self) -> io::Result<()> {
        while let Some((port, packet)) = self.world.poll_packet() {
            if let Some(log) = &mut self.log {
                log.packet(port, btsnoop::From::Controller, &packet, unix_us())?;
            }
            let mut events = Vec::new();
            self.ports[port].write(&packet, &mut events);
            self.handle_events(port, events)?;
        }
        Ok(())
    }

    fn child_end(&mut self) -> io::Result<Option<ExitCode>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        if !self.ports.iter().any(Port::is_over) {
            return Ok(None);
        }
        // a child killed by a signal has no code
        Ok(child.try_wait()?.map(|status| ExitCode::from(status.code().unwrap_or(1) as u8)))
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
