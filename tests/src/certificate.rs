//! Certificates of a test's own, made with openssl(1): who signs them, and who is signed for.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Who signs certificates; trusted by those who are told so.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    own: Certificate,
}

/// A certificate and its key, as files.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub chain: PathBuf,
    /// Its key, likewise.
    pub key: PathBuf,
}

impl Certificate {
    fn named(folder: &Path, name: &str) -> Self {
        Self { chain: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }
}

impl Authority {
    /// One that keeps its files in `folder`, under its name.
    ///
    /// # Panics
    /// Without openssl(1).
    pub fn new(folder: &Path, name: &str) -> Self {
        let own = Certificate::named(folder, name);
        make(&own, &["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"]);
        Self { folder: folder.to_owned(), own }
    }

    /// Its own certificate: whoever trusts that trusts all that it signs.
    pub fn certificate(&self) -> &Path {
        &self.own.chain
    }

    /// A certificate for a server of this name, such as `IP:127.0.0.1` or `DNS:localhost`.
    ///
    /// # Panics
    /// Without openssl(1).
    pub fn sign(&self, name: &str) -> Certificate {
        let signed =
            Certificate::named(&self.folder, &name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        let (names, chain, key) = (format!("subjectAltName={name}"), &self.own.chain, &self.own.key);
        let (chain, key) = (chain.to_string_lossy(), key.to_string_lossy());
        let extensions = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
        make(&signed, &[&["-subj", "/CN=server", "-CA", &chain, "-CAkey", &key], &extensions[..]].concat());
        signed
    }
}

fn make(certificate: &Certificate, options: &[&str]) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-days",
            "2",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(options)
        .arg("-keyout")
        .arg(&certificate.key)
        .arg("-out")
        .arg(&certificate.chain)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
