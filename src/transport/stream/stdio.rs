//! Standard input and output as a stream. Pipes and sockets are read without a thread, so that a process can end while
//! a read waits; terminals and files go through the runtime's own wrappers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixStream, unix::pipe};

use super::halves::Halves;

pub(super) fn open() -> io::Result<Halves> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(Halves { reader: reader(input)?, writer: writer(output)?, full_close: false })
}

fn reader(fd: OwnedFd) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match kind(&fd)? {
        Kind::Pipe => Box::new(pipe::Receiver::from_owned_fd(fd)?),
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Other => Box::new(tokio::io::stdin()),
    })
}

fn writer(fd: OwnedFd) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    Ok(match kind(&fd)? {
        Kind::Pipe => Box::new(pipe::Sender::from_owned_fd(fd)?),
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Other => Box::new(tokio::io::stdout()),
    })
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

enum Kind {
    Pipe,
    Socket,
    Other,
}

fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    use std::os::unix::fs::FileTypeExt;
    let file_type = std::fs::File::from(fd.try_clone()?).metadata()?.file_type();
    Ok(if file_type.is_fifo() {
        Kind::Pipe
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        Kind::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What is written at one end comes out of the other, then the end.
    async fn carries(input: OwnedFd, output: OwnedFd) {
        let (mut reader, mut writer) = (reader(input).expect("reader"), writer(output).expect("writer"));
        let bytes = vec![7u8; 300_000];
        let write = async {
            writer.write_all(&bytes).await.expect("write");
            writer.shutdown().await.expect("shutdown");
            drop(writer);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
        assert!(read.is_ok() && received == bytes);
    }

    #[tokio::test]
    async fn pipes_and_sockets_do_not_block() {
        let (input, output) = std::io::pipe().expect("pipe");
        carries(input.into(), output.into()).await;
        let (input, output) = StdUnixStream::pair().expect("pair");
        carries(input.into(), output.into()).await;
    }
}
