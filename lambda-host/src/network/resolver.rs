//! The DNS server of this machine, as sandboxes can reach it.

use std::fs;
use std::net::Ipv4Addr;

/// Returns the first DNS server in the machine's `/etc/resolv.conf` that a sandbox can reach by
/// NAT: one of IPv4 that is not on the loopback. If there is only a local stub of systemd-resolved,
/// returns the first server that the stub asks. `None`: functions have no DNS.
#[must_use]
pub fn host_resolver() -> Option<Ipv4Addr> {
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .into_iter()
        .find_map(|path| reachable(&fs::read_to_string(path).ok()?))
}

fn reachable(resolv_conf: &str) -> Option<Ipv4Addr> {
    resolv_conf.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let server = (words.next() == Some("nameserver")).then(|| words.next())??;
        server.parse().ok().filter(|it: &Ipv4Addr| !it.is_loopback() && !it.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_loopback_and_of_ipv6_are_passed_over() {
        let check = |text: &str, expected: Option<[u8; 4]>| {
            assert_eq!(reachable(text), expected.map(Ipv4Addr::from), "{text}");
        };
        check("nameserver 10.0.0.2\nnameserver 10.0.0.3\n", Some([10, 0, 0, 2]));
        check(
            "search a b\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9",
            Some([9; 4]),
        );
        check("# nameserver 10.0.0.2\nnameserver\nnameserver 127.0.0.1 x\n", None);
    }
}
