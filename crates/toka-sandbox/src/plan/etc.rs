//! What of /etc every agent may read: all of it, but for what is secret. A list of what programs need would be the list of one
//! machine's versions; programs of the system are to start as they do outside.
//!
//! Two rules keep secrets out. What not everybody may read is secret, whoever runs Toka: an agent of root owns such files, and
//! would be let in by their mode. And what is named here is secret, with a reason, where a wrong mode would show it or where
//! distributions leave it readable. Landlock has no exceptions below a rule, so a directory that holds a secret is granted entry by
//! entry; what is new there stays closed until the next look.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toka_files::matches;

/// Most entries that are looked at; a real /etc has one or two thousand.
const MAX_ENTRIES: usize = 50_000;
/// How deep directories are entered.
const MAX_DEPTH: usize = 12;

/// Patterns of paths below /etc, each with why it is secret. A directory stands for all that is in it.
const SECRET: &[(&str, &[&str])] = &[
    (
        "who has which password, and who may become whom",
        &[
            "shadow*",
            "gshadow*",
            ".pwd.lock",
            "tcb",
            "security/opasswd",
            "sudoers",
            "sudoers.d",
            "doas.conf",
            "doas.d",
            "polkit-1/rules.d",
            "polkit-1/localauthority",
        ],
    ),
    ("keys of the SSH server", &["ssh/ssh_host_*_key", "ssh/sshd_config", "ssh/sshd_config.d", "dropbear"]),
    (
        "private keys of TLS",
        &[
            "ssl/private",
            "pki/tls/private",
            "pki/*/private",
            "pki/entitlement",
            "pki/consumer",
            "letsencrypt",
            "acme*",
            "easy-rsa",
            "stunnel",
        ],
    ),
    (
        "keys of networks and tunnels",
        &[
            "NetworkManager",
            "netplan",
            "wpa_supplicant*",
            "iwd",
            "netctl",
            "connman",
            "hostapd",
            "ppp",
            "chatscripts",
            "wireguard",
            "openvpn",
            "openconnect",
            "vpnc",
            "ipsec.secrets",
            "ipsec.d",
            "swanctl",
            "strongswan*",
            "tinc",
            "nebula",
            "xl2tpd",
            "cloudflared",
            "systemd/network",
            "network/interfaces",
            "network/interfaces.d",
            "sysconfig/network-scripts/keys-*",
            "snmp",
            "freeradius",
            "raddb",
        ],
    ),
    (
        "credentials of directory services",
        &[
            "krb5.keytab",
            "*.keytab",
            "krb5kdc",
            "sssd",
            "samba/private",
            "nslcd.conf",
            "*ldap.secret",
            "ldap/slapd.d",
            "openldap/slapd*",
            "ipa",
            "sasldb2",
            "munge",
        ],
    ),
    (
        "keys of disks, passwords of shares",
        &[
            "fstab",
            "crypttab",
            "cryptsetup-keys.d",
            "luks-keys",
            "keys",
            "zfs/keys",
            "*credentials*",
            "davfs2/secrets",
            "rclone*",
            "restic",
            "borgmatic",
        ],
    ),
    (
        "credentials of clusters and clouds",
        &[
            "docker",
            "containers/auth.json",
            "kubernetes",
            "rancher",
            "k0s",
            "cni/net.d",
            "crio",
            "etcd",
            "ceph",
            "cloud",
            "waagent*",
            "boto.cfg",
            "consul.d",
            "nomad.d",
            "vault*",
            "teleport*",
        ],
    ),
    (
        "what identifies the host, and what systemd keeps secret",
        &["machine-id", "hostid", "credstore", "credstore.encrypted"],
    ),
    (
        "passwords of databases and mail",
        &[
            "mysql/debian.cnf",
            "postgresql/*/*/pg_*.conf",
            "pgbouncer",
            "redis",
            "exim4/passwd.client",
            "exim4/dkim",
            "postfix/sasl*",
            "postfix/*passw*",
            "msmtprc",
            "ssmtp",
            "nullmailer",
            "dovecot/private",
            "dovecot/users",
            "opendkim",
            "fetchmailrc",
        ],
    ),
    (
        "tokens of services that manage or watch the host",
        &[
            "gitlab",
            "gitlab-runner",
            "buildkite-agent",
            "puppet*",
            "salt",
            "chef",
            "ansible",
            "zabbix",
            "datadog-agent",
            "telegraf",
            "grafana",
            "newrelic*",
            "filebeat",
        ],
    ),
    (
        "tokens of package registries, signing keys",
        &[
            "apt/auth.conf",
            "apt/auth.conf.d",
            "zypp/credentials.d",
            "pacman.d/gnupg",
            "nix/netrc",
            "nix/*secret*",
            "nixos",
            "secrets",
            "agenix",
        ],
    ),
    (
        "no program reads it, and people put passwords in it",
        &["environment", "crontab", "cron.*", "anacrontab", "audit"],
    ),
];

/// What may be read below an /etc, and what may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Etc {
    /// Files and directories that may be read, with all that is in them.
    pub(super) shown: Vec<PathBuf>,
    /// Those that are there and may not.
    pub(super) secret: Vec<PathBuf>,
}

impl Etc {
    /// Looks at `root`/etc; paths are told as they are below the real root.
    pub(super) fn look(root: &Path) -> Self {
        let secrets = Secrets::sorted();
        let mut walk = Walk { folder: root.join("etc"), left: MAX_ENTRIES, secret: Vec::new(), secrets };
        let shown = match walk.enter(Path::new(""), MAX_DEPTH) {
            Seen::Whole => vec![PathBuf::new()],
            Seen::Part(shown) => shown,
            Seen::Nothing => Vec::new(),
        };
        let absolute = |paths: Vec<PathBuf>| {
            let mut paths: Vec<PathBuf> =
                paths.into_iter().map(|path| Path::new("/etc").join(path).components().collect()).collect();
            paths.sort();
            paths
        };
        Self { shown: absolute(shown), secret: absolute(walk.secret) }
    }
}

struct Walk {
    folder: PathBuf,
    left: usize,
    secret: Vec<PathBuf>,
    secrets: Secrets,
}

/// What of a directory may be read.
enum Seen {
    Whole,
    Part(Vec<PathBuf>),
    Nothing,
}

impl Walk {
    fn enter(&mut self, path: &Path, depth: usize) -> Seen {
        let Ok(entries) = self.folder.join(path).read_dir() else { return Seen::Nothing };
        let (mut shown, mut whole) = (Vec::new(), depth > 0);
        for entry in entries.flatten() {
            // What a link leads to has a rule of its own, or none; a rule on the link itself would be one on that. Most of /etc is
            // links, and a list says so.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                continue;
            }
            let at = path.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            if self.left == 0 || depth == 0 {
                whole = false;
                break;
            }
            self.left -= 1;
            let open = if metadata.is_dir() { 0o005 } else { 0o004 };
            if metadata.mode() & open != open || self.secrets.have(&at) {
                self.secret.push(at);
                whole = false;
                continue;
            }
            if !metadata.is_dir() {
                // A socket or a pipe is no configuration.
                match metadata.is_file() {
                    true => shown.push(at),
                    false => whole = false,
                }
                continue;
            }
            match self.enter(&at, depth - 1) {
                Seen::Whole => shown.push(at),
                Seen::Part(parts) => {
                    shown.extend(parts);
                    whole = false;
                }
                Seen::Nothing => whole = false,
            }
        }
        if whole { Seen::Whole } else { Seen::Part(shown) }
    }
}

/// The patterns of what is secret, by the number of their parts: a /etc has thousands of paths, and this is asked of each.
struct Secrets(Vec<Vec<Vec<&'static str>>>);

impl Secrets {
    fn sorted() -> Self {
        let mut sorted: Vec<Vec<Vec<&str>>> = Vec::new();
        for pattern in SECRET.iter().flat_map(|(_, patterns)| patterns.iter()) {
            let parts: Vec<&str> = pattern.split('/').collect();
            sorted.resize_with(sorted.len().max(parts.len() + 1), Vec::new);
            sorted[parts.len()].push(parts);
        }
        Self(sorted)
    }

    /// Whether a path below /etc is named as secret.
    fn have(&self, path: &Path) -> bool {
        let parts: Vec<&[u8]> = path.components().map(|part| part.as_os_str().as_encoded_bytes()).collect();
        let fits =
            |pattern: &Vec<&str>| pattern.iter().zip(&parts).all(|(wanted, part)| matches(wanted, part));
        self.0.get(parts.len()).is_some_and(|patterns| patterns.iter().any(fits))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn everything_but_secrets_is_shown_and_whole_where_it_can_be() {
        let root = tempfile::tempdir().expect("a folder");
        for (path, mode) in [
            ("java-99-openjdk/security/java.security", 0o644),
            ("chromium.d/default-flags", 0o644),
            ("ssh/ssh_config", 0o644),
            ("ssh/ssh_host_rsa_key", 0o644),
            ("ssh/ssh_host_rsa_key.pub", 0o644),
            ("shadow", 0o644),
            ("shadow-", 0o640),
            ("tool/conf", 0o644),
            ("tool/token", 0o600),
            ("pki/ca-trust/private/key", 0o644),
            ("pki/ca-trust/extracted/bundle", 0o644),
            ("machine-id", 0o444),
        ] {
            let path = root.path().join("etc").join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(&path, "").expect("room");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        }
        symlink("/elsewhere", root.path().join("etc/localtime")).expect("a link");
        let closed = root.path().join("etc/closed");
        fs::create_dir(&closed).expect("a folder");
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("ours");
        let etc = Etc::look(root.path());
        let shown = |paths: &[PathBuf]| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(&etc.shown),
            "/etc/chromium.d /etc/java-99-openjdk /etc/pki/ca-trust/extracted /etc/ssh/ssh_config \
             /etc/ssh/ssh_host_rsa_key.pub /etc/tool/conf"
        );
        assert_eq!(
            shown(&etc.secret),
            "/etc/closed /etc/machine-id /etc/pki/ca-trust/private /etc/shadow /etc/shadow- /etc/ssh/ssh_host_rsa_key \
             /etc/tool/token"
        );
        assert_eq!(Etc::look(&root.path().join("absent")), Etc::default());
    }

    #[test]
    fn of_this_host_programs_find_their_settings_and_no_secrets() {
        let etc = Etc::look(Path::new("/"));
        let may_read = |path: &str| etc.shown.iter().any(|shown| Path::new(path).starts_with(shown));
        for secret in ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/machine-id", "/etc/ssl/private/x"]
        {
            assert!(!may_read(secret), "{secret}");
        }
        for needed in ["/etc/passwd", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ld.so.cache"] {
            assert!(may_read(needed) || !Path::new(needed).is_file(), "{needed}");
        }
    }
}
