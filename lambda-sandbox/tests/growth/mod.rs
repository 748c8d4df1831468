//! Ways to make the kernel use memory for a program. Each uses as much as it can, with many
//! processes if the descriptors of one are not enough, and then stays.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

type Kind = (&'static str, fn());

pub(crate) const KINDS: &[Kind] = &[
    ("heap", || in_processes(2, |_| fill_mapping(libc::MAP_PRIVATE))),
    ("shared mappings", || in_processes(2, |_| fill_mapping(libc::MAP_SHARED))),
    ("files of the scratch space", || {
        in_processes(2, |number| fill_file(&format!("/tmp/{number}")))
    }),
    ("memory files", || {
        in_processes(2, |_| {
            let file = call(libc::SYS_memfd_create, [c"x".as_ptr().addr(), 0, 0, 0, 0]);
            fill_file(&format!("/proc/self/fd/{file}"))
        })
    }),
    ("shared memory", || {
        in_processes(2, |_| {
            count(400, |_| {
                let segment = call(libc::SYS_shmget, [0, 1 << 20, 0o1600, 0, 0]);
                let at = call(libc::SYS_shmat, [segment as usize, 0, 0, 0, 0]);
                segment >= 0 && at > 0 && touch(at as usize, 1 << 20)
            })
        })
    }),
    ("huge pages", || {
        in_processes(2, |_| {
            count(64, |_| {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
                let at = map(2 << 20, flags);
                at > 0 && touch(at as usize, 2 << 20)
            })
        })
    }),
    ("pipes", || {
        in_processes(16, |_| {
            count(500, |_| {
                let mut ends = [0_i32; 2];
                call(
                    libc::SYS_pipe2,
                    [ends.as_mut_ptr().addr(), libc::O_NONBLOCK as usize, 0, 0, 0],
                ) == 0
                    && write(ends[1], 65_536)
            })
        })
    }),
    ("unix streams", || {
        in_processes(16, |_| {
            count(400, |_| {
                UnixStream::pair().is_ok_and(|(one, other)| {
                    let filled =
                        one.set_nonblocking(true).is_ok() && write(one.into_raw_fd(), 1 << 20);
                    let _stays = other.into_raw_fd();
                    filled
                })
            })
        })
    }),
    ("unix datagrams", || {
        in_processes(16, |_| {
            count(400, |_| {
                UnixDatagram::pair().is_ok_and(|(one, other)| {
                    let filled =
                        one.set_nonblocking(true).is_ok() && write(one.into_raw_fd(), 1 << 20);
                    let _stays = other.into_raw_fd();
                    filled
                })
            })
        })
    }),
    ("TCP", || in_processes(16, |_| fill_tcp())),
    ("TCP connections that nobody takes", || {
        in_processes(16, |_| fill_unaccepted("127.0.0.1:0", 900, |_| true))
    }),
    ("TCP connections of IPv6 that nobody takes", || {
        in_processes(16, |_| fill_unaccepted("[::1]:0", 900, |_| true))
    }),
    ("TCP connections that nobody takes and whose maker is gone", || {
        in_processes(8, |_| {
            fill_unaccepted("127.0.0.1:0", 1_000_000, |stream| {
                call(libc::SYS_close, [stream as usize, 0, 0, 0, 0]) == 0
            })
        })
    }),
    ("TCP connections with the buffers of their listener", || {
        in_processes(4, |_| {
            fill_unaccepted("127.0.0.1:0", 900, |stream| {
                larger(stream);
                write(stream, 4 << 20)
            })
        })
    }),
    ("connections of MPTCP that nobody takes", || {
        in_processes(8, |_| count(900, |_| call(libc::SYS_socket, [2, 1, 262, 0, 0]) >= 0))
    }),
    ("many small TCP connections", || {
        in_processes(48, |_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            let address = listener.local_addr().expect("told");
            count(450, |_| {
                let Ok(one) = TcpStream::connect(address) else { return false };
                let Ok((other, _)) = listener.accept() else { return false };
                [one, other].into_iter().all(|stream| write(stream.into_raw_fd(), 1))
            })
        })
    }),
    ("TCP connections that have ended", || {
        in_processes(8, |_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            let address = listener.local_addr().expect("told");
            count(1_000_000, |_| TcpStream::connect(address).is_ok() && listener.accept().is_ok())
        })
    }),
    ("unix streams that nobody takes", || {
        in_processes(16, |process| {
            let path = format!("/tmp/{process}");
            let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
            call(libc::SYS_listen, [listener.as_raw_fd() as usize, 65_535, 0, 0, 0]);
            let _stays = listener.into_raw_fd();
            count(900, |_| {
                UnixStream::connect(&path).is_ok_and(|stream| {
                    stream.set_nonblocking(true).is_ok() && write(stream.into_raw_fd(), 1 << 20)
                })
            })
        })
    }),
    ("UDP", || {
        in_processes(16, |_| {
            count(900, |_| {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return false };
                larger(socket.as_raw_fd());
                let to = socket.local_addr().expect("told");
                let sent = socket.set_nonblocking(true).is_ok()
                    && (0..140).take_while(|_| socket.send_to(&[7; 60_000], to).is_ok()).count()
                        > 0;
                let _stays = socket.into_raw_fd();
                sent
            })
        })
    }),
    ("UDP that is held back", || {
        in_processes(64, |_| {
            count(900, |_| {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return false };
                larger(socket.as_raw_fd());
                let connected = socket.connect("127.0.0.1:9").is_ok();
                let (text, more) = ([7_u8; 60_000], libc::MSG_MORE as usize);
                let file = socket.into_raw_fd() as usize;
                connected
                    && call(libc::SYS_sendto, [file, text.as_ptr().addr(), text.len(), more, 0]) > 0
            })
        })
    }),
    ("netlink", || {
        in_processes(8, |_| {
            count(900, |_| {
                let socket = call(libc::SYS_socket, [16, 3, 0, 0, 0]);
                // A request for all links, with an acknowledgement.
                let request = [20_u32, 0x0305_0012, 1, 0, 0];
                socket >= 0
                    && (0..200)
                        .take_while(|_| {
                            let (at, flags) =
                                (request.as_ptr().addr(), libc::MSG_DONTWAIT as usize);
                            call(libc::SYS_sendto, [socket as usize, at, 20, flags, 0]) > 0
                        })
                        .count()
                        > 0
            })
        })
    }),
    ("locks of ranges", || in_processes(4, |number| lock_ranges(number, libc::F_SETLK))),
    ("locks of ranges by processes that are gone", || {
        in_processes(4, |number| {
            // The child shares our descriptor table, and so its locks are ours.
            let flags = (libc::CLONE_FILES | libc::SIGCHLD) as usize;
            let child = call(libc::SYS_clone, [flags, 0, 0, 0, 0]);
            if child == 0 {
                lock_ranges(number, libc::F_SETLK);
                // SAFETY: ends this process alone, which runs nothing else.
                unsafe { libc::_exit(0) };
            }
            call(libc::SYS_wait4, [child as usize, 0, 0, 0, 0]);
            usize::from(child > 0)
        })
    }),
    ("locks of ranges by open file", || {
        in_processes(4, |number| lock_ranges(number, libc::F_OFD_SETLK))
    }),
    ("locks of files", || {
        in_processes(64, |_| {
            count(900, |_| {
                File::open("/usr/bin/env").is_ok_and(|file| {
                    let locked =
                        call(libc::SYS_flock, [file.as_raw_fd() as usize, 1, 0, 0, 0]) == 0;
                    let _stays = file.into_raw_fd();
                    locked
                })
            })
        })
    }),
    ("filters on sockets", || in_processes(8, |_| count(900, |_| filter_socket()))),
    ("filters of system calls", || {
        in_processes(32, |_| {
            count(200, |_| {
                let program = large_filter();
                call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0]);
                let program =
                    Program { length: program.len() as u16, instructions: program.as_ptr() };
                call(libc::SYS_seccomp, [1, 0, (&raw const program).addr(), 0, 0]) == 0
            })
        })
    }),
    ("multicast groups", || {
        in_processes(32, |number| {
            count(900, |socket| {
                let file = call(libc::SYS_socket, [10, 2, 0, 0, 0]) as usize;
                (0..2000)
                    .take_while(|group: &u32| {
                        let mut wanted = [0_u8; 20];
                        wanted[..2].copy_from_slice(&[0xFF, 5]);
                        wanted[4..6].copy_from_slice(&(number as u16).to_be_bytes());
                        wanted[6..8].copy_from_slice(&(socket as u16).to_be_bytes());
                        wanted[12..16].copy_from_slice(&group.to_be_bytes());
                        wanted[16] = 1;
                        call(libc::SYS_setsockopt, [file, 41, 20, wanted.as_ptr().addr(), 20]) == 0
                    })
                    .count()
                    > 0
            })
        })
    }),
    ("page tables", || {
        in_processes(2, |_| {
            let bytes = 1 << 40;
            let at = map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
            call(libc::SYS_madvise, [at as usize, bytes, libc::MADV_NOHUGEPAGE as usize, 0, 0]);
            count(bytes >> 21, |place| {
                // SAFETY: within the mapping, which is readable and stays.
                unsafe { std::ptr::read_volatile((at as usize + (place << 21)) as *const u8) == 0 }
            })
        })
    }),
    ("mappings", || {
        in_processes(16, |_| {
            count(65_000, |place| {
                let protection = 1 + place % 2;
                call(libc::SYS_mmap, [0, 4096, protection, 0x22, usize::MAX]) > 0
            })
        })
    }),
    ("watched files of epoll", || {
        in_processes(16, |_| {
            let pipes: Vec<i32> = (0..400)
                .map(|_| {
                    let mut ends = [0_i32; 2];
                    call(libc::SYS_pipe2, [ends.as_mut_ptr().addr(), 0, 0, 0, 0]);
                    ends[0]
                })
                .collect();
            count(150, |_| {
                let epoll = call(libc::SYS_epoll_create1, [0; 5]) as usize;
                pipes
                    .iter()
                    .take_while(|pipe| {
                        let event = [1_u32, 0, 0];
                        call(
                            libc::SYS_epoll_ctl,
                            [epoll, 1, **pipe as usize, event.as_ptr().addr(), 0],
                        ) == 0
                    })
                    .count()
                    > 0
            })
        })
    }),
    ("watches of inotify", || {
        in_processes(1, |_| {
            let inotify = call(libc::SYS_inotify_init1, [0; 5]) as usize;
            count(200_000, |number| {
                let path = CString::new(format!("/tmp/{number}")).expect("a path");
                call(libc::SYS_mkdir, [path.as_ptr().addr(), 0o700, 0, 0, 0]) == 0
                    && call(
                        libc::SYS_inotify_add_watch,
                        [inotify, path.as_ptr().addr(), 0xFFF, 0, 0],
                    ) >= 0
            })
        })
    }),
    ("timers", || {
        in_processes(8, |_| {
            count(1_000_000, |_| {
                let mut event = [0_i32; 16];
                event[3] = libc::SIGEV_NONE;
                let mut timer = 0_i32;
                call(
                    libc::SYS_timer_create,
                    [1, event.as_ptr().addr(), (&raw mut timer).addr(), 0, 0],
                ) == 0
            })
        })
    }),
    ("timers as files", || {
        in_processes(200, |_| {
            count(900, |_| {
                let file = call(libc::SYS_timerfd_create, [1, 0, 0, 0, 0]);
                let at = [0_u64, 0, 3600, 0];
                file >= 0
                    && call(libc::SYS_timerfd_settime, [file as usize, 0, at.as_ptr().addr(), 0, 0])
                        == 0
            })
        })
    }),
    ("events as files", || {
        in_processes(200, |_| count(900, |_| call(libc::SYS_eventfd2, [0; 5]) >= 0))
    }),
    ("signals as files", || {
        in_processes(200, |_| {
            count(900, |_| {
                let mask = [u64::MAX; 1];
                call(libc::SYS_signalfd4, [usize::MAX, mask.as_ptr().addr(), 8, 0, 0]) >= 0
            })
        })
    }),
    ("signals that wait", || {
        in_processes(8, |_| {
            let blocked = [u64::MAX; 1];
            call(libc::SYS_rt_sigprocmask, [0, blocked.as_ptr().addr(), 0, 8, 0]);
            let own = call(libc::SYS_getpid, [0; 5]) as usize;
            let mut information = [0_i32; 32];
            (information[0], information[2]) = (40, -1);
            count(1_000_000, |_| {
                call(libc::SYS_rt_sigqueueinfo, [own, 40, information.as_ptr().addr(), 0, 0]) == 0
            })
        })
    }),
    ("semaphores", || {
        in_processes(1, |_| {
            count(32_000, |_| call(libc::SYS_semget, [0, 32_000, 0o1600, 0, 0]) >= 0)
        })
    }),
    ("names that are not there", || {
        in_processes(4, |process| {
            count(500_000, |number| {
                let path = CString::new(format!("/usr/none-{process}-{number}")).expect("a path");
                call(libc::SYS_access, [path.as_ptr().addr(), 0, 0, 0, 0]) < 0
            })
        })
    }),
    ("empty files", || {
        in_processes(4, |process| {
            count(60_000, |number| File::create(format!("/tmp/{process}-{number}")).is_ok())
        })
    }),
    ("processes", || in_processes(1000, |_| 1)),
    ("descriptors in flight", || in_processes(16, |_| count(200, |_| send_descriptors()))),
    ("rules of landlock", || {
        in_processes(32, |_| {
            count(900, |_| {
                let handled = [1_u64; 1];
                let made =
                    call(libc::SYS_landlock_create_ruleset, [handled.as_ptr().addr(), 8, 0, 0, 0]);
                let root =
                    call(libc::SYS_open, [c"/usr".as_ptr().addr(), libc::O_PATH as usize, 0, 0, 0]);
                let rule = [1_u64, root as u64];
                made >= 0
                    && call(
                        libc::SYS_landlock_add_rule,
                        [made as usize, 1, rule.as_ptr().addr(), 0, 0],
                    ) == 0
            })
        })
    }),
    ("options of sockets", || {
        in_processes(64, |_| {
            count(900, |_| {
                let socket = call(libc::SYS_socket, [10, 2, 0, 0, 0]);
                let options = [0_u8; 2040];
                socket >= 0
                    && call(
                        libc::SYS_setsockopt,
                        [socket as usize, 41, 59, options.as_ptr().addr(), 2040],
                    ) == 0
            })
        })
    }),
];

fn call(number: libc::c_long, a: [usize; 5]) -> libc::c_long {
    // SAFETY: what is called above takes numbers, null pointers, or addresses of live memory of the
    // length passed.
    unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], 0) }
}

/// Returns how often `work` succeeded before it was refused.
fn count(most: usize, mut work: impl FnMut(usize) -> bool) -> usize {
    (0..most).take_while(|number| work(*number)).count()
}

/// Does the work in several processes, which then stay. Prints the sum. Returns when none has ended
/// its work for 5 s, on a slow machine after at most 30 s without any.
fn in_processes(processes: usize, work: impl Fn(usize) -> usize) {
    let (mut done, told) = std::io::pipe().expect("made");
    for number in 0..processes {
        // SAFETY: the child is alone on its copy of this memory, and ends without returning.
        if unsafe { libc::fork() } == 0 {
            let kept = work(number);
            drop((&told).write_all(&(kept as u64).to_ne_bytes()));
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
    }
    drop(told);
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut all = 0_u64;
        let mut one = [0; 8];
        while std::io::Read::read_exact(&mut done, &mut one).is_ok() {
            all += u64::from_ne_bytes(one);
            println!("kept {all}");
            let _ = send.send(());
        }
    });
    let mut wait = Duration::from_secs(30);
    while receive.recv_timeout(wait).is_ok() {
        wait = Duration::from_secs(5);
    }
}

fn touch(at: usize, bytes: usize) -> bool {
    for place in (at..at + bytes).step_by(4096) {
        // SAFETY: within a mapping of the caller's that is writable and stays.
        unsafe { std::ptr::write_volatile(place as *mut u8, 1) };
    }
    true
}

fn map(bytes: usize, flags: i32) -> libc::c_long {
    // SAFETY: a new mapping touches no memory that is in use.
    unsafe { libc::syscall(libc::SYS_mmap, 0, bytes, 3, flags, -1, 0) }
}

fn fill_mapping(flags: i32) -> usize {
    count(400, |_| {
        let at = map(1 << 20, flags | libc::MAP_ANONYMOUS);
        at > 0 && touch(at as usize, 1 << 20)
    })
}

fn fill_file(path: &str) -> usize {
    let Ok(mut file) = File::create(path) else { return 0 };
    count(400, |_| file.write_all(&[7; 1 << 20]).is_ok())
}

/// Writes as much as is accepted, in pieces of at most `bytes`.
fn write(file: i32, bytes: usize) -> bool {
    let text = vec![7_u8; bytes.min(1 << 16)];
    let mut written = 0;
    while written < bytes {
        match call(libc::SYS_write, [file as usize, text.as_ptr().addr(), text.len(), 0, 0]) {
            part @ 1.. => written += part as usize,
            _ => break,
        }
    }
    written > 0
}

/// Asks for large socket buffers.
fn larger(socket: i32) {
    let bytes = [4_u32 << 20; 1];
    for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        call(libc::SYS_setsockopt, [socket as usize, 1, option as usize, bytes.as_ptr().addr(), 4]);
    }
}

fn fill_tcp() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    larger(listener.as_raw_fd());
    let address = listener.local_addr().expect("told");
    count(450, |_| {
        let Ok(one) = TcpStream::connect(address) else { return false };
        let Ok((other, _)) = listener.accept() else { return false };
        [one, other].into_iter().all(|stream| {
            larger(stream.as_raw_fd());
            stream.set_nonblocking(true).is_ok() && write(stream.into_raw_fd(), 8 << 20)
        })
    })
}

/// Connects to listeners that accept nothing, and fills each connection, until `more` returns
/// false.
fn fill_unaccepted(at: &str, most: usize, more: impl Fn(i32) -> bool) -> usize {
    let listeners: Vec<_> = (0..40)
        .filter_map(|_| {
            let listener = TcpListener::bind(at).ok()?;
            let file = listener.as_raw_fd() as usize;
            larger(listener.as_raw_fd());
            // SO_RCVLOWAT makes the kernel enlarge the receive buffer.
            let least = [4_u32 << 20; 1];
            call(libc::SYS_setsockopt, [file, 1, 18, least.as_ptr().addr(), 4]);
            call(libc::SYS_listen, [file, 65_535, 0, 0, 0]);
            let address = listener.local_addr().ok()?;
            let _stays = listener.into_raw_fd();
            Some(address)
        })
        .collect();
    if listeners.is_empty() {
        return 0;
    }
    count(most, |number| {
        let address = &listeners[number % listeners.len()];
        // A connection that a full queue keeps waiting counts as refused.
        TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok_and(|stream| {
            let written = stream.set_nonblocking(true).is_ok();
            let file = stream.into_raw_fd();
            written && write(file, 1 << 16) && more(file)
        })
    })
}

fn lock_ranges(process: usize, command: i32) -> usize {
    let files: Vec<i32> = (0..100)
        .filter_map(|number| File::create(format!("/tmp/{process}-{number}")).ok())
        .map(std::os::fd::IntoRawFd::into_raw_fd)
        .collect();
    count(400_000, |number| {
        // SAFETY: all zero is a valid `flock`.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        // From the end to the start, so that each is inserted at the head of the kernel's list.
        lock.l_start = 10_000 - 2 * i64::try_from(number / files.len()).expect("few");
        lock.l_len = 1;
        let file = files[number % files.len()] as usize;
        call(libc::SYS_fcntl, [file, command as usize, (&raw const lock).addr(), 0, 0]) == 0
    })
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const libc::sock_filter,
}

fn large_filter() -> Vec<libc::sock_filter> {
    let divide =
        |number: u32| libc::sock_filter { code: 0x34, jt: 0, jf: 0, k: 0x1234_5678 + number };
    let mut program: Vec<_> = (0..4000_u32).map(divide).collect();
    program.push(libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7FFF_0000 });
    program
}

fn filter_socket() -> bool {
    let program = large_filter();
    let program = Program { length: program.len() as u16, instructions: program.as_ptr() };
    let socket = call(libc::SYS_socket, [2, 2, 0, 0, 0]) as usize;
    let address = (&raw const program).addr();
    call(libc::SYS_setsockopt, [socket, 1, libc::SO_ATTACH_FILTER as usize, address, 16]) == 0
}

/// Sends a file to a socket that nobody reads, and closes it here.
fn send_descriptors() -> bool {
    let Ok((one, other)) = UnixDatagram::pair() else { return false };
    let byte = 0_u8;
    let sent = count(60, |_| {
        let Ok(file) = File::open("/usr/bin/env") else { return false };
        let part = [(&raw const byte).addr(), 1];
        let control = [20_u64, 1 | 1 << 32, file.as_raw_fd() as u64];
        let message = [0, 0, part.as_ptr().addr(), 1, control.as_ptr().addr(), 24, 0];
        let flags = libc::MSG_DONTWAIT as usize;
        call(libc::SYS_sendmsg, [one.as_raw_fd() as usize, message.as_ptr().addr(), flags, 0, 0])
            > 0
    });
    let _stay = (one.into_raw_fd(), other.into_raw_fd());
    sent > 0
}
