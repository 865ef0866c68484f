use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;

use uuid::Uuid;

use super::*;
use crate::descriptors::testing::{alone, none_left};
use crate::handover::Offer;

fn pair() -> (EdgeChannel, DaemonChannel) {
    let (a, b) = UnixStream::pair().unwrap();
    (Channel::from_stream(a).unwrap(), Channel::from_stream(b).unwrap())
}

fn offer(id: u64) -> ToDaemon {
    let addr = "127.0.0.1:1".parse().unwrap();
    ToDaemon::Offer(Offer {
        id,
        connection: Uuid::nil(),
        host: "h".into(),
        port: 443,
        client: addr,
        local: addr,
        head: None,
        secure: false,
    })
}

/// macOS's own are of 8 KiB: a burst of connections would be offered in part only.
#[tokio::test]
async fn the_socket_has_room_for_a_burst() {
    let (a, b) = StdStream::pair().unwrap();
    // macOS's size.
    set_socket_send_buffer_size(&a, 8192).unwrap();
    for end in [&a, &b] {
        end.set_nonblocking(true).unwrap();
    }
    let sizes = |channel: &EdgeChannel| {
        let stream = channel.sender.stream();
        [socket_send_buffer_size(&*stream).unwrap(), socket_recv_buffer_size(&*stream).unwrap()]
    };
    let edge = Channel::from_stream(UnixStream::from_std(a).unwrap()).unwrap();
    let _daemon: DaemonChannel = Channel::from_stream(UnixStream::from_std(b).unwrap()).unwrap();
    assert!(sizes(&edge).iter().all(|size| *size >= SOCKET_BUFFER), "{:?}", sizes(&edge));
    let (mut sender, _receiver) = edge.split();
    sender.stream().writable().await.unwrap();
    let (near, _far) = StdStream::pair().unwrap();
    for id in 0..200 {
        sender.try_send(&offer(id), Some(near.as_fd())).unwrap();
    }
}

#[tokio::test]
async fn a_larger_socket_stays_as_large() {
    let (a, _b) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&a, SOCKET_BUFFER).unwrap();
    let before = socket_send_buffer_size(&a).unwrap();
    widen(&a);
    assert_eq!(socket_send_buffer_size(&a).unwrap(), before);
}

#[tokio::test]
async fn each_offer_gets_its_own_descriptor() {
    let (edge, mut daemon) = pair();
    let (mut tx, _rx) = edge.split();
    let mut far = Vec::new();
    for id in 0..20 {
        let (near, other) = StdStream::pair().unwrap();
        far.push(other);
        tx.send(&offer(id), Some(near.as_fd())).await.unwrap();
        tx.send(&ToDaemon::Verdict { id, granted: true }, None).await.unwrap();
    }
    for id in 0..20 {
        let (message, fd) = daemon.recv().await.unwrap().unwrap();
        assert_eq!(message, offer(id));
        let fd = fd.unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        StdStream::from(fd).write_all(&[id as u8]).unwrap();
        let mut got = [0];
        far[id as usize].read_exact(&mut got).unwrap();
        assert_eq!(u64::from(got[0]), id);
        let (message, fd) = daemon.recv().await.unwrap().unwrap();
        assert_eq!(message, ToDaemon::Verdict { id, granted: true });
        assert!(fd.is_none());
    }
}

#[tokio::test]
async fn a_full_channel_says_so_and_loses_nothing() {
    let (edge, mut daemon) = pair();
    let (mut tx, _rx) = edge.split();
    let (near, _far) = StdStream::pair().unwrap();
    let mut sent = 0;
    let full = loop {
        match tx.try_send(&offer(sent), Some(near.as_fd())) {
            Ok(()) => sent += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(full, TrySendError::Full), "{full:?}");
    tx.push(&ToDaemon::Verdict { id: 0, granted: false }).unwrap();
    for id in 0..sent {
        let (message, fd) = daemon.recv().await.unwrap().unwrap();
        assert_eq!(message, offer(id));
        assert!(fd.is_some());
        tx.try_flush().unwrap();
    }
    tx.flush().await.unwrap();
    let (message, _) = daemon.recv().await.unwrap().unwrap();
    assert_eq!(message, ToDaemon::Verdict { id: 0, granted: false });
}

#[tokio::test]
async fn the_end_is_none_and_a_missing_descriptor_an_error() {
    let (edge, mut daemon) = pair();
    let (mut tx, rx) = edge.split();
    tx.send(&offer(1), None).await.unwrap();
    assert!(matches!(daemon.recv().await, Err(ChannelError::Descriptors)));
    drop((tx, rx));
    assert!(daemon.recv().await.unwrap().is_none());
}

#[tokio::test]
async fn a_descriptor_without_room_costs_its_own_offer_only() {
    let name = "handover::channel::tests::a_descriptor_without_room_costs_its_own_offer_only";
    if !alone(name) {
        return;
    }
    let (edge, mut daemon) = pair();
    let (mut tx, _rx) = edge.split();
    let mut far = Vec::new();
    for id in 0..4 {
        let (near, other) = StdStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        far.push(other);
        tx.send(&offer(id), Some(near.as_fd())).await.unwrap();
    }
    let verdict = ToDaemon::Verdict { id: 9, granted: true };
    tx.send(&verdict, None).await.unwrap();
    for id in 0..4 {
        let short = (id == 1 || id == 2).then(none_left);
        let (message, fd) = daemon.recv().await.unwrap().unwrap();
        drop(short);
        assert_eq!(message, offer(id));
        assert_eq!(fd.is_none(), id == 1 || id == 2, "{id}");
        let got = far[id as usize].read(&mut [0]);
        match fd {
            Some(fd) => {
                StdStream::from(fd).write_all(b"x").unwrap();
                assert_eq!(far[id as usize].read(&mut [0]).unwrap(), 1);
            }
            None => assert_eq!(got.unwrap(), 0, "no copy is left"),
        }
    }
    assert_eq!(daemon.recv().await.unwrap().unwrap().0, verdict);
}

#[test]
fn one_that_is_left_out_is_told_from_a_mess() {
    assert_eq!(left_out(false, 0), LeftOut::None);
    assert_eq!(left_out(false, 1), LeftOut::None);
    assert_eq!(left_out(true, 0), LeftOut::One);
    assert_eq!(left_out(true, 1), LeftOut::Unknown);
}

#[tokio::test]
async fn what_comes_after_an_error_is_heard_without_descriptors() {
    let (edge, mut daemon) = pair();
    let (mut tx, rx) = edge.split();
    let (near, mut far) = StdStream::pair().unwrap();
    tx.send(&offer(1), None).await.unwrap();
    assert!(matches!(daemon.recv().await, Err(ChannelError::Descriptors)));
    tx.send(&offer(2), Some(near.as_fd())).await.unwrap();
    tx.stream.writable().await.unwrap();
    tx.stream.try_write(b"\x02\x00\x00\x00{}").unwrap();
    let verdict = ToDaemon::Verdict { id: 1, granted: true };
    tx.send(&verdict, None).await.unwrap();
    daemon.receiver.hang_up();
    drop(near);
    assert_eq!(daemon.receiver.rest().await, Some(offer(2)));
    assert_eq!(daemon.receiver.rest().await, Some(verdict));
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "no copy is left");
    drop((tx, rx));
    assert_eq!(daemon.receiver.rest().await, None);
}
