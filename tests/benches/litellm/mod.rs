//! LiteLLM's proxy in front of the same provider.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take until it answers: it reads a great many modules first.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A proxy that runs.
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// Starts the program that `TOKA_LITELLM` names; `None` where it names none.
    pub(crate) fn start(provider: SocketAddr, folder: &Path) -> Option<Self> {
        let program = std::env::var_os("TOKA_LITELLM")?;
        let config = folder.join("litellm.yaml");
        let of = |model: &str| {
            format!(
                "- model_name: {model}\n  litellm_params: {{model: openai/{model}, api_base: \"http://{provider}/v1\", api_key: none}}\n"
            )
        };
        let models = ["first", "plain"].map(of).concat();
        let key = crate::KEY;
        let text = format!(
            "model_list:\n{models}general_settings: {{master_key: {key}}}\nlitellm_settings: {{telemetry: false}}\n"
        );
        std::fs::write(&config, text).expect("room");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port");
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--num_workers", "1"])
            // What it knows of models it would else ask the Internet for.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program that TOKA_LITELLM names");
        let peer = Self { child, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < STARTS_WITHIN, "LiteLLM did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(peer)
    }

    /// MiB that it holds.
    pub(crate) fn resident(&self) -> f64 {
        crate::resident_of(&self.child.id().to_string())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
