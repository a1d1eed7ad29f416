//! Attacks through sockets from inside the sandbox: other people's Unix sockets, abstract names, the network.

use std::net::{TcpListener, UdpSocket};

use toka_tests::{
    Scene, User, abstract_listener, allowed, as_both_users, check, denied, unix_datagram, unix_listener,
};

as_both_users!(
    sockets_of_others_refuse,
    abstract_names_of_others_refuse,
    the_network_is_refused,
    every_kernel_family_is_refused,
    no_other_door_to_socket_calls,
    sockets_of_ones_own_work,
    a_private_loopback_reaches_nothing_of_the_host,
);

/// Where the sockets of another agent would lie.
fn other_door(scene: &Scene) -> std::path::PathBuf {
    scene.state().join("run/other/agent")
}

fn sockets_of_others_refuse(user: User) {
    let with_listeners = || {
        let scene = Scene::new(user);
        scene.make_folder(&other_door(&scene));
        for folder in [scene.outside(), scene.state(), other_door(&scene)] {
            // Leaked for as long as the test runs: whoever connects finds somebody there.
            std::mem::forget(unix_listener(&folder.join("agent")));
            std::mem::forget(unix_datagram(&folder.join("notify")));
        }
        scene
    };
    check(with_listeners, |scene| {
        let path = |folder: std::path::PathBuf, name: &str| folder.join(name).display().to_string();
        vec![
            denied(["connect-unix", &path(other_door(scene), "agent")]),
            denied(["send-unix", &path(other_door(scene), "notify")]),
            denied(["connect-unix", &path(scene.outside(), "agent")]),
            denied(["send-unix", &path(scene.outside(), "notify")]),
            denied(["connect-unix", &path(scene.state(), "agent")]),
            denied(["send-unix", &path(scene.state(), "notify")]),
            denied(["connect-unix", "/run/dbus/system_bus_socket"]).unproven("not on every host"),
            denied(["connect-unix", "/var/run/docker.sock"]).unproven("not on every host"),
            denied(["connect-unix", "/run/systemd/private"]).unproven("not on every host"),
            allowed(["serve-unix", &path(scene.workspace().join("out"), "own")]),
        ]
    });
}

fn abstract_names_of_others_refuse(user: User) {
    let name = format!("toka-test-{}", std::process::id());
    let _listener = abstract_listener(&name);
    check(
        || Scene::new(user),
        |scene| {
            vec![
                denied(["connect-abstract", &name]),
                denied(["send-abstract", &name]).unproven("it is a stream socket"),
                allowed(["serve-abstract", &format!("toka-own-{}", scene.name())]),
            ]
        },
    );
}

fn the_network_is_refused(user: User) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tcp = tcp.local_addr().map(|address| address.to_string()).expect("it is bound");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let udp = udp.local_addr().map(|address| address.to_string()).expect("it is bound");
    check(
        || Scene::new(user),
        |_| {
            vec![
                denied(["tcp", &tcp]),
                denied(["udp", &udp]),
                denied(["tcp-listen", "127.0.0.1:0"]),
                denied(["tcp-listen", "0.0.0.0:0"]),
                denied(["tcp-self"]),
                denied(["tcp", "[::1]:9"]).unproven("not every host has IPv6"),
                denied(["tcp", "192.0.2.1:80"]).unproven("would wait for an answer"),
            ]
        },
    );
}

/// Families and types by number, as `socket(2)` takes them.
fn every_kernel_family_is_refused(user: User) {
    check(
        || Scene::new(user),
        |_| {
            let (stream, datagram, raw) = ("1", "2", "3");
            vec![
                denied(["socket", "2", stream, "0"]),
                denied(["socket", "2", datagram, "0"]),
                denied(["socket", "2", raw, "1"]).as_root(),
                denied(["socket", "10", stream, "0"]).unproven("not every host has IPv6"),
                // AF_NETLINK with NETLINK_ROUTE, NETLINK_AUDIT, NETLINK_KOBJECT_UEVENT.
                denied(["socket", "16", raw, "0"]),
                denied(["socket", "16", raw, "9"]).unproven("not every kernel has it"),
                denied(["socket", "16", raw, "15"]),
                // AF_PACKET, AF_ALG, AF_VSOCK, AF_BLUETOOTH, AF_TIPC, AF_XDP, AF_KEY, AF_RDS, AF_X25, AF_QIPCRTR.
                denied(["socket", "17", raw, "768"]).as_root(),
                denied(["socket", "38", "5", "0"]).unproven("not every kernel has it"),
                denied(["socket", "40", stream, "0"]).unproven("not every kernel has it"),
                denied(["socket", "31", raw, "1"]).unproven("not every kernel has it"),
                denied(["socket", "30", stream, "0"]).unproven("not every kernel has it"),
                denied(["socket", "44", raw, "0"]).unproven("not every kernel has it"),
                denied(["socket", "15", raw, "2"]).unproven("not every kernel has it"),
                denied(["socket", "21", "5", "0"]).unproven("not every kernel has it"),
                denied(["socket", "9", "5", "0"]).unproven("not every kernel has it"),
                denied(["socket", "42", datagram, "0"]).unproven("not every kernel has it"),
                allowed(["socket", "1", stream, "0"]),
                allowed(["socket", "1", datagram, "0"]),
                allowed(["socket", "1", "5", "0"]),
                allowed(["socketpair", "1"]),
            ]
        },
    );
}

fn no_other_door_to_socket_calls(user: User) {
    check(
        || Scene::new(user),
        |_| {
            vec![
                denied(["socket-x32"]).unproven("not every kernel has it"),
                denied(["socket-ia32"]).unproven("not every kernel has it"),
                denied(["io-uring"]),
            ]
        },
    );
}

fn sockets_of_ones_own_work(user: User) {
    check(
        || Scene::new(user),
        |scene| {
            let own = scene.workspace().join("out/socket").display().to_string();
            vec![
                allowed(["serve-unix", "/tmp/socket"]),
                allowed(["serve-unix", &own]),
                allowed(["serve-abstract", "toka-own"]),
                allowed(["socketpair", "1"]),
            ]
        },
    );
}

fn a_private_loopback_reaches_nothing_of_the_host(user: User) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tcp = tcp.local_addr().map(|address| address.to_string()).expect("it is bound");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let udp_port = udp.local_addr().map(|address| address.port()).expect("it is bound");
    let security = "\n  capabilities_required: [filesystem-read]\n  filesystem: {execute: [attack]}\n  network: loopback";
    let scene = Scene::new(user).security(security);
    let tries = [
        allowed(["tcp-self"]),
        denied(["socket", "17", "3", "768"]).as_root(),
        denied(["tcp", "192.0.2.1:80"]).unproven("would wait for an answer"),
    ];
    let answers = scene.attack(&tries);
    assert!(!answers[0].is_denied(), "a loopback of one's own works: {answers:?}");
    assert!(answers[1..].iter().all(toka_tests::Answer::is_denied), "{answers:?}");
    // The port is nobody's inside: refused there, and nobody knocks at the host's.
    let _ = scene.attack(&[allowed(["tcp", &tcp]), allowed(["udp", &format!("127.0.0.1:{udp_port}")])]);
    udp.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 16];
    assert!(udp.recv(&mut buffer).is_err(), "a datagram reached the host's loopback");
    scene.assert_nothing_left();
}
