//! The headers of a TCP packet. Pure.

/// Lengths of a TCP packet's headers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpHeaders {
    pub(crate) ip: usize,
    pub(crate) total: usize,
}

/// Returns the lengths of the headers of an unfragmented IPv4 packet with TCP; `None` for any other
/// packet.
pub(crate) fn tcp_headers(packet: &[u8]) -> Option<TcpHeaders> {
    let ip = usize::from(packet.first()? & 15) * 4;
    let whole = packet.first()? >> 4 == 4 && ip >= 20 && *packet.get(9)? == 6;
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3FFF;
    let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
    let fits = tcp >= 20 && ip + tcp <= packet.len();
    (whole && fragment == 0 && fits).then_some(TcpHeaders { ip, total: ip + tcp })
}
