//! `toka logs` from end to end: what agents wrote is found again, across runs, older logs, crashes and full disks.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::{Document, Finished, Scene, User, as_both_users, toka_binary, until};

as_both_users!(
    the_last_run_is_shown_and_earlier_ones_are_kept,
    lines_of_several_agents_come_in_the_order_of_their_time,
    logs_turn_are_compressed_and_read_as_one,
    lines_are_chosen_by_time_number_and_pattern,
    what_is_not_there_is_told_with_a_way_out,
    logs_of_what_runs_are_found_from_other_folders,
    a_follower_sees_every_line_of_this_run_and_the_next,
    restarts_write_on_in_the_same_log,
    a_log_that_somebody_removes_empties_or_moves_is_begun_anew,
    a_follower_goes_on_when_the_log_is_removed_or_emptied,
    a_follower_waits_for_one_that_has_not_started,
    a_follower_shows_nothing_of_earlier_runs,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(20);

fn words(scene: &Scene, options: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![toka_binary().into(), "logs".into(), "--state-dir".into()];
    words.push(scene.state().into());
    words.extend(["--project".into(), scene.name().into()]);
    words.extend(options.iter().map(OsString::from));
    words
}

fn logs(scene: &Scene, options: &[&str]) -> Finished {
    scene.run(&words(scene, options))
}

fn lines(scene: &Scene, options: &[&str]) -> Vec<String> {
    logs(scene, options).success().lines().map(str::to_owned).collect()
}

fn agent_folder(scene: &Scene, agent: &str) -> PathBuf {
    scene.state().join("projects").join(scene.name()).join("agents").join(agent)
}

fn run(scene: &Scene, documents: &[Document]) {
    let finished = scene.toka_run(documents, &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
}

fn a_follower_waits_for_one_that_has_not_started(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("first", "while ! test -e go; do sleep 0.02; done")
            .section("security: {capabilities_required: [filesystem-read]}"),
        Document::shell("second", "echo it is my turn").after(&["first"]),
    ];
    let detached = scene.detach(&agents);
    let asked = detached.try_toka(&["logs", "second"]);
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), ""), "{asked:#?}");
    assert!(asked.stderr.contains("second has not started: nothing was written yet"), "{asked:#?}");
    assert_eq!(detached.try_toka(&["logs", "secnd"]).code, Some(2));
    assert_eq!(detached.try_toka(&["logs", "sec*"]).code, Some(0));
    let mut follower = Follower::start(&scene, &["second"]);
    scene.write(&scene.workspace().join("go"), "");
    assert_eq!(follower.next(), "it is my turn");
    follower.end(Signal::SIGINT);
}

/// Also of an agent that has written nothing in the run that goes on, and whose logs are all of earlier ones.
fn a_follower_shows_nothing_of_earlier_runs(user: User) {
    let scene = Scene::new(user);
    run(&scene, &["first", "second"].map(|name| Document::shell(name, "echo of before")));
    let second = Document::shell("second", "echo of now").after(&["first"]);
    let waits = Document::shell("first", "echo waits; while ! test -e go; do sleep 0.02; done")
        .section("security: {capabilities_required: [filesystem-read]}");
    let detached = scene.detach(&[waits, second]);
    // Of one that was named alone, its last run is shown, and that is said.
    let asked = detached.try_toka(&["logs", "second"]);
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "of before\n"), "{asked:#?}");
    assert!(asked.stderr.contains("has no such logs; these are of the run "), "{asked:#?}");
    until(SOON, "a line of this run", || {
        (detached.try_toka(&["logs"]).stdout == "first  | waits\n").then_some(())
    });
    let mut followers = [&[][..], &["--tail", "5"]].map(|options| Follower::start(&scene, options));
    for follower in &mut followers {
        assert_eq!(follower.next(), "first  | waits");
    }
    scene.write(&scene.workspace().join("go"), "");
    for mut follower in followers {
        assert_eq!(follower.next(), "second | of now");
        follower.end(Signal::SIGINT);
    }
}

fn a_follower_goes_on_when_the_log_is_removed_or_emptied(user: User) {
    let scene = Scene::new(user);
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done";
    let detached = scene.detach(&[Document::service("ticker", script)]);
    let log = agent_folder(&scene, "ticker").join("log");
    until(SOON, "it writes", || log.metadata().is_ok_and(|found| found.len() > 100).then_some(()));
    let mut follower = Follower::start(&scene, &["ticker"]);
    let number = |line: String| line.strip_prefix("line ").and_then(|number| number.parse::<u32>().ok());
    let next = |follower: &mut Follower| loop {
        if let Some(number) = number(follower.next()) {
            return number;
        }
    };
    let mut last = next(&mut follower);
    for harm in ["remove", "empty", "remove"] {
        match harm {
            "remove" => std::fs::remove_file(&log).expect("removed"),
            _ => drop(std::fs::File::options().write(true).truncate(true).open(&log).expect("emptied")),
        }
        // Long enough that more of them come from the new one than can have been read before.
        for _ in 0..50 {
            let number = next(&mut follower);
            assert!(number > last, "{harm}: {number} after {last}");
            last = number;
        }
    }
    detached.toka(&["stop", "ticker"]);
    follower.end(Signal::SIGINT);
}

fn a_log_that_somebody_removes_empties_or_moves_is_begun_anew(user: User) {
    let scene = Scene::new(user);
    let script = "i=0; while :; do i=$((i+1)); printf 'line %06d of a log\\n' $i; sleep 0.005; done";
    let detached = scene.detach(&[Document::service("ticker", script)]);
    let log = agent_folder(&scene, "ticker").join("log");
    let length = || log.metadata().map_or(0, |found| found.len());
    let grows = |what: &str| until(SOON, what, || (length() > 200).then_some(()));
    grows("it writes");
    std::fs::remove_file(&log).expect("removed");
    grows("a new one is begun after the removal");
    std::fs::File::options().write(true).truncate(true).open(&log).expect("emptied");
    grows("it goes on in an empty one");
    let aside = log.with_extension("1");
    std::fs::rename(&log, &aside).expect("moved");
    grows("a new one is begun after it was moved");
    // The index too: without it nothing is found in the log.
    let index = log.with_extension("index");
    let shown = || logs(&scene, &["ticker"]).success().lines().count();
    for remove in [true, false] {
        let before = shown();
        if remove {
            std::fs::remove_file(&index).expect("removed");
        } else {
            std::fs::File::options().write(true).truncate(true).open(&index).expect("emptied");
        }
        until(SOON, "its lines are found again, and new ones", || (shown() > before).then_some(()));
    }
    detached.toka(&["stop", "ticker"]);
    let shown = logs(&scene, &["ticker"]).success();
    assert!(!shown.contains('\0'), "no hole in front of what was written on: {shown:?}");
    let numbers: Vec<u32> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.strip_suffix(" of a log")?.parse().ok())
        .collect();
    assert!(numbers.len() > 5 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{shown}");
    let moved = std::fs::read_to_string(&aside).expect("what was moved is still there");
    let last: u32 = moved.lines().last().expect("lines")[5..11].parse().expect("a number");
    assert_eq!(numbers[0], last + 1, "nothing is missing between what was moved and what came then");
    let events = detached.toka(&["events", "ticker"]).stdout;
    assert!(events.matches("which somebody removed, replaced or emptied").count() >= 3, "{events}");
    assert!(events.contains("bytes of it are gone") && events.contains("nothing is lost"), "{events}");
}

fn the_last_run_is_shown_and_earlier_ones_are_kept(user: User) {
    let scene = Scene::new(user);
    for text in ["first", "second", "third"] {
        run(&scene, &[Document::shell("one", &format!("echo {text}; echo err of {text} >&2"))]);
    }
    let mut last = lines(&scene, &[]);
    last.sort();
    assert_eq!(last, ["err of third", "third"]);
    assert_eq!(lines(&scene, &["one"]).len(), 2);
    assert_eq!(lines(&scene, &["--run", "all"]).len(), 6);
    let records: Vec<Value> = lines(&scene, &["--run", "all", "--json", "--grep", "^(first|second)$"])
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(records.len(), 2);
    let first = &records[0];
    assert_eq!((&first["text"], &first["stream"]), (&"first".into(), &"stdout".into()));
    assert_eq!((&first["agent"], &first["project"]), (&"one".into(), &scene.name().into()));
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{first}");
    let id = first["run"].as_str().expect("an id");
    for id in [id, &id.replace('-', "")[20..], &id[24..30]] {
        assert_eq!(lines(&scene, &["--run", id, "--grep", "first$", "one"]).len(), 2, "{id}");
    }
    scene.assert_nothing_left();
}

fn lines_of_several_agents_come_in_the_order_of_their_time(user: User) {
    let scene = Scene::new(user);
    // Each waits for the one before it.
    let names = ["a", "long-name", "c"];
    let mut documents = vec![Document::shell(names[0], "echo 0; printf '\\033[2J\\n'")];
    for (at, pair) in names.windows(2).enumerate() {
        documents.push(Document::shell(pair[1], &format!("echo {}", at + 1)).after(&[pair[0]]));
    }
    run(&scene, &documents);
    let shown = lines(&scene, &[]);
    assert_eq!(shown, ["a         | 0", "a         | \u{1b}[2J", "long-name | 1", "c         | 2"]);
    let qualified = format!("{}/c", scene.name());
    assert_eq!(lines(&scene, &["a", &qualified, "--tail", "1"]), ["a | \u{1b}[2J", "c | 2"]);
    assert_eq!(logs(&scene, &["c"]).success(), "2\n", "one agent needs no name");
    let coloured = logs(&scene, &["--color", "always", "c", "a"]).success();
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");
}

/// Half a megabyte in logs of 64 KiB.
fn talker(name: &str, count: usize) -> Document {
    let line = format!("seq -f 'line %06g of a log that is turned again and again' 1 {count}");
    Document::shell(name, &line).section("logs: {max_size: 64KB}")
}

fn logs_turn_are_compressed_and_read_as_one(user: User) {
    let scene = Scene::new(user);
    run(&scene, &[talker("talker", 10_000)]);
    let older = agent_folder(&scene, "talker").join("logs");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&older).expect("older logs").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names().len() >= 8, "{:?}", names());
    let expected: Vec<String> =
        (1..=10_000).map(|n| format!("line {n:06} of a log that is turned again and again")).collect();
    assert!(lines(&scene, &[]) == expected, "every line once, in order");
    assert_eq!(lines(&scene, &["--tail", "3000"]), expected[7000..]);
    assert_eq!(lines(&scene, &["--grep", "000[45]00 "]), [expected[399].clone(), expected[499].clone()]);
    // The run that follows lives long enough for what was left to be compressed.
    let waiting = Document::shell("talker", "while ls \"$PWD\"/go >/dev/null 2>&1; do sleep 0.05; done")
        .section("security: {capabilities_required: [filesystem-read]}");
    scene.write(&scene.workspace().join("go"), "");
    let mut next = scene.start(&[waiting], &[]);
    next.wait_for("agent_started", "talker");
    until(SOON, "all to be compressed", || {
        names().iter().all(|name| name.ends_with(".gz") || name.ends_with(".index")).then_some(())
    });
    std::fs::remove_file(scene.workspace().join("go")).expect("our own file");
    assert_eq!(next.finish().code, Some(0));
    assert!(lines(&scene, &["--run", "all"]) == expected, "every line once, in order");
    let zgrep =
        std::process::Command::new("sh").arg("-c").arg("zcat *.log.gz | wc -l").current_dir(&older).output();
    let count = String::from_utf8_lossy(&zgrep.expect("a shell").stdout).trim().to_owned();
    assert_eq!(count, "10000", "others read it, too");
    scene.assert_nothing_left();
}

fn lines_are_chosen_by_time_number_and_pattern(user: User) {
    let scene = Scene::new(user);
    run(&scene, &[Document::shell("one", "seq 1 1000")]);
    assert_eq!(lines(&scene, &["--tail", "3"]), ["998", "999", "1000"]);
    assert_eq!(lines(&scene, &["--tail", "2", "--grep", "^5"]), ["598", "599"]);
    assert_eq!(lines(&scene, &["--tail", "0"]), [""; 0]);
    assert_eq!(lines(&scene, &["--since", "1h ago"]).len(), 1000);
    assert_eq!(lines(&scene, &["--since", "10m", "--until", "5m"]), [""; 0]);
    assert_eq!(lines(&scene, &["--until", "now"]).len(), 1000);
    let stamped = lines(&scene, &["--timestamps", "--tail", "1"]);
    let (time, text) = stamped[0].split_once(' ').expect("a time");
    assert!(time.len() > 20 && time.contains('T') && text == "1000", "{stamped:?}");
    for (options, told) in [
        (&["--since", "soon"][..], "2h ago"),
        (&["--grep", "("], "regex"),
        (&["--follow", "--until", "now"], "cannot be used with"),
    ] {
        let refused = logs(&scene, options);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains(told), "{refused:#?}");
    }
}

fn what_is_not_there_is_told_with_a_way_out(user: User) {
    let scene = Scene::new(user);
    let none = logs(&scene, &[]);
    assert_eq!(none.code, Some(2), "{none:#?}");
    assert!(none.stderr.contains("there are no logs of the project") && none.stderr.contains("toka run"));
    run(&scene, &[Document::shell("fetch", "echo x"), Document::shell("build", "true")]);
    for (options, told) in [
        (&["fecth"][..], "did you mean `fetch`? The agents with logs are build, fetch"),
        (&["nobody"], "the agents with logs are build, fetch"),
        (&["--run", "00ff"], "the last runs are "),
        (&["elsewhere/fetch"], "or as PROJECT/AGENT: test-"),
        (&["No/fetch"], "is no project"),
    ] {
        let refused = logs(&scene, options);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains(told), "{told}: {refused:#?}");
    }
    assert_eq!(logs(&scene, &["build"]).success(), "", "who wrote nothing has nothing to show");
}

fn logs_of_what_runs_are_found_from_other_folders(user: User) {
    let scene = Scene::new(user);
    let runs = scene.detach(&[Document::shell("talker", "echo hello; sleep 1000").spec("type: service")]);
    until(SOON, "it has spoken", || (logs(&scene, &[]).stdout == "hello\n").then_some(()));
    let [below, elsewhere] = [scene.workspace().join("src"), scene.outside()];
    let words: Vec<OsString> =
        vec![toka_binary().into(), "logs".into(), "--state-dir".into(), scene.state().into()];
    for folder in [&below, &elsewhere] {
        scene.make_folder(folder);
        let look = |words: &[OsString]| {
            let output = scene.command(words).current_dir(folder).output().expect("the command starts");
            Finished::from(output)
        };
        for agents in [&[][..], &["talker"]] {
            let words: Vec<OsString> =
                words.iter().cloned().chain(agents.iter().map(OsString::from)).collect();
            assert_eq!(look(&words).success(), "hello\n", "{}", folder.display());
        }
        let nobody: Vec<OsString> = words.iter().cloned().chain(["nobody".into()]).collect();
        assert_eq!(look(&nobody).code, Some(2));
    }
    drop(runs);
    let over = scene.command(&words).current_dir(&elsewhere).output().expect("the command starts");
    assert_eq!(over.status.code(), Some(2), "what has ended is found in its own folder, or by its name");
}

/// `toka logs --follow`, line by line.
struct Follower {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follower {
    fn start(scene: &Scene, options: &[&str]) -> Self {
        let words = words(scene, &[&["--follow"], options].concat());
        let mut command = scene.bare_command(&words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().expect("it runs").expect("text")
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("our own child");
        self.child.wait().expect("our own child").code()
    }
}

fn a_follower_sees_every_line_of_this_run_and_the_next(user: User) {
    let scene = Scene::new(user);
    run(&scene, &[Document::shell("first", "echo old")]);
    let mut follower = Follower::start(&scene, &[]);
    assert_eq!(follower.next(), "old");
    run(&scene, &[talker("first", 5000)]);
    for n in 1..=5000 {
        assert_eq!(follower.next(), format!("line {n:06} of a log that is turned again and again"));
    }
    // Files stay in the folder, and so do agents in the set.
    run(&scene, &[Document::shell("first", "true"), Document::shell("second", "echo of another agent")]);
    assert_eq!(follower.next(), "second | of another agent");
    run(&scene, &[Document::shell("first", "echo again"), Document::shell("second", "true")]);
    assert_eq!(follower.next(), "first  | again");
    assert_eq!(follower.end(Signal::SIGINT), Some(130));
    let mut late = Follower::start(&scene, &["--tail", "1", "first"]);
    assert_eq!(late.next(), "again");
    assert_eq!(late.end(Signal::SIGTERM), Some(143));
}

fn restarts_write_on_in_the_same_log(user: User) {
    let scene = Scene::new(user);
    let script = "echo life >> ~/lives; wc -l < ~/lives; [ $(wc -l < ~/lives) = 3 ]";
    let policy = "restart: {policy: on-failure, backoff: {initial: 1ms, max: 10ms, jitter: 0}}";
    run(&scene, &[Document::shell("flaky", script).spec(policy)]);
    assert_eq!(lines(&scene, &[]), ["1", "2", "3"]);
    assert!(!agent_folder(&scene, "flaky").join("logs").exists(), "one run, one log");
}

/// The process that moves the output is killed again and again while logs turn and are compressed.
#[test]
fn a_kill_loses_and_doubles_no_line() {
    let Some(user) = User::root() else { return };
    let scene = Scene::new(user);
    // Each line says which it is.
    let script = "trap '' TERM PIPE; \
        i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo \"$i of a run that somebody kills at any time\" || exit; done; sleep 600";
    for round in 0..4_u32 {
        let talker = Document::shell("talker", script)
            .section("logs: {max_size: 64KB}")
            .spec("stop: {grace_period: 1ms}");
        let mut running = scene.start(&[talker], &[]);
        running.wait_for("agent_started", "talker");
        let older = agent_folder(&scene, "talker").join("logs");
        let count = || std::fs::read_dir(&older).into_iter().flatten().count();
        let before = count();
        until(SOON, "logs to turn", || (count() > before + 2 * round as usize).then_some(()));
        running.signal(Signal::SIGKILL);
        let _ = running.finish();
        until(SOON, "the keeper to end", || {
            toka_tests::processes_with(scene.name()).is_empty().then_some(())
        });
        let seen = lines(&scene, &[]);
        let numbers: Vec<usize> = seen
            .iter()
            .filter_map(|line| line.split_once(" of a run that somebody kills at any time")?.0.parse().ok())
            .collect();
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "round {round}");
        // Of the last line there may be the beginning only.
        assert!(seen.len() <= numbers.len() + 1 && numbers.len() > 100, "round {round}: {}", seen.len());
    }
    let all = lines(&scene, &["--run", "all", "--json"]);
    let runs: std::collections::BTreeSet<String> = all
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["run"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(runs.len(), 4, "every run is still there");
    scene.assert_nothing_left();
}

/// Runs this agent with a state folder of this size, then a command of `toka logs`, both in a mount namespace of their own.
fn on_a_small_disk(size: &str, document: Document, options: &[&str]) -> (Scene, Finished) {
    let user = User::root().expect("asked before");
    let scene = Scene::new(user);
    let mut line = vec![OsString::from("unshare"), "--mount".into(), "/bin/sh".into(), "-euc".into()];
    let script = format!(
        "mount -t tmpfs -o size={size},mode=0755 none \"$1\"; state=$1; toka=$2; project=$3; shift 3; \
         \"$@\" --json >&2; exec \"$toka\" logs --state-dir \"$state\" --project \"$project\" {}",
        options.join(" ")
    );
    line.extend([
        script.into(),
        "sh".into(),
        scene.state().into(),
        toka_binary().into(),
        scene.name().into(),
    ]);
    line.extend(scene.run_words(&[document], &[]));
    let finished = scene.run(&line);
    (scene, finished)
}

#[test]
fn what_a_full_disk_cost_is_shown_where_it_is_missing() {
    if User::root().is_none() {
        return;
    }
    let (_scene, finished) = on_a_small_disk("400k", Document::shell("talker", "seq 1 300000"), &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let is_gap = |line: &str| line.contains("lost here: the disk was full, or");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let gap = lines.iter().position(|line| is_gap(line));
    let gap = gap.unwrap_or_else(|| panic!("{:?}", lines.last()));
    let before: Vec<String> = (1..gap).map(|number| number.to_string()).collect();
    assert!(lines[..gap - 1] == before[..], "what is there is whole up to the gap");
    let number = |line: &str| -> usize {
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let gaps: Vec<usize> = lines.iter().filter(|line| is_gap(line)).map(|line| number(line)).collect();
    let lost: usize = gaps.iter().sum();
    let kept: usize = lines.iter().filter(|line| !is_gap(line)).map(|line| line.len() + 1).sum();
    let written: usize = (1..=300_000).map(|number: u32| number.to_string().len() + 1).sum();
    // Where a line is torn, a newline is shown that was not written.
    let shown = kept + lost;
    assert!(
        shown >= written && shown - written <= gaps.len() + 1,
        "{kept} kept, {gaps:?} lost, {written} written"
    );
    assert!(gaps.len() < 5, "lost in one go, told at once: {gaps:?}");
}

#[test]
fn an_agent_waits_for_room_and_loses_nothing() {
    if User::root().is_none() {
        return;
    }
    // What it keeps at home lies on the same disk: some time after nothing fits there any more, it makes room.
    let script = "head -c 4000000 /dev/zero > ~/filler; \
        (while printf '%09000d' 0 >> ~/probe; do :; done 2>/dev/null; sleep 0.3; rm ~/filler ~/probe) & \
        seq 1 900000; wait; echo end";
    let document = Document::shell("patient", script).section("logs: {when_full: block}");
    let (_scene, finished) = on_a_small_disk("8m", document, &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let expected = (1..=900_000).map(|number| number.to_string()).chain(["end".to_owned()]);
    assert!(finished.stdout.lines().map(str::to_owned).eq(expected), "every line once, in order");
    for told in ["the agent waits until it can", "the agent goes on"] {
        assert!(finished.stderr.contains(told), "{told}: {}", finished.stderr);
    }
}
