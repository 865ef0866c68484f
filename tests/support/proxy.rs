//! A corporate network's proxy: CONNECT but to the port of plain HTTP, which it takes in absolute
//! form; names lead to the origin, and it may want a log-in.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What it does with who has not logged in.
#[derive(Clone, Copy, Debug)]
pub enum Login {
    /// `Proxy-Authorization` must be this.
    Basic(&'static str),
    /// What only a domain's member can do.
    Domain,
    /// Everybody is let in.
    Nobody,
    /// A cache of packages: everybody, with plain HTTP only.
    Cache,
    /// Everybody, with `CONNECT` only.
    Tunnels,
}

#[derive(Debug)]
pub struct Proxy {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    /// Ends with the test's process.
    pub fn new(login: Login, origin: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("proxy");
        let addr = listener.local_addr().expect("address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let over = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(client, login, origin, &seen));
            }
        });
        Self { addr, asked, over }
    }

    /// From here on nobody is at its address.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        while TcpStream::connect(self.addr).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Targets that it let through.
    pub fn targets(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    client: TcpStream,
    login: Login,
    origin: SocketAddr,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                text => head.push(text.to_owned()),
            }
        }
        let first = head.first().cloned().unwrap_or_default();
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let said = head.iter().find_map(|l| l.strip_prefix("Proxy-Authorization: "));
        let (let_in, challenge) = match login {
            Login::Basic(wanted) => (said == Some(wanted), "Basic realm=\"corp\""),
            Login::Domain => (false, "NTLM"),
            Login::Nobody | Login::Cache | Login::Tunnels => (true, ""),
        };
        if !let_in {
            write!(
                client,
                "HTTP/1.1 407 Proxy Authentication Required\r\n\
                 Proxy-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n"
            )?;
            continue;
        }
        let method = first.split(' ').next().unwrap_or_default();
        let tunnel = method == "CONNECT";
        let refused = match login {
            Login::Cache => tunnel,
            Login::Tunnels => !tunnel,
            Login::Basic(_) | Login::Domain | Login::Nobody => tunnel && target.ends_with(":80"),
        };
        if refused {
            client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        asked.lock().unwrap().push(target.clone());
        let mut server = TcpStream::connect(target.parse().unwrap_or(origin))?;
        match target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
            Some((_, path)) => {
                write!(server, "{method} /{path} HTTP/1.1\r\n")?;
                for line in head.iter().skip(1).filter(|line| !line.starts_with("Proxy-")) {
                    write!(server, "{line}\r\n")?;
                }
                server.write_all(b"\r\n")?;
            }
            None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?,
        }
        let (up, down) = (server.try_clone()?, client.try_clone()?);
        let back = std::thread::spawn(move || copy(server, down));
        copy(reader, up)?;
        return back.join().unwrap_or(Ok(()));
    }
}

fn copy(mut from: impl Read, mut to: TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    copied.map(drop)
}
