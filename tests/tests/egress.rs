//! Hosts: an agent that lists some reaches these and no others, with the programs that people use, and everything is on record.

mod survive_support;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use survive_support::{eventually, kill_daemon, serve_again, told};
use toka_tests::{Document, Finished, Scene, Serves, User, WebServer, as_both_users, toka_binary};

as_both_users!(
    programs_reach_the_hosts_that_are_listed_and_no_others,
    programs_that_know_no_proxy_reach_hosts_by_their_names,
    a_daemon_that_is_killed_leaves_the_addresses_of_hosts,
    hosts_are_refused_until_a_person_grants_them,
    a_name_never_leads_to_the_host_itself,
    nothing_gets_around_the_proxy,
    a_rate_is_kept,
    git_clones_through_the_proxy,
    pip_installs_through_the_proxy,
    the_next_daemon_serves_the_same_proxy,
    a_sandbox_of_its_own_says_that_it_reaches_no_host,
    a_person_is_asked_about_other_hosts,
    what_a_person_trusts_beyond_a_run_is_not_asked_again,
    a_list_of_hosts_opens_no_models,
    what_has_no_body_is_no_broken_connection,
    what_a_person_denies_is_denied_in_every_spelling,
    a_killed_daemon_leaves_no_connection_without_an_end,
);

/// A web server of a folder, on a port of the host's loopback interface.
struct Files {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("hello"), "hello from outside\n").expect("room");
        let mut child = Command::new("/usr/bin/python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let mut line = String::new();
        let said = child.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("it says its port");
        let port = line.split_whitespace().skip_while(|word| *word != "port").nth(1);
        let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        Self { child, port, folder }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).expect("room");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reaches(name: &str, line: &str, hosts: &[&str]) -> Document {
    let hosts: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    let security = format!("security: {{network: {{allow: [{}]}}}}", hosts.join(", "));
    Document::shell(name, line).section(&security)
}

fn output(scene: &Scene, agent: &str) -> String {
    let log = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("log");
    std::fs::read_to_string(log).unwrap_or_default()
}

/// How far the network of the agent is enforced.
fn coverage(finished: &Finished) -> String {
    let started = &finished.all("agent_started", "fetcher")[0];
    let layers = started["enforcement"].as_array().expect("layers");
    let network = layers.iter().find(|report| report["layer"] == "network").expect("a network");
    network["coverage"].as_str().unwrap_or_default().to_owned()
}

fn granted(scene: &Scene, agent: Document, hosts: &[&str]) -> Finished {
    let grants: Vec<String> = hosts.iter().map(|host| format!("host:{host}")).collect();
    let mut options = vec!["--json"];
    grants.iter().for_each(|grant| options.extend(["--allow", grant]));
    scene.toka_run(&[agent], &options)
}

fn programs_reach_the_hosts_that_are_listed_and_no_others(user: User) {
    let (files, other) = (Files::new(), Files::new());
    let scene = Scene::new(user);
    let line = format!(
        "env | grep -ci openai; \
         curl -sS http://{0}/hello; curl -sS --proxytunnel http://{0}/hello; \
         /usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{0}/hello\").read())'; \
         curl -sS -o /dev/null -w '%{{http_code}}\\n' http://{1}/hello; \
         curl -sS --proxytunnel http://{1}/hello; curl -sS https://index.example.org/; true",
        files.host(),
        other.host()
    );
    let finished = granted(&scene, reaches("fetcher", &line, &[&files.host()]), &[&files.host()]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "fetcher");
    let expected = format!("0\n{0}{0}b'hello from outside\\n'\n403\n", "hello from outside\n");
    assert!(seen.starts_with(&expected), "{seen}");
    assert_eq!(seen.matches("403").count(), 3, "{seen}");
    let (asked, closed) = (finished.all("host_asked", "fetcher"), finished.all("host_closed", "fetcher"));
    assert_eq!((asked.len(), closed.len()), (3, 3), "{finished:#?}");
    for (asked, closed) in asked.iter().zip(&closed) {
        assert_eq!((&asked["host"], &asked["port"]), (&"127.0.0.1".into(), &files.port.into()));
        assert_eq!(closed["outcome"], "closed", "{closed}");
        assert!(closed["received"].as_u64() >= Some(19), "{closed}");
    }
    let denied = finished.all("host_denied", "fetcher");
    let names: Vec<_> = denied.iter().filter_map(|event| event["host"].as_str()).collect();
    assert_eq!(names, ["127.0.0.1", "127.0.0.1", "index.example.org"]);
    assert_eq!(coverage(&finished), "full");
    let audit = scene.toka(&["audit", "--json", "--type", "host", "--project", scene.name()]);
    assert_eq!(audit.stdout.lines().count(), 9, "{audit:#?}");
    scene.assert_nothing_left();
}

/// A network of its own with a server at a public address, and names that lead there: it runs what follows in it, and ends with that.
const INTERNET: &str = r#"
import fcntl, http.server, os, socket, struct, subprocess, sys, threading
PUBLIC = "93.184.215.14"
hosts = sys.argv[1] + "/hosts"
with open(hosts, "w") as file:
    file.write("127.0.0.1 localhost\n%s index.example.org other.example.org\n" % PUBLIC)
subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
fcntl.ioctl(control, 0x8916, struct.pack("16sH2s4s8s", b"lo:1", socket.AF_INET, b"", socket.inet_aton(PUBLIC), b""))
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from outside\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
for port in (80, 443, 8443):
    server = http.server.ThreadingHTTPServer((PUBLIC, port), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"#;

fn with_internet(user: User) -> Scene {
    let scene = Scene::new(user);
    let own = scene.folder().join("internet");
    std::fs::create_dir(&own).expect("room");
    std::fs::write(own.join("internet.py"), INTERNET).expect("room");
    let mut words: Vec<OsString> =
        ["unshare", "--net", "--mount", "/usr/bin/python3"].map(OsString::from).to_vec();
    words.extend([own.join("internet.py").into(), own.into()]);
    scene.prefix(words)
}

/// Says hello in TLS to a host, under the name of another.
const OTHER_NAME: &str = "import socket, ssl
context = ssl._create_unverified_context()
try:
    context.wrap_socket(socket.create_connection((\"index.example.org\", 443), 5), server_hostname=\"other.example.org\")
except (OSError, ssl.SSLError) as error:
    print(\"cut\", flush=True)";

fn programs_that_know_no_proxy_reach_hosts_by_their_names(user: User) {
    let scene = with_internet(user);
    let line = format!(
        "curl -sS --noproxy '*' http://index.example.org/hello; \
         /usr/bin/python3 -c '{OTHER_NAME}'; \
         curl -sS --noproxy '*' http://other.example.org/hello; \
         curl -sS --noproxy '*' --max-time 5 http://index.example.org:8443/hello; \
         getent hosts unknown.example.org; curl -sS http://index.example.org/hello; true"
    );
    let hosts = ["index.example.org:80", "index.example.org:443", "other.example.org:8443"];
    let finished = granted(&scene, reaches("fetcher", &line, &hosts), &hosts);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "fetcher");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["hello from outside", "cut"], "{seen}");
    // A host is only at the ports that are listed with it.
    assert_eq!(seen.matches("Couldn't connect to server").count(), 2, "{seen}");
    assert_eq!(lines.last(), Some(&"hello from outside"), "through the proxy as well: {seen}");
    let closed = finished.all("host_closed", "fetcher");
    let told: Vec<(&str, bool)> = closed
        .iter()
        .map(|event| (event["host"].as_str().unwrap_or_default(), event["outcome"] == "closed"))
        .collect();
    assert_eq!(
        told,
        [("index.example.org", true), ("index.example.org", false), ("index.example.org", true)],
        "{closed:#?}"
    );
    assert!(closed[1]["reason"].to_string().contains("for other.example.org"), "{closed:#?}");
    scene.assert_nothing_left();
}

fn a_daemon_that_is_killed_leaves_the_addresses_of_hosts(user: User) {
    let scene = with_internet(user);
    let line = "while true; do curl -sS --noproxy '*' http://index.example.org/hello; sleep 0.05; done";
    let agent = reaches("fetcher", line, &["index.example.org:80"]).spec("type: service");
    let file = scene.folder().join("fetcher.yaml");
    std::fs::write(&file, agent.yaml()).expect("room");
    // Each daemon has to be in this one network, so that all is one command.
    let script = format!(
        "T={toka} S={state} P={project}
         L=$S/projects/$P/agents/fetcher/log
         more() {{ was=$(grep -c outside $L); for _ in $(seq 600); do
             test $(grep -c outside $L) -gt $((was + 1)) && return; sleep 0.05; done; exit 8; }}
         $T run --detach --state-dir $S --project $P --allow host:index.example.org:80 {file} || exit 9
         more
         kill -9 $({listener} $S/run/daemon.sock)
         $T serve --detach --state-dir $S || exit 7
         more
         $T down --all --state-dir $S",
        toka = toka_binary().display(),
        state = scene.state().display(),
        project = scene.name(),
        file = file.display(),
        listener = "python3 -c 'import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
print(struct.unpack(\"3i\", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])'",
    );
    let finished = scene.run(&["sh", "-uc", &script]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
}

fn hosts_are_refused_until_a_person_grants_them(user: User) {
    let scene = Scene::new(user);
    let agent = || reaches("fetcher", "true", &["*.example.org:443", "10.1.2.3:80"]);
    let refused = scene.toka_run(&[agent()], &[]);
    assert_eq!(refused.code, Some(77), "{refused:#?}");
    assert!(
        refused.stderr.contains("--allow 'host:*.example.org:443'")
            || refused.stderr.contains("--allow host:*.example.org:443"),
        "{refused:#?}"
    );
    let half = scene.toka_run(&[agent()], &["--allow", "host:*.example.org:443"]);
    assert_eq!(half.code, Some(77), "{half:#?}");
    for grants in [["host:*.example.org:443", "host:10.1.2.3:80"], ["network:full", "network:full"]] {
        let run = scene.toka_run(&[agent()], &["--allow", grants[0], "--allow", grants[1]]);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
    for bad in ["https://a.example.org:443", "a.example.org", "127.1:80", "a.example.org:0"] {
        let wrong = scene.toka_run(&[reaches("fetcher", "true", &[bad])], &["--trust"]);
        assert_eq!(wrong.code, Some(65), "{bad}: {wrong:#?}");
    }
}

fn a_name_never_leads_to_the_host_itself(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let host = format!("localhost:{}", files.port);
    let line = format!(
        "curl -sS --noproxy '' http://{host}/hello; curl -sS --noproxy '' --proxytunnel http://{host}/hello; true"
    );
    let finished = granted(&scene, reaches("fetcher", &line, &[&host]), &[&host]);
    let seen = output(&scene, "fetcher");
    assert!(seen.contains("allow the address itself") && !seen.contains("hello from"), "{seen}");
    let closed = finished.all("host_closed", "fetcher");
    assert!(closed.len() == 2 && closed.iter().all(|event| event["outcome"] == "failed"), "{closed:?}");
}

/// What an agent may try that has learnt of the proxy.
fn nothing_gets_around_the_proxy(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let python = format!(
        "import os, socket
proxy = os.environ['HTTPS_PROXY'].removeprefix('http://').split(':')
def ask(text):
    link = socket.create_connection((proxy[0], int(proxy[1])), 10)
    link.sendall(text.encode())
    link.settimeout(10)
    return link.recv(4096).split(b'\\r\\n')[0].decode()
host = '{host}'
print(ask('CONNECT 169.254.169.254:80 HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % host))
print(ask('CONNECT 2130706433:{port} HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % host))
print(ask('CONNECT user@%s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % (host, host)))
print(ask('CONNECT %s.evil.example:80 HTTP/1.1\\r\\n\\r\\n' % host.split(':')[0]))
print(ask('GET http://evil.example/ HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % host))
print(ask('GET http://%s@evil.example/ HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % (host, host)))
print(ask('GET ftp://%s/hello HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % (host, host)))
print(ask('GET http://%s/hello HTTP/1.1\\r\\nHost: evil.example\\r\\nConnection: close\\r\\n\\r\\n' % host))
for kind, address in [(socket.SOCK_STREAM, ('127.0.0.1', {port})), (socket.SOCK_STREAM, ('10.255.255.1', 80)), (socket.SOCK_DGRAM, ('8.8.8.8', 53))]:
    link = socket.socket(socket.AF_INET, kind)
    link.settimeout(10)
    try:
        link.connect(address); link.send(b'x'); print('out')
    except OSError as error:
        print('no way')
",
        host = files.host(),
        port = files.port
    );
    let agent = Document::command("rogue", &["/usr/bin/python3", "-c", &python])
        .section(&format!("security: {{network: {{allow: [\"{}\"]}}}}", files.host()));
    let finished = granted(&scene, agent, &[&files.host()]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "rogue");
    let statuses: Vec<&str> = seen.lines().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
    // The last one is asked for by its URL, whatever the header says.
    assert_eq!(
        statuses,
        ["403", "403", "400", "403", "403", "400", "400", "200", "way", "way", "way"],
        "{seen}"
    );
    scene.assert_nothing_left();
}

fn a_rate_is_kept(user: User) {
    let files = Files::new();
    files.put("large", &vec![7; 1 << 20]);
    let scene = Scene::new(user);
    let line = format!(
        "curl -sS -o /dev/null -w '%{{size_download}} %{{time_total}}\\n' http://{0}/large; \
         curl -sS -p -o /dev/null -w '%{{size_download}} %{{time_total}}\\n' http://{0}/large",
        files.host()
    );
    let security = format!(
        "security: {{network: {{allow: [\"{}\"]}}, resource_limits: {{max_network_bandwidth: 1MB/s}}}}",
        files.host()
    );
    let agent = Document::shell("fetcher", &line).section(&security);
    let finished = granted(&scene, agent, &[&files.host()]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "fetcher");
    let figures: Vec<Vec<f64>> = seen
        .lines()
        .map(|line| line.split(' ').map(|word| word.parse().expect("a number")).collect())
        .collect();
    assert!(figures.iter().all(|took| took[0] == 1_048_576.0), "{seen}");
    // All but a burst of a tenth of a second comes at the rate.
    let total: f64 = figures.iter().map(|took| took[1]).sum();
    assert!(total > 1.6, "{seen}");
    assert_eq!(coverage(&finished), "full", "what is kept is no gap");
}

fn git_clones_through_the_proxy(user: User) {
    let files = Files::new();
    let bare = files.folder.path().join("repository.git");
    let git = |folder: &Path, words: &[&str]| {
        let done =
            Command::new("git").args(words).current_dir(folder).env("HOME", folder).output().expect("git");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let work = tempfile::tempdir().expect("a folder");
    std::fs::write(work.path().join("README"), "cloned\n").expect("room");
    git(work.path(), &["init", "-q", "-b", "main"]);
    git(work.path(), &["add", "README"]);
    git(work.path(), &["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "one"]);
    git(work.path(), &["clone", "-q", "--bare", ".", bare.to_str().expect("UTF-8")]);
    git(&bare, &["update-server-info"]);
    let scene = Scene::new(user);
    let line = format!(
        "cd \"$TOKA_ARTIFACTS\" && git clone -q http://{}/repository.git && cat repository/README",
        files.host()
    );
    let finished = granted(&scene, reaches("cloner", &line, &[&files.host()]), &[&files.host()]);
    assert_eq!(finished.code, Some(0), "{finished:#?}\n{}", output(&scene, "cloner"));
    assert!(output(&scene, "cloner").ends_with("cloned\n"), "{}", output(&scene, "cloner"));
}

/// A package with one module, as an index has it (PEP 427, PEP 503: a list of a folder is a page with links).
const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/demo-1.0-py3-none-any.whl", "w") as wheel:
    info = "demo-1.0.dist-info/"
    wheel.writestr("demo.py", "print('installed')\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "demo.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
"#;

fn pip_installs_through_the_proxy(user: User) {
    let files = Files::new();
    let package = files.folder.path().join("simple/demo");
    std::fs::create_dir_all(&package).expect("room");
    let made = Command::new("/usr/bin/python3").args(["-c", WHEEL]).arg(&package).status();
    assert!(made.expect("python").success());
    let scene = Scene::new(user);
    let line = format!(
        "/usr/bin/python3 -m venv \"$TOKA_ARTIFACTS/v\" && cd \"$TOKA_ARTIFACTS/v/bin\" && \
         ./pip install -q --disable-pip-version-check --index-url http://{0}/simple --trusted-host 127.0.0.1 demo && ./python -c 'import demo'",
        files.host()
    );
    let finished = granted(&scene, reaches("installer", &line, &[&files.host()]), &[&files.host()]);
    assert_eq!(finished.code, Some(0), "{finished:#?}\n{}", output(&scene, "installer"));
    assert!(output(&scene, "installer").ends_with("installed\n"), "{}", output(&scene, "installer"));
    assert!(finished.all("host_closed", "installer").len() >= 2, "the page and the package: {finished:#?}");
}

fn the_next_daemon_serves_the_same_proxy(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let line = format!("while true; do curl -sS http://{}/hello; sleep 0.05; done", files.host());
    let agent = [reaches("fetcher", &line, &[&files.host()]).spec("type: service")];
    let grant = format!("host:{}", files.host());
    let detached = scene.adopt();
    let begun = scene.toka_run(&agent, &["--detach", "--allow", &grant]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    let fetched = || output(&scene, "fetcher").matches("hello from outside").count();
    eventually("it reaches the host", || fetched() > 1);
    let pid = detached.inspect("fetcher")["pid"].clone();
    for _ in 0..2 {
        kill_daemon(&scene);
        serve_again(&scene);
        let before = fetched();
        eventually("it reaches the host again", || fetched() > before + 1);
    }
    assert_eq!(detached.inspect("fetcher")["pid"], pid);
    let closed = told(&detached, "host_closed");
    assert!(closed.iter().filter(|event| event["outcome"] == "closed").count() > 3, "{closed:?}");
}

/// Nobody serves a proxy there: a connection that is taken and never answered would hang.
fn a_sandbox_of_its_own_says_that_it_reaches_no_host(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let file = scene.workspace().join("w.yaml");
    let security = format!("security: {{network: {{allow: [\"{}\"]}}}}", files.host());
    scene.write(&file, &format!("metadata: {{name: a}}\nspec: {{process: {{shell: 'true'}}}}\n{security}\n"));
    let words = ["exec", "--sandbox", "w.yaml", "--trust", "--state-dir"];
    let line = format!("env | grep -ci proxy=http; curl -sS -m 10 http://{}/hello; echo $?", files.host());
    let mut all: Vec<OsString> = vec![toka_binary().into()];
    all.extend(words.iter().map(OsString::from));
    all.push(scene.state().into());
    all.extend(["--", "sh", "-c", &line].map(OsString::from));
    let told = scene.run(&all);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert_eq!(told.stdout, "0\n7\n", "refused at once: {told:#?}");
    assert!(told.stderr.contains("no host is reached"), "{told:#?}");
}

fn a_person_is_asked_about_other_hosts(user: User) {
    let (files, other) = (Files::new(), Files::new());
    let scene = Scene::new(user);
    // Its own loopback interface would be reached without the proxy.
    let fetch = |options: &str, host: &str| format!("curl -sS --noproxy '' {options} http://{host}/hello; ");
    let line = [
        fetch("", &files.host()),
        fetch("-p", &files.host()),
        fetch("", &other.host()),
        fetch("", &other.host()),
        "sleep 600".to_owned(),
    ]
    .concat();
    let agent = Document::shell("fetcher", &line).section("security: {network: {ask: true}}");
    let detached = scene.detach(&[agent]);
    let approvals = || -> Vec<serde_json::Value> {
        let listed = scene.toka(&["approvals", "--json", "--project", scene.name()]);
        serde_json::from_str(&listed.stdout).unwrap_or_else(|error| panic!("{error}: {listed:#?}"))
    };
    eventually("it asks", || !approvals().is_empty());
    let open = approvals().remove(0);
    assert_eq!(
        (&open["kind"], &open["host"], &open["port"]),
        (&"host".into(), &"127.0.0.1".into(), &files.port.into())
    );
    assert_eq!(detached.inspect("fetcher")["state"], "running", "only the connection waits");
    let sum = scene.toka(&["approvals", "approve", "--raise", "5", "--project", scene.name()]);
    assert_eq!(sum.code, Some(2), "{sum:#?}");
    let yes = scene.toka(&["approvals", "approve", "1", "--project", scene.name()]);
    assert_eq!((yes.code, yes.stdout.ends_with("approved\n")), (Some(0), true), "{yes:#?}");
    eventually("it asks about the other", || approvals().first().is_some_and(|open| open["id"] == 2));
    assert_eq!(output(&scene, "fetcher"), "hello from outside\n".repeat(2), "both ways, and asked once");
    let no = scene.toka(&["approvals", "deny", "--project", scene.name()]);
    assert_eq!(no.code, Some(0), "{no:#?}");
    eventually("both are refused", || output(&scene, "fetcher").matches("has not allowed it").count() == 2);
    assert_eq!(detached.inspect("fetcher")["state"], "running", "a no ends no agent");
    assert_eq!(told(&detached, "approval_asked").len(), 2);
    assert_eq!(told(&detached, "host_denied").len(), 2);
}

fn what_a_person_trusts_beyond_a_run_is_not_asked_again(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let fetch = |name: &str| {
        let line = format!("curl -sS --noproxy '' http://{}/hello; sleep 600", files.host());
        Document::shell(name, &line).section("security: {network: {ask: true}}")
    };
    let waits = |scene: &Scene| {
        let listed = scene.toka(&["approvals", "--json", "--project", scene.name()]);
        let open: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        open.len()
    };
    let first = scene.detach(&[fetch("fetcher")]);
    eventually("it asks", || waits(&scene) == 1);
    let trust = |more: &[&str]| {
        let words = [&["approvals", "trust", "--project", scene.name()], more].concat();
        scene.toka(&words)
    };
    let nobody = trust(&[]);
    assert_eq!(nobody.code, Some(77), "{nobody:#?}");
    let words =
        format!("fetcher may reach {} and send there whatever it can read, in every run", files.host());
    assert!(nobody.stderr.contains(&words) && nobody.stderr.contains("--yes"), "{nobody:#?}");
    assert_eq!(trust(&["--yes", "--for", "0s"]).code, Some(2));
    assert_eq!(waits(&scene), 1, "nothing was answered");
    let yes = trust(&["--yes"]);
    assert_eq!(yes.code, Some(0), "{yes:#?}");
    assert!(yes.stdout.contains("approved, until you revoke it"), "{yes:#?}");
    eventually("it is answered", || output(&scene, "fetcher") == "hello from outside\n");
    let listed = || scene.toka(&["trust", "--list"]).stdout;
    let known = format!("fetcher may reach {}, as was answered", files.host());
    eventually("it is recorded", || listed().contains(&known));
    drop(first);

    let second = scene.detach(&[fetch("fetcher"), fetch("other")]);
    eventually("it is answered at once", || output(&scene, "fetcher").matches("hello").count() == 1);
    eventually("another agent asks", || told(&second, "approval_asked").len() == 1);
    assert_eq!(told(&second, "approval_asked")[0]["agent"], "other");
    // What a policy denies, no answer opens.
    drop(second);
    scene.write(&scene.workspace().join("toka.yaml"), "deny: [\"host:127.0.0.1\"]\n");
    let _third = scene.detach(&[fetch("fetcher")]);
    eventually("it is refused", || output(&scene, "fetcher").contains("the policy denies host:127.0.0.1"));
    let workspace = scene.workspace();
    let revoked = scene.toka(&["trust", "--revoke", "--workdir", &workspace.display().to_string()]);
    assert_eq!(revoked.code, Some(0), "{revoked:#?}");
    assert!(!listed().contains("may reach"), "{}", listed());
}

/// The port is there for the hosts alone, whatever key somebody remembers.
fn a_list_of_hosts_opens_no_models(user: User) {
    let scene = Scene::new(user);
    let line = "curl -sS --noproxy '*' -H 'x-api-key: any' -H 'anthropic-version: 2023-06-01' -d '{}' http://127.0.0.1:7411/v1/messages; \
                curl -sS --noproxy '*' -H 'authorization: Bearer any' http://127.0.0.1:7411/v1/models";
    let finished = granted(&scene, reaches("fetcher", line, &["10.1.2.3:80"]), &["10.1.2.3:80"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let seen = output(&scene, "fetcher");
    assert_eq!(seen.matches("this agent asks no models").count(), 2, "{seen}");
}

fn what_has_no_body_is_no_broken_connection(user: User) {
    let (files, server) = (Files::new(), WebServer::new(Serves::Status(204)));
    files.put("empty", b"");
    let scene = Scene::new(user);
    let other = server.authority();
    let line = format!(
        "curl -sS -I http://{0}/hello | grep -i content-length; curl -sS http://{0}/empty; \
         printf '\"%020000d\"' 1 | curl -sS -H 'content-type: application/json' -d @- http://{other}/",
        files.host()
    );
    let own = files.host();
    let hosts = [own.as_str(), other.as_str()];
    let finished = granted(&scene, reaches("fetcher", &line, &hosts), &hosts);
    let seen = output(&scene, "fetcher");
    assert!(seen.to_lowercase().starts_with("content-length: 19"), "{seen}");
    let closed = finished.all("host_closed", "fetcher");
    assert_eq!(closed.len(), 3, "{closed:?}");
    assert!(closed.iter().all(|event| event["outcome"] == "closed"), "{} {seen}", closed[2]);
    assert!(closed[2]["sent"].as_u64() > Some(20_000), "{closed:?}");
    assert!(closed[0]["sent"].as_u64() > Some(20), "the head counts: {closed:?}");
}

fn what_a_person_denies_is_denied_in_every_spelling(user: User) {
    let scene = Scene::new(user);
    for deny in [
        "host:api.example.org",
        "host:*",
        "host:*:443",
        "host:api.example.org:*",
        "host:*.example.org",
        "host",
    ] {
        scene.write(&scene.workspace().join("toka.yaml"), &format!("deny: [\"{deny}\"]\n"));
        for hosts in [["api.example.org:443"], ["*.example.org:443"]] {
            let run = scene.toka_run(&[reaches("fetcher", "true", &hosts)], &["--trust"]);
            assert_eq!(run.code, Some(77), "{deny} {hosts:?}: {run:#?}");
        }
    }
    scene.write(&scene.workspace().join("toka.yaml"), "deny: [\"host:https://a\"]\n");
    let run = scene.toka_run(&[reaches("fetcher", "true", &["a.example.org:443"])], &["--trust"]);
    assert_eq!(run.code, Some(65), "half a policy is none: {run:#?}");
}

fn a_killed_daemon_leaves_no_connection_without_an_end(user: User) {
    let files = Files::new();
    let scene = Scene::new(user);
    let python = format!(
        "import os, socket, time
proxy = os.environ['HTTPS_PROXY'].removeprefix('http://').split(':')
link = socket.create_connection((proxy[0], int(proxy[1])))
link.sendall(b'CONNECT {0} HTTP/1.1\\r\\nHost: {0}\\r\\n\\r\\n')
print(link.recv(100), flush=True)
time.sleep(600)",
        files.host()
    );
    let agent = Document::command("holder", &["/usr/bin/python3", "-c", &python])
        .section(&format!("security: {{network: {{allow: [\"{}\"]}}}}", files.host()));
    let detached = scene.adopt();
    let grant = format!("host:{}", files.host());
    let begun = scene.toka_run(&[agent], &["--detach", "--allow", &grant]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    eventually("it is connected", || output(&scene, "holder").contains("200"));
    assert!(told(&detached, "host_closed").is_empty());
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("its end is told", || !told(&detached, "host_closed").is_empty());
    let closed = told(&detached, "host_closed").remove(0);
    assert_eq!((&closed["outcome"], &closed["reason"]), (&"cut".into(), &"the daemon was killed".into()));
    assert!(closed.get("sent").is_none(), "nobody knows: {closed}");
}
