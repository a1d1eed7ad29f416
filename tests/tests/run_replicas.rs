//! `toka run` from end to end: documents that stand for several agents.

use toka_tests::{Document, Scene, User, as_both_users};

as_both_users!(
    replicas_of_a_task_know_their_number_and_who_depends_on_them_waits_for_all,
    replicas_of_a_service_live_and_die_for_themselves,
);

fn replicas_of_a_task_know_their_number_and_who_depends_on_them_waits_for_all(user: User) {
    let scene = Scene::new(user);
    let work = Document::shell("work", "echo $TOKA_AGENT $TOKA_REPLICA > \"$TOKA_ARTIFACTS/out\"")
        .spec("replicas: 3");
    let sum = Document::shell("sum", "cat \"$TOKA_INPUTS\"/*/out > \"$TOKA_ARTIFACTS/all\"").after(&["work"]);
    let finished = scene.toka_run(&[work, sum], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(scene.artifact("sum", "all"), "work-1 1\nwork-2 2\nwork-3 3\n");
    let begun = finished.place_of("agent_starting", "sum").expect("it starts");
    for replica in ["work-1", "work-2", "work-3"] {
        assert!(
            finished.place_of("agent_ended", replica).is_some_and(|ended| ended < begun),
            "{finished:#?}"
        );
    }
    scene.assert_nothing_left();
}

fn replicas_of_a_service_live_and_die_for_themselves(user: User) {
    let scene = Scene::new(user);
    // The second one fails once; the others never notice.
    let script = "if [ $TOKA_REPLICA = 2 ] && [ ! -e ~/again ]; then touch ~/again; exit 1; fi; \
        toka report ready; exec sleep 600";
    let web = Document::shell("web", script)
        .spec("replicas: 2")
        .spec("readiness_probe: {period: 60s}")
        .spec("restart: {policy: on-failure, backoff: {initial: 1ms}}");
    let user_of_it = Document::shell("user-of-it", "true").after(&["web"]);
    let finished = scene.toka_run(&[web, user_of_it], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let begun = finished.place_of("agent_starting", "user-of-it").expect("it starts");
    for replica in ["web-1", "web-2"] {
        assert!(
            finished.place_of("agent_ready", replica).is_some_and(|ready| ready < begun),
            "{finished:#?}"
        );
    }
    assert!(finished.place_of("agent_restarting", "web-2").is_some(), "{finished:#?}");
    assert!(finished.place_of("agent_restarting", "web-1").is_none(), "{finished:#?}");
    scene.assert_nothing_left();
}
