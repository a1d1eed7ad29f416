//! The whole of `toka top` without a terminal: messages go in, effects and cells come out.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Size;
use ratatui::style::{Color, Modifier};
use toka_api::client::Client;
use toka_api::health::ProjectHealth;
use toka_api::host::HostFigures;
use toka_api::wire::{AgentView, ProjectView, ResourcesView, RunInfo};
use toka_core::approval::Subject;
use toka_core::budget::{Measure, Scope};
use toka_core::health::Reason;
use toka_core::{
    AgentStatus, Approval, ApprovalAnswer, BudgetUse, Enforcement, Event, EventKind, Exit, HealthReport,
    Name, Origin, Progress, Request, Resources, RunId, Verdict,
};
use toka_logs::Stream;
use toka_workstream::describe::Described;

use super::log_line::LogLine;
use super::machine::Machine;
use super::model::{Effect, Message, Mode, Model, Note, Sample, Tone};
use super::rows::AgentId;
use super::theme::Theme;
use crate::commands::reach::Left;
use toka_terminal::palette::Palette;

/// The moment that it is.
const NOW: i64 = 1_795_000_000_000;
const SMALL: Size = Size { width: 80, height: 24 };
const LARGE: Size = Size { width: 200, height: 50 };

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

fn id(project: &str, agent: &str) -> AgentId {
    AgentId { project: name(project), agent: name(agent) }
}

fn view(project: &str, agents: &[&str]) -> ProjectView {
    let overview = RunInfo {
        project: name(project),
        run: RunId::from_uuid(uuid::Uuid::nil()),
        workspace: "/w".into(),
        root: format!("/state/projects/{project}").into(),
        ends_by_itself: false,
    };
    let agents = agents.iter().map(|agent| AgentStatus::new(name(agent), NOW - 90_000)).collect();
    ProjectView { overview, started_ms: NOW - 90_000, seq: 0, agents, trouble: None }
}

/// A model that is told things.
struct Story {
    model: Model,
    seq: u64,
    effects: Vec<Effect>,
}

impl Story {
    fn new(size: Size) -> Self {
        let mut story = Self { model: Model::default(), seq: 0, effects: Vec::new() };
        story.tell(Message::Resized(size));
        story.tell(Message::Tick(NOW));
        story
    }

    fn tell(&mut self, message: Message) -> &mut Self {
        self.effects.extend(self.model.update(message));
        self
    }

    fn project(&mut self, project: &str, agents: &[&str]) -> &mut Self {
        let view = Box::new(view(project, agents));
        self.tell(Message::Project(view, Client::new(format!("/run/{project}.sock"))))
    }

    fn mouse(&mut self, kind: MouseEventKind, (column, row): (u16, u16)) -> &mut Self {
        self.tell(Message::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
    }

    /// Somebody says how an agent of the shop is.
    fn judge(&mut self, agent: &str, verdict: Verdict, reasons: Vec<Reason>) -> &mut Self {
        let (_, status) = self.model.agent(&id("shop", agent)).expect("there");
        let report = HealthReport {
            verdict,
            reasons,
            uptime_ms: None,
            status: status.clone(),
            resources: None,
            shares: Default::default(),
        };
        let (project, started_ms) = (name("shop"), NOW - 90_000);
        let health = ProjectHealth { project, verdict, started_ms, agents: vec![report] };
        self.tell(Message::Health(Box::new(health)))
    }

    fn event(&mut self, project: &str, agent: &str, kind: EventKind) -> &mut Self {
        self.seq += 1;
        let run = RunId::from_uuid(uuid::Uuid::nil());
        let agent = (!agent.is_empty()).then(|| name(agent));
        let time_ms = NOW - 61_000;
        self.tell(Message::Event(Box::new(Event {
            seq: self.seq,
            time_ms,
            project: name(project),
            run,
            agent,
            kind,
        })))
    }

    fn started(&mut self, project: &str, agent: &str, pid: i32) -> &mut Self {
        self.event(project, agent, EventKind::AgentStarting);
        self.event(project, agent, EventKind::AgentStarted { pid, enforcement: Enforcement::default() })
    }

    fn progress(&mut self, project: &str, agent: &str, fraction: f64, status: &str) -> &mut Self {
        let progress = Progress { fraction: Some(fraction), status: Some(status.into()), task: None };
        let kind = EventKind::Progress(progress);
        self.event(project, agent, kind)
    }

    fn uses(&mut self, project: &str, at: u64, agent: &str, cpu_us: u64, memory: u64) -> &mut Self {
        let resources = Resources {
            cpu_us: Some(cpu_us),
            memory_current: Some(memory),
            memory_peak: Some(200 << 20),
            memory_limit: Some(512 << 20),
            ..Resources::default()
        };
        let view = ResourcesView::from([(name(agent), resources)]);
        let asked = vec![name(agent)];
        self.tell(Message::Figures(Sample {
            project: name(project),
            at: Duration::from_secs(at),
            asked,
            view,
        }))
    }

    fn press(&mut self, keys: &str) -> &mut Self {
        for key in keys.chars() {
            self.key(KeyCode::Char(key));
        }
        self
    }

    fn key(&mut self, key: KeyCode) -> &mut Self {
        self.tell(Message::Key(KeyEvent::new(key, KeyModifiers::NONE)))
    }

    fn rows(&mut self) -> Vec<String> {
        self.model.settle();
        self.model.rows.iter().map(|row| row.id.agent.to_string()).collect()
    }

    fn selected(&mut self) -> String {
        self.model.settle();
        self.model.selected.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn drawn(&mut self, palette: Palette) -> Buffer {
        self.model.settle();
        let size = self.model.size;
        let mut terminal = Terminal::new(TestBackend::new(size.width, size.height)).expect("memory");
        let draw =
            |frame: &mut ratatui::Frame<'_>| super::draw::draw(&self.model, Theme::from(palette), frame);
        terminal.draw(draw).expect("memory");
        terminal.backend().buffer().clone()
    }

    fn text(&mut self) -> String {
        let cells = self.drawn(Palette::COLOUR);
        rows_of(&cells)
    }
}

/// The cells as lines; the second half of a wide character is no text of its own.
fn rows_of(cells: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..cells.area.height {
        let mut x = 0;
        let mut line = String::new();
        while x < cells.area.width {
            let symbol = cells[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(toka_terminal::text::columns(symbol)).expect("small").max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Every state, long names, wide characters.
fn shop(size: Size) -> Story {
    let long = "a-name-that-is-as-long-as-a-name-may-be-in-a-workstream-of-your";
    let mut story = Story::new(size);
    story.project("shop", &["api", "db", "job", "report", "flaky", "import", long]);
    story.started("shop", "db", 4711).event("shop", "db", EventKind::AgentReady);
    story.started("shop", "api", 4712).event("shop", "api", EventKind::AgentReady);
    story.event("shop", "api", EventKind::AgentPaused { by: String::new() });
    story.started("shop", "import", 1_234_567).progress(
        "shop",
        "import",
        0.425,
        "読み込み中 42 of 100 \u{1b}[2J",
    );
    let ended = |code| EventKind::AgentEnded {
        exit: Exit::Code { code },
        duration_ms: 10,
        usage: Default::default(),
    };
    story.started("shop", "job", 4714).event("shop", "job", ended(3));
    story.event("shop", "report", EventKind::AgentBlocked { by: name("job"), why: None });
    let again = EventKind::AgentRestarting {
        exit: Exit::Code { code: 1 },
        duration_ms: 10,
        usage: Default::default(),
        restarts: 12,
        delay_ms: 66_000,
    };
    story.started("shop", "flaky", 4715).event("shop", "flaky", again);
    story.tell(Message::Machine(Machine {
        host: Some(HostFigures {
            load: [1.5, 0.25, 12.0],
            memory_total: 24 << 30,
            memory_available: 5 << 30,
            ..HostFigures::default()
        }),
        pressure: [Some(12.5), Some(0.0), Some(73.0)],
    }));
    for second in 0..30 {
        let level = 1 + second % 7;
        story.uses("shop", second, "db", second * second * 20_000, (level * 20) << 20);
    }
    story.tell(Message::Searched { daemons: 1, left: Left::default() });
    story.rows();
    story.model.selected = Some(id("shop", "db"));
    let line =
        |at: i64, text: &str, stream| LogLine { time_ms: Some(NOW + at), text: text.to_owned(), stream };
    let mut lines: Vec<LogLine> = (0..40)
        .map(|at| line(at * 1000, &format!("row {at} of the table was written"), Stream::Stdout))
        .collect();
    lines.push(line(41_000, "遅い a query took longer than it may: ".repeat(4).trim(), Stream::Stderr));
    story.tell(Message::Log { agent: id("shop", "db"), lines });
    story
}

#[test]
fn on_a_small_terminal() {
    insta::assert_snapshot!(shop(SMALL).text());
}

#[test]
fn on_a_large_terminal() {
    insta::assert_snapshot!(shop(LARGE).text());
}

#[test]
fn on_the_smallest_terminal() {
    insta::assert_snapshot!(shop(super::layout::LEAST).text());
}

#[test]
fn the_log_alone() {
    insta::assert_snapshot!(shop(SMALL).key(KeyCode::Enter).text());
}

#[test]
fn what_happened_is_below_where_somebody_wants_it() {
    let mut story = shop(SMALL);
    story.event("shop", "", EventKind::RunEnding { by: "operator".into(), end_of: None });
    story.press("v");
    insta::assert_snapshot!(story.text());
    // What was told before comes again when events are read from the beginning.
    let again = story.model.projects[&name("shop")].events.of(&name("db"));
    story.seq = 0;
    story.event("shop", "db", EventKind::AgentStarting);
    assert_eq!(story.model.projects[&name("shop")].events.of(&name("db")), again);
    story.press("v");
    assert!(story.text().contains("row 39 of the table"));
}

#[test]
fn a_text_is_looked_for_in_what_is_below() {
    let mut story = shop(SMALL);
    story.key(KeyCode::Tab).press("/ROW 1");
    assert!(story.text().contains("/ROW 1▏"));
    story.key(KeyCode::Enter);
    assert_eq!(story.model.log.found, Some(19));
    let cells = story.drawn(Palette::COLOUR);
    let text = rows_of(&cells);
    let (y, _) = text.lines().enumerate().find(|(_, line)| line.contains("row 19")).expect("it is shown");
    let marked = |x: u16| cells[(x, u16::try_from(y).expect("small"))].modifier.contains(Modifier::REVERSED);
    assert_eq!((0..80).filter(|x| marked(*x)).count(), 5, "what was looked for: {text}");
    story.press("nn");
    assert_eq!(story.model.log.found, Some(17));
    story.press("N");
    assert_eq!(story.model.log.found, Some(18));
    story.press("NN");
    assert!(story.text().contains("no line after this has “ROW 1”"), "{}", story.text());
    story.key(KeyCode::Esc);
    assert_eq!((story.model.search.as_str(), story.effects.len()), ("", 0));
    story.press("/nowhere").key(KeyCode::Enter);
    assert!(story.text().contains("no line before this has “nowhere”"));
    story.key(KeyCode::Esc).key(KeyCode::Tab).press("/db");
    assert_eq!(story.rows(), ["db"], "in the table it filters");
}

#[test]
fn what_is_looked_for_is_found_at_every_place_and_in_no_half_letter() {
    use super::keys::matches;
    let found = |text: &'static str, wanted: &'static str| matches(text, wanted).collect::<Vec<_>>();
    assert_eq!(found("aaa AA", "aa"), [0..2, 4..6]);
    assert_eq!(found("日本語 ÄÖ ÄÖ", "äö"), [10..14, 15..19]);
    assert!(found("İstanbul", "i").is_empty(), "which is two letters when it is small");
    assert!(found("abc", "").is_empty() && found("", "a").is_empty());
}

#[test]
fn who_waits_for_whom_is_a_tree() {
    let mut story = shop(SMALL);
    let mut view = view("shop", &["api", "db", "web"]);
    view.agents[0].depends_on = vec![name("db")];
    view.agents[2].depends_on = vec![name("api"), name("db")];
    story.tell(Message::Project(Box::new(view), Client::new("/run/shop.sock")));
    story.press("t");
    let text = story.text();
    for line in [" db   ", " └ api   ", "   └ web   "] {
        assert!(text.lines().any(|row| row.starts_with(line)), "{line:?}: {text}");
    }
    assert!(text.contains("AGENT▾") && text.contains("ordered by dependency"));
    story.press("O");
    assert!(story.text().contains("AGENT▴"));
    assert_eq!(story.rows(), ["db", "api", "web"], "who comes first is still above");
    story.press("tO");
    assert_eq!(story.rows(), ["web", "db", "api"]);
}

#[test]
fn all_that_is_known_of_an_agent() {
    let mut story = shop(SMALL);
    story.press("i");
    let look = Effect::Look { client: Client::new("/run/shop.sock"), agent: id("shop", "db") };
    assert_eq!(story.effects, [look]);
    assert!(story.text().contains("asking …"));
    story.tell(Message::Details(id("shop", "api"), Err("late".into())));
    assert!(!story.text().contains("late"), "what comes late is about somebody else");
    let row = |key: &'static str, text: &str, line: Option<u32>| Described {
        key: key.into(),
        text: text.to_owned(),
        origin: line.map(|line| Origin::File { file: "shop.yaml".into(), line, column: 3 }),
    };
    let status = story.model.agent(&id("shop", "db")).expect("there").1.clone();
    let command = format!("/usr/lib/postgresql/15/bin/postgres -D data {}", "-c option=1 ".repeat(9));
    let declared = vec![
        row("file", "agents/shop.yaml", Some(2)),
        row("command", &command, Some(7)),
        row("restart", "after a failure, at most 5 times within 10m", None),
        row("requires", "net: started (\u{1b}[2Jpackets)", Some(12)),
    ];
    let used = |scope, measure, used, limit| BudgetUse { scope, measure, used, reserved: 0, limit };
    let budget = vec![
        used(Scope::Agent, Measure::Money, 1_250_000_000, Some(5_000_000_000)),
        used(Scope::Agent, Measure::Calls, 12, None),
        used(Scope::Run, Measure::Tokens, 340_100, Some(2_000_000)),
    ];
    let known = AgentView { project: name("shop"), status, resources: None, budget, declared };
    story.tell(Message::Details(id("shop", "db"), Ok(Box::new(known))));
    story.judge("db", Verdict::Degraded, vec![Reason::MemoryPressure { percent: 41 }]);
    insta::assert_snapshot!(story.text());
    assert_eq!(story.key(KeyCode::Esc).model.mode, Mode::Browse);
    story.press("i").tell(Message::Details(id("shop", "db"), Err("it is gone".into())));
    assert!(story.text().contains("it is gone"));
    story.press("q");
    assert_eq!(story.effects.len(), 2, "which closes this, and not all");
}

#[test]
fn why_one_is_not_well_is_told_in_its_row() {
    let mut story = shop(LARGE);
    story.judge("db", Verdict::Degraded, vec![Reason::MemoryPressure { percent: 41 }]);
    let text = story.text();
    let row = text.lines().find(|row| row.starts_with(" db ")).expect("a row");
    assert!(row.contains("degraded") && row.contains("waits for memory 41 % of the time"), "{row}");
}

#[test]
fn a_signal_is_chosen_from_a_list() {
    let mut story = shop(SMALL);
    story.press("x");
    insta::assert_snapshot!(story.text());
    story.key(KeyCode::Down).key(KeyCode::Down).press("z").key(KeyCode::Enter);
    let sent = Effect::Signal { client: Client::new("/run/shop.sock"), signal: 3, agent: id("shop", "db") };
    assert_eq!(story.effects, [sent]);
    assert!(story.text().contains("SIGQUIT to shop/db …"));
    story.press("x").key(KeyCode::Esc);
    assert_eq!((story.effects.len(), &story.model.mode), (1, &Mode::Browse));
}

#[test]
fn commands_that_need_the_terminal_get_it() {
    let words = |text: &str| Effect::Run(text.split(' ').map(str::to_owned).collect());
    let mut story = shop(SMALL);
    story.press("ae");
    assert_eq!(story.effects, [words("attach shop/db"), words("exec --tty shop/db -- /bin/sh")]);
    story.tell(Message::Quiet(name("shop"))).press("ae");
    assert_eq!(story.effects.len(), 2, "whose daemon is gone has none");
}

#[test]
fn the_mouse_chooses_scrolls_and_orders() {
    let mut story = shop(SMALL);
    let place_of = |story: &mut Story, word: &str| {
        let text = story.text();
        let (y, line) = text.lines().enumerate().find(|(_, line)| line.contains(word)).expect("there");
        let x = line.split(word).next().map(toka_terminal::text::columns).expect("there");
        (u16::try_from(x).expect("small"), u16::try_from(y).expect("small"))
    };
    let flaky = place_of(&mut story, "flaky");
    story.mouse(MouseEventKind::Down(MouseButton::Left), flaky);
    assert_eq!(story.selected(), "shop/flaky");
    story.mouse(MouseEventKind::ScrollUp, flaky);
    assert!(story.selected().starts_with("shop/a-name"));
    let title = place_of(&mut story, "CPU%");
    story.mouse(MouseEventKind::Down(MouseButton::Left), title);
    assert_eq!(story.rows()[0], "db");
    story.mouse(MouseEventKind::Down(MouseButton::Left), title);
    assert_eq!(story.rows().last().map(String::as_str), Some("db"), "again is the other way round");
    let mut story = shop(SMALL);
    let line = place_of(&mut story, "row 35");
    story.mouse(MouseEventKind::ScrollUp, line);
    assert_eq!((story.model.log.back, story.selected().as_str()), (3, "shop/db"));
    story.press("?").mouse(MouseEventKind::Down(MouseButton::Left), flaky);
    assert_eq!(story.selected(), "shop/db", "below a box there is nothing to click on");
}

#[test]
fn the_header_has_what_matters_on_every_terminal() {
    for width in [60, 70, 80, 100, 200] {
        let mut story = shop(Size { width, height: 24 });
        let text = story.text();
        let header = text.lines().next().expect("a line");
        assert!(header.contains("1 failed"), "{width}: {header}");
        assert!(header.contains("1 pending") || header.contains("others"), "nobody is left out: {header}");
    }
}

#[test]
fn the_help() {
    insta::assert_snapshot!(shop(SMALL).press("?").text());
}

#[test]
fn nothing_runs() {
    let mut story = Story::new(SMALL);
    assert!(story.text().contains("looking for what runs"));
    insta::assert_snapshot!(story.tell(Message::Searched { daemons: 0, left: Left::default() }).text());
}

#[test]
fn what_is_left_of_a_killed_run_is_told() {
    let left = || Left { ending: vec![name("shop")], ..Left::default() };
    let mut story = Story::new(SMALL);
    insta::assert_snapshot!(story.tell(Message::Searched { daemons: 0, left: left() }).text());
    let mut story = shop(SMALL);
    story.tell(Message::Quiet(name("shop")));
    assert!(story.text().contains("does not answer; trying again"), "{}", story.text());
    let text = story.tell(Message::Searched { daemons: 0, left: left() }).text();
    assert!(text.contains("the run was killed, and its keeper ends the agents: shop"), "{text}");
}

#[test]
fn a_terminal_that_is_too_small_is_told() {
    let text = shop(Size { width: 40, height: 8 }).text();
    assert_eq!(text.trim(), "toka top needs 60 × 12");
    assert_eq!(shop(Size { width: 5, height: 1 }).text().trim(), "toka…");
}

#[test]
fn projects_are_told_apart_when_there_are_several() {
    let mut story = shop(SMALL);
    story.project("a-project-with-a-long-name", &["import-of-data"]);
    let text = story.text();
    assert!(text.contains("shop/db"), "{text}");
    assert!(text.contains("a-p…/import-of-…"), "the agent is what is looked for: {text}");
    assert!(text.contains("2 projects 8 agents"), "{text}");
}

#[test]
fn without_colours_nothing_is_coloured_and_the_cursor_is_seen() {
    let cells = shop(SMALL).drawn(Palette::PLAIN);
    assert!(cells.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let reversed = |y| cells[(5, y)].modifier.contains(Modifier::REVERSED);
    assert_eq!((0..24).filter(|y| reversed(*y)).count(), 1);
}

#[test]
fn states_have_the_colours_of_the_list() {
    let cells = shop(SMALL).drawn(Palette::COLOUR);
    let text = rows_of(&cells);
    let colour_of = |word: &str| {
        let (y, line) =
            text.lines().enumerate().skip(3).find(|(_, line)| line.contains(word)).expect("there");
        let x = line.split(word).next().map(toka_terminal::text::columns).expect("there");
        cells[(u16::try_from(x).expect("small"), u16::try_from(y).expect("small"))].fg
    };
    assert_eq!(colour_of("failed"), Color::Red);
    assert_eq!(colour_of("paused"), Color::Yellow);
    assert_eq!(colour_of("running"), Color::Blue);
}

#[test]
fn the_cursor_stays_on_its_agent() {
    let mut story = shop(SMALL);
    assert_eq!(story.selected(), "shop/db");
    story.press("oooo");
    assert_eq!(story.selected(), "shop/db", "in every order");
    story.key(KeyCode::Down);
    assert_eq!(story.selected(), "shop/flaky");
    story.key(KeyCode::End).key(KeyCode::Down);
    assert_eq!(story.selected(), "shop/report");
    story.press("g").key(KeyCode::Up);
    assert!(story.selected().starts_with("shop/a-name"));
    story.press("jj").project("shop", &["api", "job"]);
    assert_eq!(story.selected(), "shop/job", "the next one takes the place of one that is gone");
}

#[test]
fn what_is_on_the_screen_follows_the_cursor() {
    let mut story = Story::new(SMALL);
    let names: Vec<String> = (0..1000).map(|at| format!("agent-{at:04}")).collect();
    story.project("crowd", &names.iter().map(String::as_str).collect::<Vec<_>>());
    story.rows();
    let height = story.model.visible().len();
    assert!((5..20).contains(&height));
    for (key, place) in [
        (KeyCode::PageDown, height),
        (KeyCode::End, 999),
        (KeyCode::PageUp, 999 - height),
        (KeyCode::Home, 0),
    ] {
        story.key(key);
        assert_eq!(story.model.place(), Some(place));
        let wanted = id("crowd", &names[place]);
        assert!(story.model.visible().iter().any(|row| row.id == wanted), "{key:?}");
        assert_eq!(story.model.visible().len(), height);
    }
    assert!(story.text().contains("1 of 1000"));
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut story = shop(SMALL);
    story.press("/paused");
    assert_eq!(story.rows(), ["api"]);
    assert!(story.text().contains("/paused▏"));
    story.key(KeyCode::Backspace).key(KeyCode::Enter);
    assert_eq!((story.rows(), &story.model.mode), (vec!["api".to_owned()], &Mode::Browse));
    assert!(story.text().contains("/pause  1 of 7"));
    story.key(KeyCode::Esc);
    assert_eq!((story.rows().len(), story.effects.as_slice()), (7, &[][..]));
    story.press("/no such agent");
    assert!(story.text().contains("no agent has “no such agent”"));
    story.press("q").key(KeyCode::Esc).key(KeyCode::Esc);
    assert_eq!(story.effects, [Effect::Quit], "letters are text while text is typed");
}

#[test]
fn requests_are_about_the_agent_under_the_cursor() {
    let mut story = shop(SMALL);
    let ask =
        |request| Effect::Ask { client: Client::new("/run/shop.sock"), request, agent: id("shop", "db") };
    story.press("prS");
    assert_eq!(story.effects, [ask(Request::Pause), ask(Request::Resume), ask(Request::Start)]);
    assert!(story.text().contains("start shop/db …"));
    story.tell(Message::Told(Note { text: "shop/db  runs already".into(), tone: Tone::Good }));
    assert!(story.text().contains("shop/db  runs already"));
    story.tell(Message::Tick(NOW + 60_000));
    assert!(!story.text().contains("shop/db  runs already"), "it is not shown for ever");
}

#[test]
fn what_ends_an_agent_is_asked_first() {
    for (key, request) in [('s', Request::Stop), ('R', Request::Restart), ('K', Request::Kill)] {
        let mut story = shop(SMALL);
        story.press(&key.to_string());
        assert!(story.text().contains(&format!("{} shop/db?", super::keys::word(request))));
        story.press("xj");
        assert_eq!(story.model.mode, Mode::Confirm(request, id("shop", "db")), "a stray key answers nothing");
        story.press("n");
        assert_eq!((&story.effects, &story.model.mode), (&Vec::new(), &Mode::Browse));
        story.press(&format!("{key}y"));
        assert!(matches!(&story.effects[..], [Effect::Ask { request: asked, .. }] if *asked == request));
    }
}

#[test]
fn what_an_agent_waits_for_is_answered_by_a_key() {
    let mut story = shop(SMALL);
    story.press("A");
    assert!(story.text().contains("shop/db waits for no answer"), "{}", story.text());
    let subject = Subject::Host { host: "a.example".into(), port: 443 };
    story.event("shop", "db", EventKind::ApprovalAsked(Approval { id: 3, subject, expires_ms: i64::MAX }));
    for (key, answer) in [("y", ApprovalAnswer::YES), ("n", ApprovalAnswer::Denied)] {
        story.effects.clear();
        story.press("A");
        let text = story.text();
        assert!(text.contains("y allow it until the run ends   n refuse it   Esc later"), "{text}");
        story.press("x");
        assert!(matches!(story.model.mode, Mode::Answer(..)), "a stray key answers nothing");
        story.press(key);
        let (client, agent) = (Client::new("/run/shop.sock"), id("shop", "db"));
        assert_eq!(story.effects, [Effect::Answer { client, agent, id: 3, answer }]);
    }
    story.press("A").key(KeyCode::Esc);
    assert_eq!((story.effects.len(), &story.model.mode), (1, &Mode::Browse));
    story.event(
        "shop",
        "db",
        EventKind::ApprovalAnswered {
            id: 3,
            kind: "host".into(),
            answer: ApprovalAnswer::Denied,
            by: "operator".into(),
            uid: None,
            words: None,
        },
    );
    story.press("A");
    assert!(story.text().contains("waits for no answer"), "{}", story.text());
}

#[test]
fn a_daemon_that_goes_is_told_and_comes_back() {
    let mut story = shop(SMALL);
    story.tell(Message::Quiet(name("shop")));
    let text = story.text();
    assert!(text.contains("shop does not answer; trying again …"), "{text}");
    assert!(text.contains("db") && text.contains("1 paused"), "what was known is still there: {text}");
    story.press("p");
    assert!(story.effects.is_empty());
    assert!(story.text().contains("shop/db: its daemon does not answer"));
    story.project("shop", &["api", "db"]);
    assert!(!story.text().contains("trying again"));
}

#[test]
fn a_run_that_ends_goes_and_says_how() {
    let mut story = shop(SMALL);
    story.event("shop", "", EventKind::RunEnded { exit_code: 1 }).tell(Message::Quiet(name("shop")));
    let text = story.text();
    assert!(text.contains("shop has ended with status 1") && text.contains("Nothing runs."), "{text}");
    assert!(story.model.figures.is_empty());
}

#[test]
fn who_reads_back_is_not_disturbed_by_what_is_new() {
    let mut story = shop(SMALL);
    story.key(KeyCode::Tab).key(KeyCode::PageUp);
    let back = story.model.log.back;
    assert!(back > 0);
    let before = story.text();
    let new = LogLine { time_ms: None, text: "new".into(), stream: Stream::Stdout };
    let hear = |story: &mut Story| {
        story.tell(Message::Log { agent: id("shop", "db"), lines: vec![new.clone()] });
    };
    hear(&mut story);
    assert_eq!(story.text(), before);
    assert!(before.contains("lines back"));
    story.key(KeyCode::End);
    hear(&mut story);
    assert!(story.text().contains("│ new"));
    story.tell(Message::Log { agent: id("shop", "api"), lines: Vec::new() });
    assert!(story.text().contains("│ new"), "what comes late is about somebody else");
}

#[test]
fn ways_out() {
    let control = |key| Message::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL));
    assert_eq!(shop(SMALL).press("q").effects, [Effect::Quit]);
    assert_eq!(shop(SMALL).press("/text").tell(control('c')).effects, [Effect::Quit]);
    assert_eq!(shop(SMALL).tell(control('z')).effects, [Effect::Suspend]);
    let mut story = shop(SMALL);
    for to_the_log in [KeyCode::Enter, KeyCode::Tab] {
        story.key(to_the_log).key(KeyCode::Esc);
        assert!(story.effects.is_empty(), "from the log it is back to the table first");
    }
    assert_eq!(story.key(KeyCode::Esc).effects, [Effect::Quit]);
}
