//! ureq over connections of ours: its own would take one with itself for another program's answer. And without
//! its look-ups of names, each of which takes a thread: where none can be had it panics.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use crate::near;

/// Where nothing limits a wait. Something does: all our calls have an end.
const LONGEST: Duration = Duration::from_secs(60);

pub(super) fn agent(patience: Duration) -> Agent {
    // No proxy: the variables of this environment may point at our own edge. No redirects: ours don't.
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build();
    Agent::with_parts(config, Near, Numbers)
}

/// What we ask is written in numbers.
#[derive(Debug)]
struct Numbers;

impl Resolver for Numbers {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let addr = uri.authority().and_then(|place| place.as_str().parse().ok());
        let mut one = self.empty();
        one.push(addr.ok_or(Error::HostNotFound)?);
        Ok(one)
    }
}

#[derive(Debug)]
struct Near;

#[derive(Debug)]
struct Line {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Connector for Near {
    type Out = Line;

    fn connect(&self, asked: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Line>, Error> {
        let Some(addr) = asked.addrs.iter().next() else { return Err(Error::HostNotFound) };
        let stream = near::connect_timeout(addr, left(&asked.timeout)?)
            .map_err(|e| told(e, &asked.timeout))?;
        stream.set_nodelay(asked.config.no_delay())?;
        let config = asked.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Line { stream, buffers }))
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        limited(self.stream.set_write_timeout(Some(left(&timeout)?)))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|e| told(e, &timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        limited(self.stream.set_read_timeout(Some(left(&timeout)?)))?;
        let read = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|e| told(e, &timeout))?,
            }
        };
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// Nothing was asked, so nothing is to be said.
    fn is_open(&mut self) -> bool {
        let silent = |stream: &TcpStream| {
            let said = stream.peek(&mut [0]);
            said.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
        };
        self.stream.set_nonblocking(true).is_ok()
            && silent(&self.stream)
            && self.stream.set_nonblocking(false).is_ok()
    }
}

fn left(timeout: &NextTimeout) -> Result<Duration, Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(timeout.not_zero().map_or(LONGEST, |left| *left))
}

/// macOS refuses a limit for a connection whose other side has closed: reading it says so.
fn limited(set: io::Result<()>) -> io::Result<()> {
    set.or_else(|e| if e.kind() == ErrorKind::InvalidInput { Ok(()) } else { Err(e) })
}

fn told(error: io::Error, timeout: &NextTimeout) -> Error {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        return Error::Timeout(timeout.reason);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Reads a request's head; nothing: the client has gone.
    fn asked(stream: &mut BufReader<TcpStream>) -> usize {
        let mut lines = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                return lines;
            }
            lines += 1;
        }
    }

    #[test]
    fn questions_share_a_connection_and_silence_has_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                for answer in [
                    "Content-Length: 2\r\n\r\nhi",
                    "Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n",
                ] {
                    assert!(asked(&mut stream) > 0);
                    write!(stream.get_mut(), "HTTP/1.1 200 OK\r\n{answer}").unwrap();
                }
                assert!(asked(&mut stream) > 0);
                assert_eq!(asked(&mut stream), 0, "gone without an answer");
            });
            let agent = agent(Duration::from_secs(2));
            for expected in ["hi", "ho"] {
                let mut answer = agent.get(&url).call().unwrap();
                assert_eq!(answer.body_mut().read_to_string().unwrap(), expected);
            }
            let late = agent.get(&url).call().unwrap_err();
            assert!(matches!(late, Error::Timeout(_)), "{late:?}");
            drop(agent);
        });
        drop(listener);
        let refused = agent(Duration::from_secs(2)).get(&url).call().unwrap_err();
        let kind = if let Error::Io(e) = &refused { Some(e.kind()) } else { None };
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{refused:?}");
    }
}
