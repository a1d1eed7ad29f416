//! The name in the first message of a TLS client (RFC 6066, 3; RFC 8446, 4.1.2): who a tunnel really is for.

use std::io::Cursor;

use tokio_rustls::rustls::server::Acceptor;

/// Most bytes in which the name is looked for: one record of TLS (RFC 8446, 5.1), and its head.
const MOST: usize = 16 * 1024 + 5;

/// Reads the first bytes that a client sends, as they come.
#[derive(Default)]
pub struct HelloReader {
    acceptor: Acceptor,
    read: usize,
}

/// What is known of the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// It has not come to its end.
    More,
    /// It is no TLS.
    NoTls,
    /// It names this host, or none.
    Names(Option<String>),
}

impl std::fmt::Debug for HelloReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HelloReader").field("read", &self.read).finish_non_exhaustive()
    }
}

impl HelloReader {
    /// Takes more bytes. What was decided once is not asked again.
    pub fn feed(&mut self, bytes: &[u8]) -> Hello {
        // A handshake begins with this byte (RFC 8446, 5.1).
        if self.read == 0 && bytes.first().is_some_and(|first| *first != 0x16) {
            return Hello::NoTls;
        }
        self.read += bytes.len();
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() {
            match self.acceptor.read_tls(&mut cursor) {
                Ok(0) | Err(_) => return Hello::NoTls,
                Ok(_) => {}
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Hello::Names(name);
                }
                Err(_) => return Hello::NoTls,
            }
        }
        if self.read > MOST { Hello::NoTls } else { Hello::More }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

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

    #[test]
    fn the_name_is_read_wherever_the_bytes_are_cut() {
        let bytes = hello("a.example.org");
        for cut in [1, 5, 6, bytes.len() / 2, bytes.len() - 1] {
            let mut reader = HelloReader::default();
            assert_eq!(reader.feed(&bytes[..cut]), Hello::More, "{cut}");
            assert_eq!(reader.feed(&bytes[cut..]), Hello::Names(Some("a.example.org".to_owned())));
        }
        assert_eq!(HelloReader::default().feed(&hello("192.0.2.1")), Hello::Names(None));
    }

    #[test]
    fn what_is_no_tls_is_none() {
        for bytes in
            [&b"SSH-2.0-x\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", &[0x16; 40_000]]
        {
            assert_eq!(HelloReader::default().feed(bytes), Hello::NoTls);
        }
    }
}
