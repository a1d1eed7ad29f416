//! What must work inside the sandbox: the programs that agents run every day. A wall that breaks them would be turned
//! off.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use toka_tests::{Finished, Need, Scene, User, as_both_users, require};

as_both_users!(
    a_shell_works,
    standard_streams_can_be_opened_by_name,
    devices_and_temporary_files_work,
    the_environment_is_small_and_private,
    names_and_users_are_looked_up,
    exit_statuses_come_through,
    large_output_comes_through,
    git_works,
    git_worktrees_work,
    cargo_works,
    python_works,
    python_finds_terminals_sockets_and_processes,
    npm_works,
    java_and_maven_work,
    a_browser_works,
    processes_inside_see_each_other,
    home_is_the_same_for_all_who_ask,
);

/// Everything in the workspace may be read and written, and these kinds of program run.
fn workshop(user: User, capabilities: &str) -> Scene {
    Scene::new(user).security(&format!(
        "
  capabilities_required: [filesystem-read, filesystem-write, {capabilities}]
  resource_limits: {{max_memory: 2GB, max_cpu: 200%}}
"
    ))
}

/// Runs a script inside, which must succeed; gives what it wrote.
fn script(scene: &Scene, script: &str) -> String {
    let finished = scene.exec(&["/bin/sh", "-euc", script]);
    finished.assert_confined();
    let output = finished.success();
    scene.assert_nothing_left();
    output
}

fn home_is_the_same_for_all_who_ask(user: User) {
    let scene = Scene::new(user);
    let ask = "echo \"$HOME\"; echo ~; eval echo ~$(id -un); getent passwd $(id -u) | cut -d: -f6
        /usr/bin/python3 -c 'import os, pwd; print(os.path.expanduser(\"~\")); print(pwd.getpwuid(os.getuid()).pw_dir)'
        cat /etc/passwd | wc -l";
    let agent = toka_tests::Document::shell("asks", &format!("({ask}) > \"$TOKA_ARTIFACTS/homes\""));
    let ran = scene.toka_run(&[agent], &[]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let told = scene.artifact("asks", "homes");
    let mut homes: Vec<&str> = told.lines().collect();
    let users: usize = homes.pop().and_then(|count| count.trim().parse().ok()).expect("a number");
    let home = scene.state().join("projects").join(scene.name()).join("agents/asks/home");
    assert!(homes.iter().all(|told| Path::new(told) == home) && homes.len() == 6, "{told}");
    let host = std::fs::read_to_string("/etc/passwd").expect("a database").lines().count();
    assert!(users >= host, "the others are as they were");
}

fn a_shell_works(user: User) {
    let scene = workshop(user, "process-execution");
    let output = script(
        &scene,
        "seq 1 1000 | grep 7 | sort -rn | head -n 1
         printf 'a\\nb\\n' > list; while read line; do echo \"<$line>\"; done < list
         x=$(cat list | wc -l); echo $x
         (sleep 0.01; echo child) & wait
         trap 'echo caught' TERM; kill -TERM $$
         cat <<'END'
here
END
         find . -name list | xargs ls -l > /dev/null; rm list; test ! -e list
         mkfifo pipe; echo through > pipe & cat pipe; ulimit -n; nice -n 5 true; test -t 0 || echo no terminal",
    );
    assert_eq!(output, "997\n<a>\n<b>\n2\nchild\ncaught\nhere\nthrough\n1024\nno terminal\n");
}

fn standard_streams_can_be_opened_by_name(user: User) {
    let scene = workshop(user, "process-execution");
    let words = ["/bin/sh", "-euc", "echo one > /dev/stdout; echo two > /dev/stderr; echo three >> /proc/self/fd/1;
        echo four | tee /dev/stderr; echo five | cat /dev/stdin; cat < /dev/null; echo six | tee -a /dev/fd/1"];
    let finished = scene.exec(&words);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.stdout, "one\nthree\nfour\nfive\nsix\nsix\n");
    assert!(finished.stderr.starts_with("two\nfour\n"), "{finished:#?}");
}

fn devices_and_temporary_files_work(user: User) {
    let scene = workshop(user, "process-execution");
    script(
        &scene,
        "test $(head -c 16 /dev/urandom | wc -c) = 16; test $(head -c 16 /dev/random | wc -c) = 16
         test $(head -c 16 /dev/zero | wc -c) = 16; echo gone > /dev/null
         ! echo full > /dev/full
         file=$(mktemp); echo x > $file; case $file in \"$TMPDIR\"/*) ;; *) echo $file; exit 1;; esac
         folder=$(mktemp -d); touch $folder/x; rm -r $folder $file
         test -w \"$TMPDIR\"; test -w \"$HOME\"; echo y > \"$HOME/file\"; test -d /dev/shm && echo z > /dev/shm/x
         test -r /proc/self/status; test -r /proc/meminfo; test -d /sys || true
         test $(nproc) -ge 1; getconf _NPROCESSORS_ONLN; ps > /dev/null; date; uname -a; df . > /dev/null",
    );
}

fn the_environment_is_small_and_private(user: User) {
    let scene = workshop(user, "process-execution").env("SECRET_TOKEN", "do-not-pass").env("TZ", "UTC");
    let output = script(&scene, "env; pwd; cd \"$HOME\"; pwd");
    assert!(!output.contains("do-not-pass"), "the caller's variables stay outside: {output}");
    let value = |name: &str| {
        let prefix = format!("{name}=");
        output.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    };
    for name in ["PATH", "HOME", "TMPDIR", "LANG", "USER"] {
        assert!(!value(name).is_empty(), "{name} is set: {output}");
    }
    assert_ne!(Path::new(&value("HOME")), scene.home(), "HOME is private");
    assert!(
        output.contains(&format!("\n{}\n", scene.workspace().display())),
        "it starts in the workspace: {output}"
    );
}

fn names_and_users_are_looked_up(user: User) {
    let scene = workshop(user, "process-execution");
    let output = script(
        &scene,
        "getent passwd 0; getent hosts localhost; id -u; ls -l /usr > /dev/null; locale > /dev/null",
    );
    assert!(output.contains("root:"), "{output}");
    assert!(output.contains("localhost"), "{output}");
    assert!(output.lines().any(|line| line == user.uid().to_string()), "the user's own number: {output}");
}

fn exit_statuses_come_through(user: User) {
    let scene = workshop(user, "process-execution");
    for code in [0, 1, 3, 42, 255] {
        let finished = scene.exec(&["/bin/sh".to_owned(), "-c".to_owned(), format!("exit {code}")]);
        assert_eq!(finished.code, Some(code), "{finished:#?}");
    }
    let killed = scene.exec(&["/bin/sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.code, Some(128 + 9), "as a shell tells it: {killed:#?}");
    let lame = scene.workspace().join("lame");
    scene.write_program(&lame, "#!/no/such/interpreter\n");
    for (word, code) in [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("./lame", 127),
        ("./readable.txt", 126),
        ("./docs", 126),
    ] {
        let finished = scene.exec(&[word]);
        assert_eq!(finished.code, Some(code), "as of env: {finished:#?}");
        assert!(finished.stderr.contains(word.trim_start_matches("./")), "it is named: {finished:#?}");
    }
    scene.assert_nothing_left();
}

fn large_output_comes_through(user: User) {
    let scene = workshop(user, "process-execution");
    let output = script(&scene, "seq 1 200000");
    assert_eq!(output.lines().count(), 200_000);
    assert!(output.ends_with("\n200000\n"), "to the last line");
}

fn git_works(user: User) {
    if !require(&[Need::Program("git")]) {
        return;
    }
    let scene = workshop(user, "git-access").env("GIT_CONFIG_NOSYSTEM", "1");
    make_repository(&scene);
    let output = script(
        &scene,
        "git status --short; echo change >> file; git diff --stat; git add file other 2>/dev/null || git add file
         git -c user.name=t -c user.email=t@example.org commit -q -m second
         git log --oneline | wc -l; git branch topic; git checkout -q topic; git stash list; git gc -q
         git rev-parse --abbrev-ref HEAD; git fsck 2>/dev/null; git blame file | wc -l",
    );
    assert!(output.contains("\n2\n") && output.contains("topic"), "{output}");
}

/// `filesystem-write` keeps `.git/config` and the hooks as they are; a worktree needs neither.
fn git_worktrees_work(user: User) {
    if !require(&[Need::Program("git")]) {
        return;
    }
    let scene = workshop(user, "git-access").env("GIT_CONFIG_NOSYSTEM", "1");
    make_repository(&scene);
    let output = script(
        &scene,
        "git worktree add -q -b side tree; cd tree; echo side > file; git add file
         git -c user.name=t -c user.email=t@example.org commit -q -m side; git log --oneline | wc -l
         cd ..; git worktree list | wc -l; git worktree remove --force tree; git branch -D side",
    );
    assert!(output.starts_with("2\n2\n"), "{output}");
}

fn make_repository(scene: &Scene) {
    let made = scene.run(&[
        "/bin/sh",
        "-euc",
        "git init -q -b main .; echo first > file; git add file
         git -c user.name=t -c user.email=t@example.org commit -q -m first",
    ]);
    made.success();
}

fn cargo_works(user: User) {
    if !require(&[Need::Program("cargo"), Need::Program("cc")]) {
        return;
    }
    let scene = with_toolchain(workshop(user, "cargo-execution"));
    let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    scene.write(&scene.workspace().join("Cargo.toml"), manifest);
    scene.make_folder(&scene.workspace().join("src"));
    scene.write(
        &scene.workspace().join("src/main.rs"),
        "fn main() { println!(\"built\") }\n#[test]\nfn passes() { assert_eq!(1 + 1, 2) }\n",
    );
    let output = script(
        &scene,
        "cargo --version; cargo check --offline -q; cargo build --offline -q; cargo test --offline -q
         cargo run --offline -q; cargo metadata --offline --format-version 1 > /dev/null; rustc --version",
    );
    assert!(output.contains("1 passed") && output.contains("\nbuilt\n"), "{output}");
}

/// Puts the toolchain where the scene's user would have it. One below root's home, which others cannot read, is
/// bound to the scene's home, in a mount namespace of the command's own.
fn with_toolchain(scene: Scene) -> Scene {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc is beside cargo");
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let Some(rustup) = rustup_home(&sysroot) else {
        return scene.env("PATH", format!("{}:{search}", sysroot.join("bin").display()));
    };
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from);
    let path = |bin: &Path| format!("{}:{search}", bin.display());
    if scene.user() == User::Root {
        return scene
            .env("PATH", path(&cargo.join("bin")))
            .env("CARGO_HOME", cargo)
            .env("RUSTUP_HOME", rustup);
    }
    let (own_cargo, own_rustup) = (scene.home().join(".cargo"), scene.home().join(".rustup"));
    scene.make_folder(&own_cargo.join("bin"));
    scene.make_folder(&own_rustup);
    if !nix::unistd::geteuid().is_root() {
        return scene.env("PATH", path(&cargo.join("bin"))).env("HOME", home());
    }
    let bind = "mount --bind \"$1\" \"$2\"; mount --bind \"$3\" \"$4\"; shift 4; exec \"$@\"";
    let mut prefix: Vec<OsString> =
        ["unshare", "--mount", "/bin/sh", "-euc", bind, "sh"].map(Into::into).to_vec();
    prefix
        .extend([cargo.join("bin"), own_cargo.join("bin"), rustup, own_rustup].map(PathBuf::into_os_string));
    let own_path = path(&own_cargo.join("bin"));
    scene.prefix(prefix).env("PATH", own_path)
}

/// The folder of rustup that this toolchain is in, if it is in one.
fn rustup_home(sysroot: &Path) -> Option<PathBuf> {
    let toolchains = sysroot.parent()?;
    (toolchains.file_name()? == "toolchains").then(|| toolchains.parent().map(Path::to_owned)).flatten()
}

fn home() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
}

fn python_works(user: User) {
    if !require(&[Need::Program("python3")]) {
        return;
    }
    let scene = workshop(user, "python-execution");
    scene.write(
        &scene.workspace().join("test_sums.py"),
        "import unittest\nclass Sums(unittest.TestCase):\n    def test_sum(self):\n        self.assertEqual(1 + 1, 2)\n",
    );
    let output = script(
        &scene,
        "python3 -m venv --without-pip env; . env/bin/activate; python -m unittest -v 2>&1
         python -c 'import sys, ssl, sqlite3, json, ctypes; print(sys.prefix)'
         python -m venv with-pip; with-pip/bin/pip --version",
    );
    assert!(output.contains("Ran 1 test") && output.contains("OK"), "{output}");
    assert!(output.contains(&scene.workspace().join("env").display().to_string()), "{output}");
}

fn python_finds_terminals_sockets_and_processes(user: User) {
    if !require(&[Need::Program("python3")]) {
        return;
    }
    let scene = workshop(user, "python-execution");
    scene.write(
        &scene.workspace().join("probe.py"),
        "
import asyncio, multiprocessing, os, pty, pwd, socket, subprocess, tempfile, threading

master, slave = pty.openpty()
os.write(slave, b'terminal')
assert os.read(master, 8) == b'terminal'
assert os.isatty(slave)
assert pty.spawn(['true']) == 0

path = tempfile.mkdtemp() + '/socket'
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(path)
server.accept()[0].sendall(b'hello')
assert client.recv(5) == b'hello'

def square(x):
    return x * x

if __name__ == '__main__':
    with multiprocessing.Pool(2) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
    threads = [threading.Thread(target=square, args=(n,)) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert subprocess.run(['sh', '-c', 'exit 3']).returncode == 3
    async def later():
        process = await asyncio.create_subprocess_exec('echo', 'async', stdout=subprocess.PIPE)
        return (await process.communicate())[0]
    assert asyncio.run(later()) == b'async\\n'
    assert pwd.getpwuid(0).pw_name == 'root'
    assert os.cpu_count() >= 1 and os.sched_getaffinity(0)
    assert os.getsid(0) != 0 and os.listdir('/proc/self/fd')
    print('all found')
",
    );
    let output = script(&scene, "python3 probe.py");
    assert!(output.ends_with("all found\n"), "{output}");
}

fn npm_works(user: User) {
    if !require(&[Need::Program("npm"), Need::Program("node")]) {
        return;
    }
    let scene = workshop(user, "node-execution");
    scene.write(
        &scene.workspace().join("package.json"),
        "{\"name\": \"tiny\", \"version\": \"1.0.0\", \"scripts\": {\"test\": \"node --test\"}}\n",
    );
    scene.write(
        &scene.workspace().join("sum.test.js"),
        "const test = require('node:test'); const assert = require('node:assert');\n\
         test('sums', () => assert.strictEqual(1 + 1, 2));\n",
    );
    let finished: Finished = scene.exec(&["npm", "test", "--offline"]);
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(all.contains("pass 1"), "{all}");
    script(
        &scene,
        "node -e 'new Worker(\"\", {eval: true}); ' 2>/dev/null || true; node -e 'console.log(process.version)'",
    );
    scene.assert_nothing_left();
}

/// Programs whose settings lie in `/etc`, under names that no list could have.
fn java_and_maven_work(user: User) {
    if !require(&[Need::Program("java"), Need::Program("javac"), Need::Program("mvn")]) {
        return;
    }
    let scene = workshop(user, "process-execution");
    scene.write(
        &scene.workspace().join("Home.java"),
        "class Home { public static void main(String[] words) { System.out.println(System.getProperty(\"user.home\")); } }\n",
    );
    let output = script(
        &scene,
        "javac Home.java; test \"$(java -cp . Home)\" = \"$HOME\"; echo same; mvn --version 2> errors",
    );
    assert!(output.starts_with("same\n") && output.contains("Apache Maven"), "{output}");
}

fn a_browser_works(user: User) {
    if !require(&[Need::Program("chromium")]) {
        return;
    }
    let scene = workshop(user, "process-execution");
    let page = "<p id=sum></p><script>document.getElementById('sum').textContent = 6 * 7</script>";
    scene.write(&scene.workspace().join("page.html"), page);
    let output = script(
        &scene,
        "chromium --headless --no-sandbox --disable-gpu --dump-dom \"file://$PWD/page.html\" 2> errors || { cat errors >&2; exit 1; }",
    );
    assert!(output.contains("<p id=\"sum\">42</p>"), "{output}");
}

fn processes_inside_see_each_other(user: User) {
    let scene = workshop(user, "process-execution");
    script(
        &scene,
        "sleep 30 & child=$!; kill -0 $child; test -r /proc/$child/status; kill $child; wait $child || test $? = 143
         test -d /proc/$$; ps -o pid= | grep -q $$",
    );
}
