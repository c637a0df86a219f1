//! What we answer when a server asks something of us: its host key is checked, and everything
//! else is refused.
//!
//! The protocol library's defaults accept every channel that a server opens; a client that
//! forwards nothing has no use for any, so each kind is refused here by name.

use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId};
use tokio_util::sync::DropGuard;

use super::link::Ending;
use super::trust::{HostKeyCheck, HostKeyDecision};
use crate::transport::HostKeyProblem;

/// An error of the protocol task.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandlerError {
    #[error(transparent)]
    Protocol(#[from] russh::Error),
    #[error(transparent)]
    HostKey(HostKeyProblem),
}

/// The decision that the key exchange came to, for the code that started it.
pub(super) type Decided = Arc<Mutex<Option<HostKeyDecision>>>;

pub(super) struct ClientHandler {
    check: HostKeyCheck,
    decided: Decided,
    ending: Ending,
    /// Dropped with the handler, when the protocol task ends.
    _ended: DropGuard,
}

impl ClientHandler {
    pub(super) fn new(
        check: HostKeyCheck,
        decided: Decided,
        ending: Ending,
        ended: DropGuard,
    ) -> Self {
        Self { check, decided, ending, _ended: ended }
    }
}

impl Handler for ClientHandler {
    type Error = HandlerError;

    /// Runs after the server has proved possession of the key and before the first byte of
    /// authentication. An error here ends the connection.
    async fn check_server_key(
        &mut self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<bool, HandlerError> {
        let decision = self.check.decide(presented).map_err(HandlerError::HostKey)?;
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
        Ok(true)
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<HandlerError>,
    ) -> Result<(), HandlerError> {
        self.ending.note(&reason);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    // Dropping the handle of a request refuses it ("administratively prohibited").

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, _: &str) -> bool {
        false
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _refused: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}
