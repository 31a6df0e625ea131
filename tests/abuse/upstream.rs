//! A strict HTTP/1.1 server: the reference that says what a proxy really sent it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub target: String,
    #[allow(dead_code, reason = "told when a test fails")]
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The server, and what it was sent so far.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    /// Requests that two programs could read in two ways; bytes and why.
    faults: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self { address, received: Arc::default(), faults: Arc::default() };
        let serving = upstream.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        upstream
    }

    /// Requests whose target begins so, or any that names it.
    pub fn received(&self, target: &str) -> Vec<Received> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|request| request.target == target).cloned().collect()
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            match self.request(&mut stream, &mut bytes) {
                Ok(true) => {}
                Ok(false) | Err(Stop::Ended) => return,
                Err(Stop::Fault(fault)) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    return self.faults.lock().unwrap().push(format!("{fault}: {text:?}"));
                }
            }
        }
    }

    /// Takes one request and answers it; `false` if there is none.
    fn request(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<bool, Stop> {
        let head = loop {
            if let Some(end) = find(bytes, b"\r\n\r\n") {
                break end;
            }
            if more(stream, bytes)? == 0 {
                return if bytes.is_empty() { Ok(false) } else { Err(Stop::Ended) };
            }
        };
        let (method, target, fields) = parse_head(&bytes[..head])?;
        let values = |name: &str| {
            fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        let mut at = head + 4;
        let body =
            match (values("transfer-encoding").as_slice(), values("content-length").as_slice()) {
                ([], []) => Vec::new(),
                (["chunked"], []) => chunked(stream, bytes, &mut at)?,
                ([], [length]) if length.bytes().all(|b| b.is_ascii_digit()) => {
                    let length: usize = length.parse().map_err(|_| Stop::fault("a length"))?;
                    while bytes.len() < at + length {
                        if more(stream, bytes)? == 0 {
                            return Err(Stop::Ended);
                        }
                    }
                    at += length;
                    bytes[at - length..at].to_vec()
                }
                _ => return Err(Stop::fault("an ambiguous length")),
            };
        if values("host").len() != 1 {
            return Err(Stop::fault("not one host"));
        }
        bytes.drain(..at);
        let answer: &[u8] = match method.as_str() {
            "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup",
        };
        self.received.lock().unwrap().push(Received { target, fields, body });
        stream.write_all(answer).map_err(|_| Stop::Ended)?;
        Ok(true)
    }
}

enum Stop {
    Ended,
    Fault(&'static str),
}

impl Stop {
    fn fault(what: &'static str) -> Self {
        Self::Fault(what)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<usize, Stop> {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk)?;
    bytes.extend_from_slice(&chunk[..count]);
    Ok(count)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

type Head = (String, String, Vec<(String, String)>);

/// RFC 9112 §3 and §5, without anything that a parser may forgive.
fn parse_head(head: &[u8]) -> Result<Head, Stop> {
    let text = std::str::from_utf8(head).map_err(|_| Stop::fault("no UTF-8"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Stop::fault("no request line"));
    };
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let visible = |text: &str| text.bytes().all(|b| b > 0x20 && b != 0x7f);
    if !token(method) || !visible(target) || !(target.starts_with('/') || target == "*") {
        return Err(Stop::fault("no request line"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Stop::fault("no field"))?;
        let value = value.trim_matches([' ', '\t']);
        if !token(name) || value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err(Stop::fault("no field"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok((method.to_owned(), target.to_owned(), fields))
}

/// RFC 9112 §7.1, without extensions.
fn chunked(stream: &mut TcpStream, bytes: &mut Vec<u8>, at: &mut usize) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    loop {
        let line = line(stream, bytes, at)?;
        if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Stop::fault("no chunk size"));
        }
        let size = usize::from_str_radix(&line, 16).map_err(|_| Stop::fault("a chunk size"))?;
        if size == 0 {
            break;
        }
        while bytes.len() < *at + size + 2 {
            if more(stream, bytes)? == 0 {
                return Err(Stop::Ended);
            }
        }
        body.extend_from_slice(&bytes[*at..*at + size]);
        *at += size;
        if bytes[*at..*at + 2] != *b"\r\n" {
            return Err(Stop::fault("no end of a chunk"));
        }
        *at += 2;
    }
    // Trailers; an upstream may read them as header fields.
    while let line = line(stream, bytes, at)?
        && !line.is_empty()
    {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if ["transfer-encoding", "content-length", "host", "connection"].contains(&name.as_str()) {
            return Err(Stop::fault("framing in a trailer"));
        }
    }
    Ok(body)
}

fn line(stream: &mut TcpStream, bytes: &mut Vec<u8>, at: &mut usize) -> Result<String, Stop> {
    loop {
        if let Some(end) = find(&bytes[*at..], b"\r\n") {
            let line = String::from_utf8_lossy(&bytes[*at..*at + end]).into_owned();
            *at += end + 2;
            return Ok(line);
        }
        if more(stream, bytes)? == 0 {
            return Err(Stop::Ended);
        }
    }
}
