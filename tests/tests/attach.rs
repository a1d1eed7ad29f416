//! Agents on terminals of their own, and people who attach to them.

use toka_tests::{Document, Scene, User, as_both_users};

as_both_users!(an_agent_has_a_terminal_of_its_own);

fn an_agent_has_a_terminal_of_its_own(user: User) {
    let scene = Scene::new(user);
    let look = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; echo direct > /dev/tty; \
        echo error >&2; echo $TERM; cat /proc/self/stat | cut -d' ' -f6,8 | \
        { read session group; test \"$session\" != 0 && test \"$group\" != -1 && echo controlled; }";
    let finished = scene.toka_run(&[Document::on_terminal("looker", look)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let log = scene.state().join("projects").join(scene.name()).join("agents/looker/log");
    let log = std::fs::read_to_string(&log).expect("a log");
    for line in ["/dev/pts/0", "24 80", "three", "direct", "error", "xterm-256color", "controlled"] {
        assert!(log.contains(&format!("{line}\r\n")), "{line}: {log:?}");
    }
    scene.assert_nothing_left();
}
