//! A token that was refused and is renewed where it is kept: whoever renews it need not tell anybody.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::secret::{Secret, SecretSource};
use crate::config::{Publisher, Server, load};

/// Interval at which a place is looked at whose token was refused.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a token is kept that a server may refuse, and what was found there last.
pub(super) struct Renewal {
    source: SecretSource,
    known: Secret,
    /// A look under way. It may hang with its disk or mount, and there is never a second one.
    looking: Option<JoinHandle<Result<Secret, String>>>,
}

impl Renewal {
    /// That of `config`, if it names a place. Platforms look after theirs themselves.
    pub(super) fn of(config: &Publisher) -> Option<Self> {
        let Server::Whip {
            bearer: Some(bearer),
            ..
        } = &config.server
        else {
            return None;
        };
        bearer.source.clone().map(|source| Self {
            source,
            known: bearer.token.clone(),
            looking: None,
        })
    }
}

/// Waits until another token is found there; for ever if there is no place to look at. Cancel-safe.
pub(super) async fn renewed(renewal: &mut Option<Renewal>) {
    let Some(renewal) = renewal else {
        return std::future::pending().await;
    };
    loop {
        if renewal.looking.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let source = &renewal.source;
        let looking = renewal.looking.get_or_insert_with(|| {
            let source = source.clone();
            tokio::task::spawn_blocking(move || load::reread(&source))
        });
        let looked = looking.await;
        renewal.looking = None;
        // A place that cannot be read just now is said when the token is needed.
        if let Ok(Ok(found)) = looked
            && found != renewal.known
        {
            renewal.known = found;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_that_changes_is_noticed_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "old").unwrap();
        let mut renewal = Some(Renewal {
            source: SecretSource::File(file.path().to_owned()),
            known: Secret::new("old"),
            looking: None,
        });
        let minute = Duration::from_secs(60);
        let early = tokio::time::timeout(minute, renewed(&mut renewal)).await;
        assert!(early.is_err(), "nothing changed");
        std::fs::write(file.path(), "new\n").unwrap();
        let soon = tokio::time::timeout(LOOK_EVERY * 2, renewed(&mut renewal)).await;
        assert!(soon.is_ok());
        let again = tokio::time::timeout(minute, renewed(&mut renewal)).await;
        assert!(again.is_err(), "it is known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_hangs_costs_one_thread_and_nobody_elses_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "new").unwrap();
        let (let_go, hangs) = std::sync::mpsc::channel::<()>();
        let hung = tokio::task::spawn_blocking(move || {
            let gone = hangs.recv().is_err();
            Err(format!("it hung: {gone}"))
        });
        let mut renewal = Some(Renewal {
            source: SecretSource::File(file.path().to_owned()),
            known: Secret::new("old"),
            looking: Some(hung),
        });
        // Dropped and begun again, as the publisher does it.
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = renewed(&mut renewal) => panic!("a second look was begun"),
                () = tokio::time::advance(LOOK_EVERY) => {}
            }
        }
        drop(let_go);
        renewed(&mut renewal).await;
        assert_eq!(renewal.unwrap().known.expose(), "new");
    }
}
