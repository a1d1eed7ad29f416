//! Which network an agent is in, and where in it Toka is: in one of its own, in one that it shares, or, where this host gives no user a network
//! namespace, in the host's, kept to the number of one port.

use std::net::SocketAddrV4;

use toka_core::model::{OWN_ADDRESS, shared_address};
use toka_core::{Confinement, NetworkAccess, SandboxMode};

use super::CompileInput;
use crate::host::Namespaces;

/// The version of Landlock from which on it denies ports of TCP (landlock(7)).
const LANDLOCK_WITH_PORTS: u32 = 4;

/// What is in force of a network where there is no namespace, in words.
pub(crate) const KEPT_TO_A_PORT: &str = "in the host's network, as this host refuses network namespaces: it may connect over TCP to port 7411 of any address, and may not listen";

/// The network that follows from what is declared: models take a loopback interface.
pub(super) fn network_of(confinement: &Confinement) -> NetworkAccess {
    match (&confinement.network.value, confinement.has_model_port()) {
        (NetworkAccess::None, true) => NetworkAccess::Loopback,
        (declared, _) => declared.clone(),
    }
}

/// Whether the agent is in the host's network and may connect to the port alone at which Toka is. A filter and Landlock see to that. One that
/// declares a network to listen in has nothing of that.
pub(super) fn is_kept_to_a_port(input: &CompileInput<'_>) -> bool {
    let CompileInput { confinement, host, .. } = input;
    confinement.sandbox.value == SandboxMode::On
        && confinement.has_port()
        && matches!(confinement.network.value, NetworkAccess::None | NetworkAccess::Allow(_))
        && host.mount_namespace == Namespaces::Refused
        && host.landlock_abi >= LANDLOCK_WITH_PORTS
}

/// Where the agent reaches models and hosts.
pub(super) fn port_address(input: &CompileInput<'_>) -> SocketAddrV4 {
    let network = network_of(input.confinement);
    let is_alone = network.is_private()
        && network != NetworkAccess::Project
        && input.confinement.sandbox.value == SandboxMode::On
        && !is_kept_to_a_port(input);
    if is_alone { OWN_ADDRESS } else { shared_address(input.project, input.agent) }
}

/// Where Toka stands for hosts: in a network of the agent's own alone.
pub(super) fn stand_ins(input: &CompileInput<'_>) -> Vec<SocketAddrV4> {
    if port_address(input) != OWN_ADDRESS {
        return Vec::new();
    }
    input.confinement.network.value.stand_ins().into_iter().map(|(address, _)| address).collect()
}
