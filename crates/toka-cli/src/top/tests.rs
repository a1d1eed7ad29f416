//! The whole of `toka top` without a terminal: messages go in, effects and cells come out.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Size;
use ratatui::style::{Color, Modifier};
use toka_core::{AgentStatus, Enforcement, Event, EventKind, Exit, Name, Request, Resources, RunId};
use toka_daemon::Overview;
use toka_daemon::control::client::Client;
use toka_daemon::control::wire::{ProjectView, ResourcesView};
use toka_runtime::output::Stream;

use super::log::LogLine;
use super::machine::Machine;
use super::model::{Effect, Message, Mode, Model, Note, Sample, Tone};
use super::rows::AgentId;
use super::theme::Theme;
use crate::terminal::palette::Palette;

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
        let overview = Overview {
            project: name(project),
            run: RunId::from_uuid(uuid::Uuid::nil()),
            workspace: "/w".into(),
            root: format!("/state/projects/{project}").into(),
            ends_by_itself: false,
        };
        let agents = agents.iter().map(|agent| AgentStatus::new(name(agent), NOW - 90_000)).collect();
        let view = ProjectView { overview, started_ms: NOW - 90_000, seq: 0, agents, trouble: None };
        self.tell(Message::Project(Box::new(view), Client::new(format!("/run/{project}.sock"))))
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
        let kind = EventKind::Progress { fraction: Some(fraction), status: Some(status.into()), task: None };
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
        self.model.rows.iter().map(|id| id.agent.to_string()).collect()
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
            x += u16::try_from(crate::terminal::text::columns(symbol)).expect("small").max(1);
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
    story.event("shop", "api", EventKind::AgentPaused);
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
        load: Some([1.5, 0.25, 12.0]),
        pressure: [Some(12.5), Some(0.0), Some(73.0)],
    }));
    for second in 0..30 {
        let level = 1 + second % 7;
        story.uses("shop", second, "db", second * second * 20_000, (level * 20) << 20);
    }
    story.tell(Message::Searched { daemons: 1 });
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
fn the_help() {
    insta::assert_snapshot!(shop(SMALL).press("?").text());
}

#[test]
fn nothing_runs() {
    let mut story = Story::new(SMALL);
    assert!(story.text().contains("looking for what runs"));
    insta::assert_snapshot!(story.tell(Message::Searched { daemons: 0 }).text());
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
        let x = line.split(word).next().map(crate::terminal::text::columns).expect("there");
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
        assert!(story.model.visible().contains(&id("crowd", &names[place])), "{key:?}");
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
    story.key(KeyCode::Enter).key(KeyCode::Esc);
    assert!(story.effects.is_empty(), "from the log it is back to the table first");
    assert_eq!(story.key(KeyCode::Esc).effects, [Effect::Quit]);
}
