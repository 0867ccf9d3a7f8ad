//! How the gateway's state is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, Wrap};

use super::history::History;
use crate::cli::commands::status::{ago, duration};
use crate::cli::support::output::{bytes_text, thousands};
use crate::cli::support::visible::visible;
use crate::gateway::status::{DatabaseStatus, GatewayStatus, NeighbourStatus};

/// Rows that databases, syncs and failures take at most; neighbours take what is left.
const DATABASES_MAX: usize = 6;
const SYNCS_MAX: usize = 8;
const FAILURES_MAX: usize = 6;

/// Lines of a terminal from which the rate is drawn too, and of its drawing.
const RATE_FROM: u16 = 22;
const RATE_LINES: u16 = 4;

/// Columns of whom is synced with: upstreams and brokers, neighbours.
const SYNC_WIDTHS: [Constraint; 5] = [
    Constraint::Fill(2),
    Constraint::Length(14),
    Constraint::Length(14),
    Constraint::Length(12),
    Constraint::Length(12),
];

const KEYS: &str = "up, down: neighbours   n: sync now   p: pause   r: go on   q: end";

/// What is shown of the state.
#[derive(Default)]
pub(super) struct View {
    /// Neighbours that are passed over.
    from: usize,
    /// Neighbours that there are, and that had room when they were drawn last.
    neighbours: usize,
    room: usize,
    /// What became of the last order.
    pub(super) told: Option<String>,
}

impl View {
    /// Moves through the neighbours.
    pub(super) fn move_by(&mut self, rows: isize) {
        let last = self.neighbours.saturating_sub(self.room.max(1));
        self.from = self.from.saturating_add_signed(rows).min(last);
    }

    /// Neighbours on the screen.
    pub(super) fn page_len(&self) -> isize {
        isize::try_from(self.room).unwrap_or(1).max(1)
    }

    pub(super) fn draw(&mut self, history: &History, frame: &mut Frame<'_>) {
        let status = &history.status;
        let databases = databases(status);
        let syncs = syncs(status);
        let failures = failures(history);
        let lines = |rows: usize, max: usize| match rows {
            0 => 0,
            rows => rows.min(max) as u16 + 2,
        };
        let failure_lines = match failures.len() {
            0 => 0,
            len => 2 * len.min(FAILURES_MAX) as u16 + 1,
        };
        let area = frame.area();
        let [head, rate, of_databases, of_syncs, of_neighbours, of_failures, keys] = Layout::vertical([
            Constraint::Length(if status.medium.is_some() { 2 } else { 1 }),
            Constraint::Length(if area.height >= RATE_FROM { RATE_LINES } else { 0 }),
            Constraint::Length(lines(databases.len(), DATABASES_MAX)),
            Constraint::Length(lines(syncs.len(), SYNCS_MAX)),
            Constraint::Min(4),
            Constraint::Length(failure_lines.min(area.height / 3)),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(header(history)), head);
        draw_rate(history, frame, rate);
        let widths = [Constraint::Fill(2), Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(2)];
        let of = ["DATABASE", "DOCUMENTS", "FREE", "STATE"];
        frame.render_widget(table(of, databases, widths), of_databases);
        frame.render_widget(
            table(["SYNC", "STATE", "IN SYNC", "DOCUMENTS", "TO GO"], syncs, SYNC_WIDTHS),
            of_syncs,
        );
        self.draw_neighbours(status, frame, of_neighbours);
        let block = Block::new().borders(Borders::TOP).title(format!(" {} fail ", failures.len()));
        let text: Vec<Line<'_>> = failures.into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), of_failures);
        let told = self.told.as_deref().map(|told| format!("{}   {KEYS}", visible(told)));
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(told.unwrap_or_else(|| KEYS.into())).style(style), keys);
    }

    fn draw_neighbours(&mut self, status: &GatewayStatus, frame: &mut Frame<'_>, area: Rect) {
        let all: Vec<&NeighbourStatus> = status.databases.iter().flat_map(|d| &d.neighbours).collect();
        let order = by_need(&all);
        self.neighbours = order.len();
        self.room = usize::from(area.height.saturating_sub(2));
        self.move_by(0);
        let shown = order.into_iter().skip(self.from).take(self.room);
        let rows: Vec<Row<'_>> = shown.map(|neighbour| neighbour_row(neighbour, status.now_s)).collect();
        let title = format!(
            " {} to {} of {} ",
            thousands((self.from + usize::from(!rows.is_empty())) as u64),
            thousands((self.from + rows.len()) as u64),
            thousands(self.neighbours as u64)
        );
        let of_them = table(["NEIGHBOUR", "HEARD", "IN SYNC", "DOCUMENTS", "TO GO"], rows, SYNC_WIDTHS);
        frame.render_widget(of_them.block(Block::new().borders(Borders::TOP).title(title)), area);
    }
}

/// The neighbours that need somebody first: those that fail, then those that are connected, then by when they were heard.
fn by_need<'a>(all: &[&'a NeighbourStatus]) -> Vec<&'a NeighbourStatus> {
    let mut order = all.to_vec();
    order.sort_by_key(|n| (n.error.is_none(), !n.connected, std::cmp::Reverse(n.last_heard_s)));
    order
}

fn header(history: &History) -> Vec<Line<'_>> {
    let status = &history.status;
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let runs = duration(status.now_s.saturating_sub(status.since_s));
    let text =
        format!("gattway {}, process {}, runs for {runs}, {}", status.version, status.process, status.config);
    let mut lines = vec![match &history.missing {
        Some(error) => Line::styled(format!("NO ANSWER: {}", visible(error)), strong.fg(Color::Red)),
        None => Line::styled(visible(&text).into_owned(), strong),
    }];
    if let Some(medium) = &status.medium {
        let mut text = format!("medium: {} written", bytes_text(medium.written_bytes));
        if let Some(bytes) = medium.bytes_a_day {
            text.push_str(&format!(", {} a day at this rate", bytes_text(bytes)));
        }
        if let Some(days) = medium.days_to_wear {
            text.push_str(&format!(", lasts {} days", thousands(days)));
        }
        lines.push(Line::from(text));
    }
    lines
}

fn draw_rate(history: &History, frame: &mut Frame<'_>, area: Rect) {
    let rates = history.rates(usize::from(area.width));
    let (now, most) = (rates.last().copied().unwrap_or(0), rates.iter().copied().max().unwrap_or(0));
    let title = format!(" documents a second: {}, at most {} ", thousands(now), thousands(most));
    // The newest stands on the right.
    let room = usize::from(area.width).saturating_sub(rates.len());
    let data: Vec<u64> = std::iter::repeat_n(0, room).chain(rates).collect();
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Sparkline::default().data(data).max(most.max(1)).block(block), area);
}

fn table<'a, const N: usize>(head: [&'a str; N], rows: Vec<Row<'a>>, widths: [Constraint; N]) -> Table<'a> {
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(head).block(Block::new().borders(Borders::TOP))
}

fn databases(status: &GatewayStatus) -> Vec<Row<'_>> {
    let row = |database: &DatabaseStatus| {
        let documents: u64 = database.collections.iter().map(|collection| collection.documents).sum();
        let state = match (database.open, database.full) {
            (false, _) => "NOT OPEN",
            (true, true) => "NO ROOM",
            (true, false) => "open",
        };
        let style = if state == "open" { Style::new() } else { failing() };
        let free = database.free_bytes.map(bytes_text).unwrap_or_default();
        Row::new([visible(&database.name).into_owned(), thousands(documents), free, state.to_owned()])
            .style(style)
    };
    status.databases.iter().map(row).collect()
}

/// Upstreams and brokers.
fn syncs(status: &GatewayStatus) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for database in &status.databases {
        for upstream in &database.upstreams {
            let style = if upstream.error.is_some() { failing() } else { Style::new() };
            rows.push(
                Row::new([
                    visible(&upstream.name).into_owned(),
                    upstream.activity.clone(),
                    since(status.now_s, upstream.last_synced_s),
                    thousands(upstream.documents),
                    thousands(upstream.pending),
                ])
                .style(style),
            );
        }
        for mqtt in &database.mqtt {
            let (style, state) = match mqtt.connected {
                true => (Style::new(), "connected"),
                false => (failing(), "not connected"),
            };
            rows.push(
                Row::new([
                    format!("mqtt {}", visible(&mqtt.name)),
                    state.to_owned(),
                    String::new(),
                    thousands(mqtt.published.saturating_add(mqtt.received)),
                    thousands(mqtt.pending),
                ])
                .style(style),
            );
        }
    }
    rows
}

fn neighbour_row(neighbour: &NeighbourStatus, now_s: u64) -> Row<'_> {
    let heard = if neighbour.connected { "connected".to_owned() } else { ago(now_s, neighbour.last_heard_s) };
    let style = if neighbour.error.is_some() { failing() } else { Style::new() };
    Row::new([
        visible(&neighbour.name).into_owned(),
        heard,
        since(now_s, neighbour.last_synced_s),
        thousands(neighbour.documents),
        thousands(neighbour.pending),
    ])
    .style(style)
}

fn failures(history: &History) -> Vec<String> {
    let text = |f: super::history::Failure<'_>| {
        visible(&format!("{} ({} times): {}", f.what, thousands(f.failures), f.reason)).into_owned()
    };
    history.failures().into_iter().map(text).collect()
}

fn since(now_s: u64, then_s: Option<u64>) -> String {
    then_s.map_or_else(|| "never".to_owned(), |then| ago(now_s, then))
}

fn failing() -> Style {
    Style::new().fg(Color::Red)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::gateway::status::{CollectionStatus, UpstreamStatus};

    fn status(neighbours: usize) -> GatewayStatus {
        let neighbour = |n: usize| NeighbourStatus {
            name: if n == 7 { "evil\x1b[2J\u{202e}name".into() } else { format!("sensor-{n}") },
            connected: n == 3,
            last_heard_s: 900 + n as u64,
            last_synced_s: (n == 3).then_some(990),
            pending: 12_345,
            documents: 6,
            failures: 1,
            error: (n == 7).then(|| "refused: denied".into()),
            ..NeighbourStatus::default()
        };
        let upstream = UpstreamStatus {
            name: "cloud".into(),
            activity: "busy".into(),
            documents: 42,
            error: Some("no route to host; is the address right?".into()),
            ..UpstreamStatus::default()
        };
        let database = DatabaseStatus {
            name: "plant".into(),
            open: true,
            collections: vec![CollectionStatus {
                name: "_default".into(),
                documents: 1_000_000,
                ..CollectionStatus::default()
            }],
            upstreams: vec![upstream],
            neighbours: (0..neighbours).map(neighbour).collect(),
            ..DatabaseStatus::default()
        };
        GatewayStatus {
            version: "9.9".into(),
            process: 17,
            since_s: 10,
            now_s: 1_000,
            config: "/etc/gattway.toml".into(),
            databases: vec![database],
            http: None,
            medium: None,
        }
    }

    fn drawn(view: &mut View, history: &History, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| view.draw(history, frame)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn what_needs_somebody_stands_first_and_all_is_shown() {
        let (history, mut view) = (History::new(status(30)), View::default());
        let text = drawn(&mut view, &history, 100, 40);
        for part in
            ["gattway 9.9", "plant", "1,000,000", "cloud", "busy", "no route to host", "12,345", "2 fail"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
        assert!(at("evil") < at("sensor-3") && at("sensor-3") < at("sensor-29"), "{text}");
        // Nothing that a peer chose steers the terminal.
        assert!(!text.contains(['\x1b', '\u{202e}']), "{text}");
        let mut gone = History::new(status(30));
        gone.miss("nobody answers".into());
        assert!(drawn(&mut view, &gone, 100, 40).contains("NO ANSWER: nobody answers"));
    }

    #[test]
    fn every_neighbour_is_reached_and_none_is_passed() {
        let (history, mut view) = (History::new(status(30)), View::default());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let text = drawn(&mut view, &history, 90, 24);
            seen.extend((0..30).filter(|n| text.contains(&format!("sensor-{n} "))));
            view.move_by(1);
        }
        assert_eq!(seen.len(), 29, "all but the one with another name: {seen:?}");
        view.move_by(isize::MAX);
        let end = drawn(&mut view, &history, 90, 24);
        assert!(end.contains(" of 30 ") && end.contains("to 30"), "{end}");
        view.move_by(isize::MIN);
        assert!(drawn(&mut view, &history, 90, 24).contains(" 1 to "));
        // Fewer than before: there is no empty screen.
        view.move_by(isize::MAX);
        assert!(drawn(&mut view, &History::new(status(2)), 90, 24).contains("sensor-1"));
    }

    #[test]
    fn no_size_of_terminal_is_too_small() {
        let (history, mut view) = (History::new(status(30)), View::default());
        for (width, height) in [(1, 1), (2, 50), (20, 5), (40, 12), (80, 24), (300, 100)] {
            let text = drawn(&mut view, &history, width, height);
            assert_eq!(text.lines().count(), usize::from(height), "{width} x {height}");
        }
    }
}
