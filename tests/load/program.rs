//! A server that the load starts beside the node: the native control, or a peer.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;

use switchboard_tests::patience::PATIENCE;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A process of its own, as the node is. Dropping it ends the process.
pub(crate) struct Program {
    pub address: SocketAddr,
    pid: u32,
    _child: Child,
    /// The program ends when this pipe closes, however the load ends.
    _stdin: Option<ChildStdin>,
}

impl Program {
    /// Starts a program, which prints its address as its first line.
    pub(crate) async fn start(command: &mut Command) -> io::Result<Self> {
        let text = format!("{:?}", command.as_std());
        let failed = |what: String| io::Error::other(format!("{text}: {what}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("it does not start: {error}")))?;
        let pid = child.id().ok_or_else(|| failed("it ended at once".into()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| failed("it has no output".into()))?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        tokio::time::timeout(PATIENCE, stdout.read_line(&mut line))
            .await
            .map_err(|_| failed(format!("it printed no address within {PATIENCE:?}")))??;
        let address =
            line.trim().parse().map_err(|_| failed(format!("its first line is no address: {line:?}")))?;
        Ok(Self { address, pid, _child: child, _stdin: stdin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}
