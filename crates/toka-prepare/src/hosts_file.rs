//! The names of hosts that an agent sees: those of its own machine, and those that it may reach, each at the address at which Toka stands
//! for it (hosts(5)). So programs that know no proxy reach them too.

use std::net::IpAddr;

use toka_core::NetworkAccess;

/// The file name, in the folder of the agent's sockets; it is shown at /etc/hosts.
pub(crate) use toka_sandbox::plan::HOSTS as FILE;

/// Whether an address is one of those at which Toka stands for hosts.
fn is_stand_in(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[..3] == [127, 64, 0])
}

/// The file for an agent with this network; `own` is the host's file, of which the names of the loopback interface stay. `None` where Toka
/// stands for no host.
pub(crate) fn of(network: &NetworkAccess, own: &str) -> Option<String> {
    let hosts = network.stand_ins();
    if hosts.is_empty() {
        return None;
    }
    // A name that is listed leads to the host that is meant, whatever the machine has it lead to.
    let is_listed = |word: &str| hosts.iter().any(|(_, name)| name.eq_ignore_ascii_case(word));
    let is_loopback = |line: &&str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        address.is_some_and(|address| address.is_loopback() && !is_stand_in(address)) && !words.any(is_listed)
    };
    let mut text = String::from(
        "# The hosts that this agent may reach: Toka takes the connections at these addresses.\n",
    );
    let mut lines: Vec<String> = own.lines().filter(is_loopback).map(str::to_owned).collect();
    if !lines.iter().any(|line| line.split_whitespace().any(|word| word == "localhost")) {
        lines.insert(0, "127.0.0.1 localhost".to_owned());
    }
    lines.extend(hosts.iter().map(|(address, name)| format!("{} {name}", address.ip())));
    lines.dedup();
    for line in lines {
        text += &line;
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_reached_have_addresses_and_those_of_the_machine_stay() {
        let network = NetworkAccess::Allow(
            ["a.example:443", "a.example:80", "*.b.example:443", "10.0.0.1:80", "c.example:22"]
                .map(String::from)
                .to_vec(),
        );
        let own = "127.0.0.1 localhost\n127.0.1.1 desk # mine\n10.1.1.1 internal\n::1 ip6-localhost\n# a note\n127.0.0.1 A.example\n127.64.0.9 x\n";
        let text = of(&network, own).expect("two names");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "127.0.0.1 localhost",
                "127.0.1.1 desk # mine",
                "::1 ip6-localhost",
                "127.64.0.1 a.example",
                "127.64.0.2 c.example"
            ]
        );
        assert!(of(&network, "").expect("the same").contains("127.0.0.1 localhost\n"));
        assert_eq!(of(&NetworkAccess::Loopback, own), None);
    }
}
