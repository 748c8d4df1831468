//! Cards and tunnels in network namespaces that the tests make. Nothing leaves the machine.

mod limits;
mod reach;
mod release;
mod support;
