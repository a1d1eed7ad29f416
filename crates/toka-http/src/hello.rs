//! The name in the first message of a TLS client (RFC 6066, 3; RFC 8446, 4.1.2): who a tunnel really is for.

use std::io::Cursor;

use tokio_rustls::rustls::server::Acceptor;

/// Most bytes in which the name is looked for: more than any client sends.
const MOST: usize = 64 * 1024;

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
    /// It begins as TLS does, and cannot be read: a server might read it otherwise.
    Broken,
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
        // The kinds of records (RFC 8446, 5.1), of which a handshake is 22.
        match bytes.first() {
            Some(first) if self.read == 0 && !(20..=23).contains(first) => return Hello::NoTls,
            Some(first) if self.read == 0 && *first != 22 => return Hello::Broken,
            _ => {}
        }
        self.read += bytes.len();
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() {
            match self.acceptor.read_tls(&mut cursor) {
                Ok(0) | Err(_) => return Hello::Broken,
                Ok(_) => {}
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Hello::Names(name);
                }
                Err(_) => return Hello::Broken,
            }
        }
        if self.read > MOST { Hello::Broken } else { Hello::More }
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
        for bytes in [&b"SSH-2.0-x\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(HelloReader::default().feed(bytes), Hello::NoTls);
        }
    }

    #[test]
    fn what_begins_as_tls_and_cannot_be_read_is_not_taken_for_something_else() {
        let warning = b"\x15\x03\x01\x00\x02\x01\x5a";
        for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], warning, &[0x16; 40_000]] {
            assert_eq!(HelloReader::default().feed(bytes), Hello::Broken);
        }
        // A message that goes on and on, record after record.
        let mut reader = HelloReader::default();
        let first = [&b"\x16\x03\x01\x40\x00\x01\x03\xff\xff"[..], &[0; 16 * 1024 - 4]].concat();
        let more = [&b"\x16\x03\x01\x40\x00"[..], &[0; 16 * 1024]].concat();
        let all = std::iter::once(&first).chain(std::iter::repeat_n(&more, 8));
        let last = all.map(|record| reader.feed(record)).find(|hello| *hello != Hello::More);
        assert_eq!(last, Some(Hello::Broken));
    }
}
