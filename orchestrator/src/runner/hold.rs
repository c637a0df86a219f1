//! A container that ends with a runner's session: the dead-man's switch of a foreground run.

use std::time::Duration;

use runner_protocol::{Held, HoldEvent, Reply, Round, ToRunner, Unit};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::session::UnitEvent;
use super::{Error, Session};

/// For the runner to ask the engine about the container.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a hold ended.
#[derive(Debug)]
pub enum HoldEnd {
    /// It was released: the container may live on.
    Released,
    /// The container's time was over, and the runner stopped it.
    Expired,
    /// The session failed. The runner has stopped the container, or will within its lease.
    Lost(Error),
}

/// A hold on a container. Dropping it ends the session, and the runner then stops the container.
pub struct Hold {
    task: JoinSet<HoldEnd>,
    release: Option<oneshot::Sender<()>>,
}

impl Hold {
    /// Has the runner keep the container, through a session that does nothing else from now on.
    ///
    /// # Errors
    /// The engine does not know the container, or the session failed.
    ///
    /// # Cancel safety
    /// Dropping the future ends the session; the container is then stopped if it was held already.
    pub async fn take(mut session: Box<Session>, held: Held) -> Result<Self, Error> {
        let holding = async {
            let id = session.open(Unit::Hold(held)).await?;
            match session.incoming().await?.event {
                UnitEvent::Reply(Reply::Hold(HoldEvent::Holding {})) => Ok(id),
                UnitEvent::Finished(Err(error)) => Err(error),
                _ => Err(Error::Unexpected { expected: "a hold", found: "something else" }),
            }
        };
        let seconds = TAKE_TIMEOUT.as_secs();
        let id = tokio::time::timeout(TAKE_TIMEOUT, holding)
            .await
            .map_err(|_| Error::TimedOut { operation: "hold a container", seconds })??;
        let (release, mut released) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut end = HoldEnd::Released;
            let mut asked = false;
            loop {
                let wait = async {
                    // A dropped sender is no release.
                    if asked || (&mut released).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                // Cancel safety: the session loses no message, the release is heard once.
                let said = tokio::select! {
                    incoming = session.incoming() => incoming.map(|incoming| Some(incoming.event)),
                    () = wait => {
                        asked = true;
                        let release = ToRunner::Continue { id, round: Round::Release {} };
                        session.say([release]).await.map(|_| None)
                    }
                };
                match said {
                    Ok(Some(UnitEvent::Finished(Ok(())))) => break,
                    Ok(Some(UnitEvent::Reply(Reply::Hold(HoldEvent::Expired {})))) => {
                        end = HoldEnd::Expired;
                    }
                    Ok(Some(UnitEvent::Finished(Err(error)))) | Err(error) => {
                        return HoldEnd::Lost(error);
                    }
                    Ok(_) => {}
                }
            }
            session.close().await;
            end
        });
        Ok(Self { task, release: Some(release) })
    }

    /// Waits until the hold ends by itself.
    ///
    /// # Cancel safety
    /// Safe. After it has answered once it does not answer again.
    pub async fn ended(&mut self) -> HoldEnd {
        match self.task.join_next().await {
            Some(Ok(end)) => end,
            // The task panicked, which the runtime has reported, or has answered before.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Lets the container live on, or be gone, without the session.
    pub async fn release(mut self) -> HoldEnd {
        if let Some(release) = self.release.take() {
            // The task may have ended meanwhile.
            let _ = release.send(());
        }
        match self.task.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(_)) | None => HoldEnd::Released,
        }
    }
}
