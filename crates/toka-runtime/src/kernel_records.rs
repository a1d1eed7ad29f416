//! What the kernel says that it has refused: the records of Landlock in its audit, which a daemon of root can read where somebody has switched the audit
//! on. Most agents say themselves what they were refused ([`crate::walls`]); this is for those that say nothing.
//!
//! ```text
//!  type=1424 audit(T): domain=195ba459b status=allocated mode=enforcing pid=300 uid=0 exe="/bin/x" comm="x"      whose it is
//!  type=1423 audit(T): domain=195ba459b blockers=scope.signal opid=1 ocomm="init"                                what was refused
//!  type=1424 audit(T): domain=195ba459b status=deallocated denials=3                                             it is over
//! ```
//!
//! Sources: Documentation/admin-guide/LSM/landlock.rst of Linux 6.15, linux/audit.h.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// Kinds of records, and the group that they are sent to (linux/audit.h).
const LANDLOCK_ACCESS: u16 = 1423;
const LANDLOCK_DOMAIN: u16 = 1424;
const READ_LOG: u32 = 1;
const HEADER: usize = 16;
/// Refusals that are kept of one agent, and agents of which some are kept.
const MOST_REFUSALS: usize = 16;
const MOST_DOMAINS: usize = 1024;

/// Something that the kernel has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What was missing, as the kernel names it: `fs.write_file`, `scope.signal`.
    pub(crate) blockers: String,
    /// The path that it was about, as the agent sees it.
    pub(crate) path: Option<PathBuf>,
    /// The process that it was about.
    pub(crate) process: Option<String>,
    /// The port that it was about.
    pub(crate) port: Option<u16>,
}

/// The refusals of running agents.
#[derive(Debug, Default)]
pub(crate) struct KernelRecords(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the kernel's number of the domain; the oldest first.
    domains: VecDeque<(String, Domain)>,
}

#[derive(Debug, Default)]
struct Domain {
    /// The process that went behind the rules: the main process of an agent.
    pid: Option<i32>,
    refusals: Vec<Refusal>,
}

impl KernelRecords {
    /// Those of this process, read from now on; `None` where they may not be read, as by an ordinary user.
    pub(crate) fn of_this_process() -> Option<&'static Arc<Self>> {
        static READ: OnceLock<Option<Arc<KernelRecords>>> = OnceLock::new();
        READ.get_or_init(|| Self::start().ok()).as_ref()
    }

    fn start() -> io::Result<Arc<Self>> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let audit = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkAudit)?;
        bind(audit.as_raw_fd(), &NetlinkAddr::new(0, READ_LOG))?;
        let records = Arc::new(Self::default());
        let own = Arc::clone(&records);
        // It lives as long as the process.
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || own.read(&audit))?;
        Ok(records)
    }

    fn read(&self, audit: &OwnedFd) {
        let mut message = vec![0; 16 * 1024];
        loop {
            match recv(audit.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(count) => self.take(&message[..count]),
                // More came than there was room for: some are lost.
                Err(nix::Error::ENOBUFS | nix::Error::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Takes a message of the kernel's; one that is of something else is passed over.
    fn take(&self, message: &[u8]) {
        let Some(kind) = message.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes) else {
            return;
        };
        let text = message.get(HEADER..).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let fields = fields(text.trim_end_matches('\0'));
        let Some(domain) = fields.get("domain") else { return };
        match kind {
            LANDLOCK_DOMAIN => {
                if let Some(pid) = fields.get("pid").and_then(|pid| pid.parse().ok()) {
                    self.with(domain, |known| known.pid = Some(pid));
                }
            }
            LANDLOCK_ACCESS => {
                let Some(refusal) = refusal(&fields) else { return };
                self.with(domain, |known| {
                    if known.refusals.len() < MOST_REFUSALS && !known.refusals.contains(&refusal) {
                        known.refusals.push(refusal);
                    }
                });
            }
            _ => {}
        }
    }

    /// Whether anything was told at all: else the audit is off, as a rule.
    pub(crate) fn has_spoken(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).domains.is_empty()
    }

    fn with(&self, domain: &str, change: impl FnOnce(&mut Domain)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let domains = &mut state.domains;
        if !domains.iter().any(|(known, _)| known == domain) {
            if domains.len() == MOST_DOMAINS {
                domains.pop_front();
            }
            domains.push_back((domain.to_owned(), Domain::default()));
        }
        if let Some((_, known)) = domains.iter_mut().find(|(known, _)| known == domain) {
            change(known);
        }
    }

    /// What an agent was refused whose main process is or was this one, in the order in which it was; it is forgotten. Of processes with the same number, one after
    /// the other, those are the last one's.
    pub(crate) fn take_of(&self, pid: i32) -> Vec<Refusal> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = state.domains.iter().rposition(|(_, domain)| domain.pid == Some(pid));
        let taken = found.and_then(|at| state.domains.remove(at));
        taken.map(|(_, domain)| domain.refusals).unwrap_or_default()
    }
}

fn refusal(fields: &HashMap<String, String>) -> Option<Refusal> {
    Some(Refusal {
        blockers: fields.get("blockers")?.clone(),
        path: fields.get("path").map(PathBuf::from),
        process: fields.get("ocomm").map(|name| {
            let pid = fields.get("opid").map_or_else(String::new, |pid| format!(" ({pid})"));
            format!("{name}{pid}")
        }),
        port: fields.get("dest").or(fields.get("src")).and_then(|port| port.parse().ok()),
    })
}

/// The fields of a record: `name=value`, a value in quotes, or its bytes as hexadecimal digits where it has odd ones (audit_log_untrustedstring).
fn fields(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let text = text.split_once("): ").map_or(text, |(_, fields)| fields);
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.rsplit(' ').next().unwrap_or(name);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        let is_text = ["path", "comm", "ocomm", "exe"].contains(&name) && !after.starts_with('"');
        let value = if is_text { unhex(value).unwrap_or_else(|| value.to_owned()) } else { value.to_owned() };
        found.insert(name.to_owned(), value);
        rest = next;
    }
    found
}

fn unhex(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = (text.len().is_multiple_of(2) && text.is_ascii()).then(|| {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
    })?;
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn refusals_belong_to_the_process_that_went_behind_the_rules() {
        let records = KernelRecords::default();
        for (kind, text) in [
            (LANDLOCK_ACCESS, r#"audit(1.2:3): domain=1a blockers=scope.signal opid=1 ocomm="init""#),
            (
                LANDLOCK_DOMAIN,
                r#"audit(1.2:3): domain=1a status=allocated mode=enforcing pid=300 uid=0 exe="/bin/x" comm="x""#,
            ),
            (
                LANDLOCK_ACCESS,
                r#"audit(1.3:4): domain=1a blockers=fs.write_file,fs.truncate path="/srv/a b" dev="vda2" ino=351"#,
            ),
            (
                LANDLOCK_ACCESS,
                "audit(1.3:5): domain=1a blockers=fs.read_file path=2F7372762F0A dev=\"x\" ino=1",
            ),
            (LANDLOCK_ACCESS, "audit(1.3:6): domain=2b blockers=net.connect_tcp daddr=10.0.0.1 dest=443"),
            (LANDLOCK_ACCESS, r#"audit(1.3:7): domain=1a blockers=scope.signal opid=1 ocomm="init""#),
            (LANDLOCK_DOMAIN, "audit(1.4:8): domain=1a status=deallocated denials=3"),
            (1300, "audit(1.4:9): domain=1a blockers=fs.execute path=\"/x\""),
            (LANDLOCK_ACCESS, "nonsense"),
        ] {
            records.take(&message(kind, text));
        }
        let found = records.take_of(300);
        let shown: Vec<(&str, Option<&str>, Option<&str>)> = found
            .iter()
            .map(|it| {
                (it.blockers.as_str(), it.path.as_deref().and_then(|it| it.to_str()), it.process.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("scope.signal", None, Some("init (1)")),
                ("fs.write_file,fs.truncate", Some("/srv/a b"), None),
                ("fs.read_file", Some("/srv/\n"), None),
            ]
        );
        assert_eq!(records.take_of(300), [], "they are told once");
        assert_eq!(records.take_of(301), []);
    }

    proptest! {
        #[test]
        fn no_message_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let records = KernelRecords::default();
            records.take(&bytes);
            records.take(&message(LANDLOCK_ACCESS, &text));
        }

        #[test]
        fn what_is_kept_is_bounded(domains in 0..3000usize) {
            let records = KernelRecords::default();
            for domain in 0..domains {
                records.take(&message(LANDLOCK_ACCESS, &format!("audit(1): domain={domain:x} blockers=x")));
            }
            prop_assert!(records.0.lock().expect("ours").domains.len() <= MOST_DOMAINS);
        }
    }
}
