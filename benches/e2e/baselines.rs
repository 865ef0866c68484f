//! What the product is compared with: the least that its work can cost.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::pki::{self, HOST};
use crate::platform::one_way;
use crate::role::{announce, listen};

/// A CONNECT proxy that copies, with tokio's own buffers.
pub async fn copying() -> Result<()> {
    let listener = listen()?;
    announce(&[&listener])?;
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut server = open(&mut client).await?;
            copy_bidirectional(&mut client, &mut server).await?;
            anyhow::Ok(())
        });
    }
}

/// A CONNECT proxy that splices.
pub async fn splicing() -> Result<()> {
    let listener = listen()?;
    announce(&[&listener])?;
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let server = open(&mut client).await?;
            tokio::try_join!(one_way(&client, &server), one_way(&server, &client))?;
            anyhow::Ok(())
        });
    }
}

/// TLS ends on both sides, and what is between them goes over as it is: no HTTP, no look inside.
pub async fn intercepting(dir: &Path) -> Result<()> {
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let way = |alpn: &[&[u8]]| -> Result<Way> {
        Ok(Way {
            server: pki::server(dir, alpn)?,
            client: pki::client(&[pki::root_pem(dir)], alpn, true)?,
        })
    };
    let (h1, h2) = (Arc::new(way(&both[1..])?), Arc::new(way(&both[..1])?));
    let listener = listen()?;
    announce(&[&listener])?;
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(intercept(client, Arc::clone(&h1), Arc::clone(&h2)));
    }
}

/// Both sides of one protocol.
struct Way {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

async fn intercept(mut client: TcpStream, h1: Arc<Way>, h2: Arc<Way>) -> Result<()> {
    const BUFFER: usize = 16 * 1024;
    client.set_nodelay(true)?;
    let authority = connect_head(&mut client).await?;
    client.write_all(ESTABLISHED).await?;
    let (server, hello) =
        tokio::join!(dial(&authority), LazyConfigAcceptor::new(Acceptor::default(), client));
    let (server, hello) = (server?, hello?);
    let wants_h2 = hello.client_hello().alpn().is_some_and(|mut offer| offer.any(|p| p == b"h2"));
    let way = if wants_h2 { h2 } else { h1 };
    let name = ServerName::try_from(HOST)?;
    let mut server = TlsConnector::from(Arc::clone(&way.client)).connect(name, server).await?;
    let mut client = hello.into_stream(Arc::clone(&way.server)).await?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

async fn open(client: &mut TcpStream) -> Result<TcpStream> {
    client.set_nodelay(true)?;
    let server = dial(&connect_head(client).await?).await?;
    client.write_all(ESTABLISHED).await?;
    Ok(server)
}

async fn dial(authority: &str) -> Result<TcpStream> {
    let server = TcpStream::connect(authority).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// The authority of a CONNECT. Our client sends nothing behind it before the answer.
async fn connect_head(client: &mut TcpStream) -> Result<String> {
    // On the heap: on the stack it would be part of the task for as long as the tunnel lives.
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(client.read_buf(&mut head).await? > 0 && head.len() < 2048, "no CONNECT");
    }
    let head = std::str::from_utf8(&head)?;
    let rest = head.strip_prefix("CONNECT ").context("not CONNECT")?;
    Ok(rest.split(' ').next().unwrap_or_default().to_owned())
}
