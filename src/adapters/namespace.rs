//! Sockets of another network namespace: the way to a server that has no network.
//!
//! A container without a network has a loopback of its own, where nobody outside can connect. A socket belongs to the namespace
//! it was made in, wherever it is used. So a small process of this program, started inside the namespace by `nsenter`, makes
//! sockets and hands them over (`SCM_RIGHTS`, unix(7)); they are connected and used here like any other. Nothing stands in the
//! way of what is sent, and the process keeps the namespace while it lives: what has the container's process number later
//! is never reached.
//!
//! It also proves, before it hands over the first one, that nothing but the loopback is there.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::ports::Connector;

/// What asks for a socket, and what comes with one.
const ONE: u8 = b'1';
/// How long the process may take to be inside, and to hand over a socket.
const WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of what is said of a namespace that has a network.
const MAX_WORDS: usize = 1 << 10;

/// What the process says first where nothing but the loopback is in reach.
const ALONE: &str = "alone";

/// A network namespace in which somebody listens.
pub(super) struct Namespace {
    address: SocketAddr,
    /// One asks at a time, so that a socket comes to whom it was made for.
    maker: Mutex<UnixStream>,
    /// Ends when its socket closes, and with this.
    process: Child,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Namespace {
    /// The network namespace of a process, and the address in it at which its server is to listen. `program` is this executable.
    ///
    /// # Errors
    /// This program may not enter it, there is no `nsenter`, or something besides the loopback can be reached from it.
    pub(super) async fn of_process(pid: u32, program: &Path, address: SocketAddr) -> io::Result<Self> {
        let (own, theirs) = StdUnixStream::pair()?;
        own.set_nonblocking(true)?;
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg("--")
            .arg(program)
            .arg("sockets")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("start `nsenter` (util-linux): {error}"))
            })?;
        let mut namespace = Self { address, maker: Mutex::new(UnixStream::from_std(own)?), process };
        let words = tokio::time::timeout(WITHIN, namespace.first_words()).await.map_err(|_| late())??;
        if words == ALONE { Ok(namespace) } else { Err(io::Error::other(words)) }
    }

    /// What the process says of the namespace; what `nsenter` says where it did not come so far.
    async fn first_words(&mut self) -> io::Result<String> {
        let maker = self.maker.get_mut();
        let mut words = Vec::new();
        while words.last() != Some(&b'\n') && words.len() < MAX_WORDS {
            match maker.read_u8().await {
                Ok(byte) => words.push(byte),
                Err(_) => break,
            }
        }
        if words.is_empty()
            && let Some(stderr) = self.process.stderr.take()
        {
            stderr.take(MAX_WORDS as u64).read_to_end(&mut words).await?;
        }
        Ok(String::from_utf8_lossy(&words).trim().to_owned())
    }

    async fn socket(&self) -> io::Result<TcpSocket> {
        let mut maker = self.maker.lock().await;
        maker.write_all(&[ONE]).await?;
        let socket = maker.async_io(Interest::READABLE, || receive(&*maker)).await?;
        Ok(TcpSocket::from_std_stream(StdTcpStream::from(socket)))
    }
}

impl Connector for Namespace {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn connect(&self) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let socket = tokio::time::timeout(WITHIN, self.socket()).await.map_err(|_| late())??;
            socket.connect(self.address).await
        }
        .boxed()
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no socket of the container's network within {WITHIN:?}"))
}

/// Takes the socket that was handed over.
fn receive(from: impl AsFd) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let ended =
        || io::Error::new(io::ErrorKind::BrokenPipe, "the process in the container's network has ended");
    if received.bytes == 0 {
        return Err(ended());
    }
    sockets.flatten().next().ok_or_else(ended)
}

/// The process inside: says what can be reached, and makes a socket for each byte that comes from stdin, which is a unix socket.
///
/// # Errors
/// Stdin is no such socket. It ends without one when the other side is closed.
pub(crate) fn make_sockets() -> io::Result<()> {
    let mut asked = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let said = reachable().unwrap_or_else(|| ALONE.to_owned());
    writeln!(asked, "{said}")?;
    let mut byte = [0; 1];
    while asked.read(&mut byte)? == 1 {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
        sendmsg(&asked, &[IoSlice::new(&[ONE])], &mut ancillary, SendFlags::empty())?;
    }
    Ok(())
}

/// What can be reached from here besides the loopback, in words.
///
/// Connecting a datagram socket sends nothing, and fails where there is no route: addresses of no host (RFC 5737, RFC 3849), and the
/// one at which clouds tell machines their secrets.
fn reachable() -> Option<String> {
    let places: [SocketAddr; 3] = [
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        (Ipv4Addr::new(169, 254, 169, 254), 80).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    ];
    let has_route = |place: &SocketAddr| {
        let own: SocketAddr = if place.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        std::net::UdpSocket::bind(own).and_then(|socket| socket.connect(place)).is_ok()
    };
    let place = places.iter().find(|place| has_route(place))?;
    Some(format!("the container has a network: there is a route to {}", place.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_handed_over_whole() {
        let (own, theirs) = StdUnixStream::pair().expect("a pair");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("listens");
        let socket = StdTcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)));
        sendmsg(&theirs, &[IoSlice::new(&[ONE])], &mut ancillary, SendFlags::empty()).expect("sends");
        let mut received = StdTcpStream::from(receive(&own).expect("receives"));
        let (mut accepted, _) = listener.accept().expect("accepts");
        received.write_all(b"x").expect("writes");
        let mut byte = [0; 1];
        accepted.read_exact(&mut byte).expect("reads");
        assert_eq!(&byte, b"x");
        // A byte without a socket, and an end, are none.
        (&theirs).write_all(&[ONE]).expect("writes");
        assert_eq!(receive(&own).expect_err("no socket").kind(), io::ErrorKind::BrokenPipe);
        drop(theirs);
        assert_eq!(receive(&own).expect_err("an end").kind(), io::ErrorKind::BrokenPipe);
    }
}
