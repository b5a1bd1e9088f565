//! HTTP/1.1 byte by byte: what the test writes is what goes over the wire, and what comes back is kept as it was.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::wait::DEADLINE;

/// One message, request or response: its first line, its headers in order, its body without transfer coding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    /// Names as they were sent, values trimmed.
    pub headers: Vec<(String, String)>,
    /// After chunked decoding, where it was chunked.
    pub body: Vec<u8>,
}

impl Message {
    /// A response that another program has received, such as `curl --include`.
    ///
    /// # Errors
    /// Where it is cut short or not HTTP.
    pub fn parse(response: &[u8]) -> std::io::Result<Self> {
        let mut reader = response;
        let mut message = read_head(&mut reader)?;
        // The program has undone the transfer coding, so that the rest is the body whatever the headers say of it.
        message.body = reader.to_vec();
        Ok(message)
    }

    /// The status code of a response.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {}", self.start))
    }

    /// The path and query of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A connection that is kept open between requests.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn try_open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Reads one response; `to_head` says that it answers a HEAD request, so that no body follows.
    ///
    /// # Errors
    /// Where the connection ends or the response is not HTTP.
    pub fn receive(&mut self, method: &str) -> std::io::Result<Message> {
        let mut message = read_head(&mut self.reader)?;
        let status = message.status();
        let bodiless = method == "HEAD" || status == 304 || status == 204 || status < 200;
        if !bodiless {
            message.body = read_body(&mut self.reader, &message, Length::UntilClose)?;
        }
        Ok(message)
    }

    /// The socket, for shutting down one side or setting options.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }
}

/// `GET path` on a connection of its own.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Message {
    request(addr, "GET", path, &[])
}

/// Like [`get`], for a server that may be down right now.
///
/// # Errors
/// As the system gives them.
pub fn try_get(addr: SocketAddr, path: &str) -> std::io::Result<Message> {
    try_request(addr, "GET", path, &[])
}

/// A request without a body and with these headers besides Host and Connection.
#[track_caller]
pub fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Message {
    try_request(addr, method, path, headers)
        .unwrap_or_else(|error| panic!("{method} {path} from {addr}: {error}"))
}

/// Like [`request`], for a server that may be down right now.
///
/// # Errors
/// As the system gives them.
pub fn try_request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Message> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut connection = Connection::try_open(addr)?;
    connection.send(text)?;
    connection.receive(method)
}

/// What a body without a stated length means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// In a response: all until the connection closes.
    UntilClose,
    /// In a request: there is none.
    Nothing,
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> std::io::Result<Message> {
    let start = read_line(reader)?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(Message { start, headers, body: Vec::new() });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

pub(crate) fn read_body(
    reader: &mut impl BufRead,
    head: &Message,
    unstated: Length,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = read_line(reader)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid(&line))?;
            let wanted = body.len() as u64 + size;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            if body.len() as u64 != wanted {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            read_line(reader)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    if let Some(length) = head.header("content-length") {
        let length: u64 = length.parse().map_err(|_| invalid(length))?;
        reader.by_ref().take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    } else if unstated == Length::UntilClose {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(line: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not HTTP: {line:?}"))
}
