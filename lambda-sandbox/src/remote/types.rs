//! The binary forms of the types that cross a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Fault;
use super::interned::intern;
use super::wire::{Reader, Wire, structures, variants};
use crate::{
    Answer, Bind, BlockIo, Capability, Defence, EndedBy, Error, Event, Executed, Exit, Finished,
    FunctionError, InitFailure, InitReport, Interface, Isolation, Limits, Link, LiveUsage, LogLine,
    Network, NewInterface, NewLink, Outcome, Pressure, ResourceLimits, Response, Root,
    ShutdownReason, SmallFile, Stall, Stream, StreamPart, Swept, TimeLimits, Usage,
};

structures! {
    Root { directory, layers, image, binds, links, files, folders }
    Bind { source, target }
    Link { path, points_to }
    SmallFile { path, content, executable }
    Interface { name, address, prefix_length, gateway }
    NewInterface { link, address, prefix_length, gateway }
    Limits {
        memory_bytes, cpus, init_cpus, processes_max, files_max, scratch_bytes, scratch_files_max,
        block_io, cpu_weight, processors, resources, output_bytes_max, payload_bytes_max,
        stream_bytes_max, stream_bytes_per_second, isolation_min,
    }
    BlockIo {
        read_bytes_per_second, write_bytes_per_second, read_operations_per_second,
        write_operations_per_second,
    }
    ResourceLimits {
        stack_bytes, file_bytes, address_space_bytes, locked_bytes, processor_seconds,
    }
    TimeLimits {
        init, restore, settle, shutdown_runtime, shutdown_internal, shutdown_external, run,
        run_processor,
    }
    Isolation { in_force, absent }
    Swept { removed }
    Usage { duration, memory_peak_bytes, cpu_time }
    InitReport { duration, usage, is_restored }
    Response { body, content_type, streamed }
    FunctionError { error_type, body }
    Outcome { answer, usage }
    Finished { exit, ended_by, out_of_memory, usage }
    Executed { exit, stdout, stderr, truncated }
    LiveUsage { cpu_time, memory_bytes, memory_peak_bytes, processes, out_of_memory_kills }
    Pressure { cpu, memory, io }
    Stall { some, full }
    LogLine { at, stream, text, open }
}

variants! {
    Network { 0 => Loopback, 1 => Interface(interface), 2 => Made(interface) }
    NewLink { 0 => Veth { name, bridge }, 1 => Macvlan { parent } }
    Exit { 0 => Status(status), 1 => Signal(signal) }
    Answer {
        0 => Success(response), 1 => FunctionError(error), 2 => TimedOut, 3 => OutOfMemory,
        4 => Exited(exit),
    }
    InitFailure {
        0 => Reported(error), 1 => Exited(exit), 2 => OutOfMemory, 3 => TimedOut(limit),
        4 => Failed(error), 5 => RestoreReported(error), 6 => RestoreTimedOut(limit),
    }
    EndedBy {
        0 => Program, 1 => Signal, 2 => Memory, 3 => KernelMemory, 4 => WallTime,
        5 => ProcessorTime, 6 => Output, 7 => Host,
    }
    ShutdownReason { 0 => Spindown, 1 => Timeout, 2 => Failure }
    Stream { 0 => Stdout, 1 => Stderr }
    StreamPart { 0 => Begin { content_type }, 1 => Data(bytes) }
    Event {
        0 => Started, 1 => OutOfMemory(kills), 2 => LimitReached(limit), 3 => Idle, 4 => Busy,
        5 => Ended(exit),
    }
    Capability {
        0 => Programs, 1 => RuntimeApi, 2 => Freeze, 3 => MemoryLimit, 4 => CpuLimit,
        5 => CpuWeight, 6 => Processors, 7 => ResourceLimits, 8 => ProcessLimit,
        9 => ScratchLimit, 10 => BlockIoLimit, 11 => Pressure, 12 => MemoryPeak, 13 => CpuTime,
        14 => PrivateNetwork, 15 => ReadOnlyRoot, 16 => ExternalExtensions, 17 => Run,
        18 => Stdin, 19 => Exec, 20 => Snapshots,
    }
    Defence {
        0 => Processes, 1 => FileSystem, 2 => Network, 3 => FilteredNetwork, 4 => Ipc, 5 => User,
        6 => Capabilities, 7 => SystemCalls, 8 => Keyring, 9 => Descriptors,
        10 => KernelInterfaces, 11 => Memory, 12 => KernelMemory, 13 => Cpu, 14 => ProcessCount,
        15 => Scratch, 16 => BlockIo, 17 => FileAccess, 18 => Scope, 19 => Time, 20 => Kernel,
    }
}

impl Wire for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_ipv6().write(out);
        match self {
            Self::V4(address) => out.extend(address.octets()),
            Self::V6(address) => out.extend(address.octets()),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(if bool::read(from)? {
            Self::V6(Ipv6Addr::from(from.array::<16>()?))
        } else {
            Self::V4(Ipv4Addr::from(from.array::<4>()?))
        })
    }
}

/// The fixed texts of errors.
impl Wire for &'static str {
    fn write(&self, out: &mut Vec<u8>) {
        (*self).to_owned().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        String::read(from).map(|text| intern(&text))
    }
}

variants! {
    Error {
        0 => Invalid { setting, value, reason },
        1 => Unavailable { what, why, remedy },
        2 => Failed { step, path, source },
        3 => Exhausted { what, max },
        4 => Ended,
    }
}

/// The number of the operating system, or the text.
impl Wire for std::io::Error {
    fn write(&self, out: &mut Vec<u8>) {
        self.raw_os_error().write(out);
        if self.raw_os_error().is_none() {
            self.to_string().write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match Option::read(from)? {
            Some(number) => Self::from_raw_os_error(number),
            None => Self::other(String::read(from)?),
        })
    }
}
