//! The rate of a sandbox beside one of the same card that floods the network.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lambda_network::{Rates, Tunnel};

use crate::traffic::{SERVER, connect};
use crate::world::within;

type Flood = fn(&AtomicBool);

/// Prints the part of its rate that a sandbox keeps while another one of the tunnel floods. The
/// sandbox sends 100 Mbit/s and 500 round trips per second, which it reaches alone.
pub(crate) fn measure(name: &str, tunnel: &Tunnel, seconds: u64) {
    let (flooding, neighbour) =
        (tunnel.attach(Rates::default()).unwrap(), tunnel.attach(Rates::default()).unwrap());
    let floods: [(&str, Flood); 5] = [
        ("nothing", |_| ()),
        ("four bulk TCP uploads", bulk),
        ("four bulk TCP downloads", downloads),
        ("UDP packets of 64 bytes", datagrams),
        ("new connections", connections),
    ];
    for (flood, work) in floods {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, namespace) = (Arc::clone(&stop), flooding.namespace());
        let flood_thread = thread::spawn(move || within(&namespace, || work(&ended)));
        thread::sleep(Duration::from_millis(200));
        let (rate, trips) = keep_rate(&neighbour.namespace(), Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        flood_thread.join().unwrap();
        println!("| {name}, beside {flood} | {:.0} % | {:.0} % |", rate * 100.0, trips * 100.0);
    }
}

/// Returns the kept parts of the rate of bytes and of the rate of round trips.
fn keep_rate(namespace: &OwnedFd, span: Duration) -> (f64, f64) {
    let sent = within(namespace, || {
        let mut stream = connect(b'u');
        let piece = vec![0; PIECE];
        let passed = paced(BYTES_PER_SECOND / PIECE_BYTES, span, || {
            stream.write_all(&piece).unwrap();
        });
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        passed
    });
    let trips = within(namespace, || {
        let mut stream = connect(b'r');
        paced(TRIPS_PER_SECOND, span, || {
            stream.write_all(b".").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        })
    });
    (sent, trips)
}

/// Calls `work` at a rate for a time. Returns the part of the calls that were in time. One that is
/// late is not made up for.
fn paced(per_second: f64, span: Duration, mut work: impl FnMut()) -> f64 {
    let (begun, mut count) = (Instant::now(), 0.0);
    while begun.elapsed() < span {
        let due = begun + Duration::from_secs_f64(count / per_second);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        work();
        count += 1.0;
    }
    count / (begun.elapsed().as_secs_f64() * per_second)
}

fn bulk(stop: &AtomicBool) {
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut stream = connect(b'u');
            scope.spawn(move || {
                let piece = vec![0; 128 << 10];
                while !stop.load(Ordering::Relaxed) && stream.write_all(&piece).is_ok() {}
            });
        }
    });
}

fn downloads(stop: &AtomicBool) {
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut stream = connect(b'd');
            scope.spawn(move || {
                let mut piece = vec![0; 128 << 10];
                while !stop.load(Ordering::Relaxed) && stream.read(&mut piece).is_ok() {}
            });
        }
    });
}

fn datagrams(stop: &AtomicBool) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("10.0.0.1:9").unwrap();
    while !stop.load(Ordering::Relaxed) {
        // The server's host answers that nobody listens, and a full queue refuses.
        drop(socket.send(&[0; 36]));
    }
}

fn connections(stop: &AtomicBool) {
    let to = SERVER.parse().unwrap();
    let mut held = std::collections::VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        held.extend(TcpStream::connect_timeout(&to, Duration::from_millis(50)).ok());
        if held.len() > 500 {
            held.pop_front();
        }
    }
}

const PIECE: usize = 12_500;
const PIECE_BYTES: f64 = 12_500.0;
/// 100 Mbit/s.
const BYTES_PER_SECOND: f64 = 12_500_000.0;
const TRIPS_PER_SECOND: f64 = 500.0;
