//! Traffic through a network, to one server: bulk in both directions, round trips, connections.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use benches::median;

use crate::world::within;

/// The address of the server in the VPC.
pub(crate) const SERVER: &str = "10.0.0.1:5201";

pub(crate) struct Passed {
    up: f64,
    down: f64,
    round_trip: f64,
    connections: f64,
}

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, down, round_trip, connections } = self;
        write!(formatter, "{up:.2} | {down:.2} | {round_trip:.0} | {connections:.0}")
    }
}

/// Serves connections. The first byte chooses: `u` reads all, `d` writes until the client closes,
/// any other byte starts an echo.
pub(crate) fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            if stream.read_exact(&mut piece[..1]).is_err() {
                return;
            }
            match piece[0] {
                b'u' => {
                    while let Ok(1..) = stream.read(&mut piece) {}
                    // Tells the sender that everything has arrived.
                    drop(stream.write_all(b"!"));
                }
                b'd' => while stream.write_all(&piece).is_ok() {},
                _ => {
                    while let Ok(length @ 1..) = stream.read(&mut piece) {
                        if stream.write_all(&piece[..length]).is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}

pub(crate) fn pass(namespace: &OwnedFd, seconds: u64) -> Passed {
    let span = Duration::from_secs(seconds);
    within(namespace, || Passed {
        up: up(span),
        down: down(span),
        round_trip: round_trip(),
        connections: connections(span),
    })
}

pub(crate) fn connect(what: u8) -> TcpStream {
    let mut stream = TcpStream::connect(SERVER).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[what]).unwrap();
    stream
}

fn up(span: Duration) -> f64 {
    let mut stream = connect(b'u');
    let (begun, piece, mut sent) = (Instant::now(), vec![0; PIECE], 0_u64);
    while begun.elapsed() < span {
        stream.write_all(&piece).unwrap();
        sent += piece.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    gigabits(sent, begun)
}

fn down(span: Duration) -> f64 {
    let mut stream = connect(b'd');
    let (begun, mut piece, mut taken) = (Instant::now(), vec![0; PIECE], 0_u64);
    while begun.elapsed() < span {
        taken += stream.read(&mut piece).unwrap() as u64;
    }
    gigabits(taken, begun)
}

#[expect(clippy::cast_precision_loss, reason = "a count for a table")]
fn gigabits(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 * 8e-9 / begun.elapsed().as_secs_f64()
}

/// Returns the median time of 2,000 round trips of one byte, in microseconds.
fn round_trip() -> f64 {
    let mut stream = connect(b'r');
    let mut times: Vec<_> = (0..2000)
        .map(|_| {
            let begun = Instant::now();
            stream.write_all(b".").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&mut times)
}

/// Returns the number of connections per second, one after another, each used for one round trip.
fn connections(span: Duration) -> f64 {
    let (begun, mut count) = (Instant::now(), 0.0);
    while begun.elapsed() < span {
        let mut stream = connect(b'r');
        stream.write_all(b".").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        count += 1.0;
    }
    count / begun.elapsed().as_secs_f64()
}

const PIECE: usize = 128 << 10;
