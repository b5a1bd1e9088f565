//! The receiver of the benchmarks: takes what the agent sends, confirms it, and counts the records in it. It does as little as it can, so
//! that it is never what is measured.
//!
//!     counting_receiver http|forward
//!
//! Prints its address on the first line, then, whenever something has come, `records bytes seconds`: all records so far, the bytes they
//! took on the wire, and the wall time (since 1970) of the last confirmation. With `latency` as a second argument every record is
//! expected to hold `"sent":<microseconds since 1970>`, and the time since then is printed for each.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a tool for benchmarks"
)]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memchr_iter;
use memchr::memmem::Finder;
use rmp::decode::{read_array_len, read_bin_len, read_int, read_map_len, read_str_len};

fn main() {
    let mut args = std::env::args().skip(1);
    let forward = args.next().as_deref() == Some("forward");
    let latency = args.next().as_deref() == Some("latency");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let mut total = Total { records: 0, bytes: 0, latency };
    // One connection at a time: the agent has one, too.
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        drop(if forward { packed(stream, &mut total) } else { posts(stream, &mut total) });
    }
}

struct Total {
    records: usize,
    bytes: usize,
    latency: bool,
}

impl Total {
    fn add(&mut self, records: usize, bytes: usize, content: &[u8]) {
        self.records += records;
        self.bytes += bytes;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if self.latency {
            for at in Finder::new(b"\"sent\":").find_iter(content) {
                let digits = content[at + 7..].iter().take_while(|byte| byte.is_ascii_digit());
                let sent = digits.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
                println!("{}", now.as_micros() - sent);
            }
        } else {
            println!("{} {} {}", self.records, self.bytes, now.as_secs_f64());
        }
    }
}

fn posts(stream: TcpStream, total: &mut Total) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut body = Vec::new();
    loop {
        let (mut length, mut encoding, mut otlp) = (0, String::new(), false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-encoding:") {
                value.trim().clone_into(&mut encoding);
            }
            otlp |= line == "content-type: application/x-protobuf";
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let plain = unpacked(&encoding, &body);
        let plain = plain.as_deref().unwrap_or(&body);
        let records = if otlp { otlp_records(plain) } else { memchr_iter(b'\n', plain).count() };
        total.add(records, length, plain);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}

fn unpacked(encoding: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut plain).map(drop).unwrap(),
        "zstd" => plain = zstd::decode_all(body).unwrap(),
        _ => return None,
    }
    Some(plain)
}

/// `resource_logs.scope_logs.log_records`, by the wire format alone.
fn otlp_records(request: &[u8]) -> usize {
    fields(request, 1)
        .flat_map(|resource_logs| fields(resource_logs, 2))
        .map(|scope_logs| fields(scope_logs, 2).count())
        .sum()
}

/// The length-delimited fields with this number; these messages have no others.
fn fields(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let tag = varint(&mut message);
            assert_eq!(tag & 7, 2, "not a message");
            let length = usize::try_from(varint(&mut message)).unwrap();
            let content;
            (content, message) = message.split_at(length);
            if tag >> 3 == wanted {
                return Some(content);
            }
        }
        None
    })
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *bytes.split_off_first().unwrap();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// PackedForward and CompressedPackedForward: the records are counted by `size`, which the wire tests compare with the content.
fn packed(stream: TcpStream, total: &mut Total) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut body = Vec::new();
    loop {
        if read_array_len(&mut reader).is_err() {
            return Ok(());
        }
        let _tag = string(&mut reader)?;
        let length = read_bin_len(&mut reader).unwrap() as usize;
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let (mut id, mut records) = (Vec::new(), 0);
        for _ in 0..read_map_len(&mut reader).unwrap() {
            match string(&mut reader)?.as_slice() {
                b"chunk" => id = string(&mut reader)?,
                b"size" => records = read_int(&mut reader).unwrap(),
                _ => body = unpacked(&String::from_utf8(string(&mut reader)?).unwrap(), &body).unwrap(),
            }
        }
        total.add(records, length, &body);
        let mut ack = b"\x81\xa3ack".to_vec();
        rmp::encode::write_str(&mut ack, std::str::from_utf8(&id).unwrap()).unwrap();
        reader.get_mut().write_all(&ack)?;
    }
}

fn string(reader: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = vec![0; read_str_len(reader).unwrap() as usize];
    reader.read_exact(&mut text)?;
    Ok(text)
}
