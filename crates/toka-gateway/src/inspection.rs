//! What an agent sends to a host, looked at on its way as far as it can be read: a TLS connection has to name the host that was asked for, and
//! what is not encrypted holds no secret of others.

use std::fmt;
use std::sync::Arc;

use toka_http::{Hello, HelloReader};

use crate::known_secrets::{Receiver, Search};
use crate::secret_alarm::SecretAlarm;

/// Looks at what goes to one host.
pub(crate) struct Inspection {
    alarm: Arc<SecretAlarm>,
    /// `host:port`.
    to: String,
    /// The host that the first message of TLS has to name; `None` for one that is written as an address.
    host: Option<String>,
    stage: Stage,
    search: Search,
}

enum Stage {
    /// Whether it is TLS is not known yet.
    Hello(Box<HelloReader>, Vec<u8>),
    /// It can be read.
    Plain,
    /// It is encrypted.
    Encrypted,
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Of a tunnel: `by_name` says whether the host was asked for by a name.
    pub(crate) fn of_tunnel(alarm: &Arc<SecretAlarm>, host: &str, at: u16, by_name: bool) -> Self {
        let host_to_name = by_name.then(|| host.trim_end_matches('.').to_ascii_lowercase());
        Self {
            host: host_to_name,
            stage: Stage::Hello(Box::default(), Vec::new()),
            ..Self::of_request(alarm, host, at)
        }
    }

    /// Of a request that can be read.
    pub(crate) fn of_request(alarm: &Arc<SecretAlarm>, host: &str, at: u16) -> Self {
        let search = alarm.search(Receiver::Host);
        Self {
            alarm: Arc::clone(alarm),
            to: format!("{}:{at}", host.to_ascii_lowercase()),
            host: None,
            stage: Stage::Plain,
            search,
        }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// Why the connection is not to go on.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.stage {
            Stage::Encrypted => {}
            Stage::Plain => self.search(bytes),
            Stage::Hello(reader, seen) => {
                let hello = reader.feed(bytes);
                seen.extend_from_slice(bytes);
                match hello {
                    Hello::More => {}
                    Hello::NoTls => {
                        let seen = std::mem::take(seen);
                        self.stage = Stage::Plain;
                        self.search(&seen);
                    }
                    Hello::Broken => self.encrypted(Err("its TLS begins in a way that cannot be read"))?,
                    Hello::Names(name) => self.encrypted(Ok(name))?,
                }
            }
        }
        Ok(())
    }

    fn search(&mut self, bytes: &[u8]) {
        let found = self.search.feed(bytes);
        self.alarm.tell(&found, &self.to);
    }

    /// Decides on a connection that is encrypted, by the name in its first message. One to a host that is written as an address has no name.
    fn encrypted(&mut self, name: Result<Option<String>, &str>) -> Result<(), String> {
        self.stage = Stage::Encrypted;
        let Some(host) = &self.host else { return Ok(()) };
        match name? {
            Some(name) if name.trim_end_matches('.').eq_ignore_ascii_case(host) => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(255).collect();
                Err(format!("its TLS is for {name}, and not for the host that was asked for"))
            }
            None => Err("its TLS names no host, and the host was asked for by its name".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Mutex;

    use toka_core::{EventKind, Kept, Name};
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::{CallLog, KnownSecrets};

    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<EventKind>>);

    type Nothing<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

    impl CallLog for Told {
        fn record(&self, kind: EventKind) -> Nothing<Kept> {
            self.0.lock().expect("a list").push(kind);
            Box::pin(std::future::ready(Kept::OnDisk))
        }
    }

    /// Of agent `a`; agent `b` has a secret.
    fn alarm(told: &Arc<Told>) -> Arc<SecretAlarm> {
        let secrets = Arc::<KnownSecrets>::default();
        secrets.set(&Name::new("b").expect("a label"), &[("token".into(), b"hunter2-hunter2".to_vec())]);
        let (agent, log) = (Name::new("a").expect("a label"), Arc::clone(told) as Arc<dyn CallLog>);
        Arc::new(SecretAlarm::new(agent, secrets, Arc::default(), log))
    }

    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a hello");
        bytes
    }

    #[tokio::test]
    async fn a_tunnel_is_for_the_host_that_was_asked_for() {
        let alarm = alarm(&Arc::default());
        let of = |host: &str, by_name| Inspection::of_tunnel(&alarm, host, 443, by_name);
        assert_eq!(of("A.example.org", true).look(&hello("a.example.org")), Ok(()));
        let other = of("a.example.org", true).look(&hello("b.example.org"));
        assert!(other.as_ref().is_err_and(|why| why.contains("for b.example.org")), "{other:?}");
        assert_eq!(of("192.0.2.1", false).look(&hello("b.example.org")), Ok(()));
        assert_eq!(
            of("192.0.2.1", false).look(b"\x16\x03\x01\x00\x05hello"),
            Ok(()),
            "an address is no name"
        );
        for bytes in [&hello("192.0.2.1")[..], b"\x16\x03\x01\x00\x05hello", b"\x15\x03\x01\x00\x02\x01\x5a"]
        {
            assert!(of("a.example.org", true).look(bytes).is_err(), "no name, or none that can be read");
        }
        let bytes = hello("b.example.org");
        let mut cut = of("a.example.org", true);
        assert_eq!(cut.look(&bytes[..20]), Ok(()));
        assert!(cut.look(&bytes[20..]).is_err());
    }

    #[tokio::test]
    async fn a_secret_of_another_agent_is_told_where_it_can_be_read() {
        let told = Arc::<Told>::default();
        let alarm = alarm(&told);
        let mut tunnel = Inspection::of_tunnel(&alarm, "a.example.org", 22, true);
        tunnel.look(b"USER x\r\nPASS hunter2-").expect("it goes on");
        tunnel.look(b"hunter2\r\n").expect("it goes on");
        let expected =
            EventKind::SecretSent { secret: "the secret token of b".into(), to: "a.example.org:22".into() };
        assert_eq!(*told.0.lock().expect("a list"), [expected]);
    }
}
