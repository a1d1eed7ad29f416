//! The thread on which all calls of this process are made, and the ports that it serves.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use toka_core::ModelName;
use toka_http::{AddressRule, Client, NetworkReach, Options, Pool, Trust, Versions, Way};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::port::PortState;
use crate::{CallLog, Providers, server};

/// Connections to one provider that wait for the next request, and how long.
const POOL: Pool = Pool::Kept { most: 64, idle: Duration::from_secs(60) };
/// Asks providers, on a thread of its own.
#[derive(Debug)]
pub struct Gateway {
    runtime: Handle,
}

/// What is served at the port of an agent.
#[derive(Debug)]
pub struct Port {
    /// The socket; it must not block.
    pub listener: TcpListener,
    /// The key that is good here.
    pub key: String,
    /// The models that the agent may ask; empty for all.
    pub declared: Vec<ModelName>,
    /// Whom it asks.
    pub providers: Arc<Providers>,
    /// Where its calls are recorded.
    pub log: Arc<dyn CallLog>,
}

/// Ends the service of a port when it is dropped, with everything that is in flight there.
#[derive(Debug)]
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// That of this process, started for the first who asks.
    ///
    /// # Errors
    /// When the process may have no further thread.
    pub fn of_this_process() -> Result<&'static Self, String> {
        static STARTED: OnceLock<Result<Gateway, String>> = OnceLock::new();
        STARTED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("make the runtime of the gateway: {error}"))?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("gateway".to_owned())
            // It lives as long as the process.
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .map_err(|error| format!("start the thread of the gateway: {error}"))?;
        Ok(Self { runtime: handle })
    }

    /// Serves a port until what is returned is dropped.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn serve(&self, port: Port) -> Result<Serving, String> {
        let Port { listener, key, declared, providers, log } = port;
        let _entered = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| format!("watch the port of the agent: {error}"))?;
        let client = Client::new(Options {
            way: Way::new(NetworkReach::Shared),
            rule: AddressRule::NoMetadata,
            trust: Trust::Host,
            versions: Versions::Http2Too,
            pool: POOL,
        });
        let state = Arc::new(PortState::new(key, declared, providers, log, client));
        Ok(Serving(self.runtime.spawn(server::serve(listener, state))))
    }
}
