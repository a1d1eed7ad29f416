//! Tells one who looks on what a session says: first what is on record, then what happens, each line once.

use toka_core::transcript::Entry;
use toka_core::{SessionKey, SessionNews};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::transcript::SessionFolder;

/// News that wait for who reads them.
const WAITING: usize = 64;

/// What is told to whom.
struct Feed {
    folder: SessionFolder,
    session: Option<SessionKey>,
    /// The last line that was told.
    last: u64,
    out: mpsc::Sender<SessionNews>,
}

/// Whoever reads is gone.
struct Gone;

/// Begins to tell; of the session that is under way, what comes after the line `after`. It ends when nobody reads, or the agent is no more.
pub(crate) fn feed(
    folder: SessionFolder,
    (news, now): (broadcast::Receiver<SessionNews>, Option<(SessionKey, SessionNews)>),
    after: u64,
) -> mpsc::Receiver<SessionNews> {
    let (out, read) = mpsc::channel(WAITING);
    let (session, now) = now.unzip();
    let feed = Feed { folder, session, last: after, out };
    tokio::spawn(async move {
        // Whoever reads is gone: that is its end.
        let _ = feed.run(news, now).await;
    });
    read
}

impl Feed {
    async fn run(
        mut self,
        mut news: broadcast::Receiver<SessionNews>,
        now: Option<SessionNews>,
    ) -> Result<(), Gone> {
        if let Some(session) = self.session.clone() {
            self.send(SessionNews::Session { session }).await?;
            self.recall().await?;
        }
        self.send(SessionNews::Live).await?;
        if let Some(now) = now {
            self.send(now).await?;
        }
        loop {
            let told = tokio::select! {
                told = news.recv() => told,
                () = self.out.closed() => return Ok(()),
            };
            match told {
                Ok(SessionNews::Entry { entry }) => self.entry(*entry).await?,
                // It may have begun with lines that were not there when they were looked for.
                Ok(SessionNews::Session { session }) if self.session.as_ref() == Some(&session) => {
                    self.recall().await?;
                }
                Ok(SessionNews::Session { session }) => {
                    (self.session, self.last) = (Some(session.clone()), 0);
                    self.send(SessionNews::Session { session }).await?;
                    self.recall().await?;
                }
                Ok(news) => self.send(news).await?,
                Err(RecvError::Lagged(count)) => {
                    self.send(SessionNews::Missed { count }).await?;
                    self.recall().await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Tells the lines that are on record and were not told.
    async fn recall(&mut self) -> Result<(), Gone> {
        let Some(session) = self.session.clone() else { return Ok(()) };
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || folder.read(&session)).await;
        // One that cannot be read now is damaged, or was removed: what happens is told all the same.
        for entry in read.ok().and_then(Result::ok).unwrap_or_default() {
            self.entry(entry).await?;
        }
        Ok(())
    }

    async fn entry(&mut self, entry: Entry) -> Result<(), Gone> {
        if entry.id <= self.last {
            return Ok(());
        }
        self.last = entry.id;
        self.send(SessionNews::Entry { entry: Box::new(entry) }).await
    }

    async fn send(&self, news: SessionNews) -> Result<(), Gone> {
        self.out.send(news).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use toka_core::transcript::EntryKind;

    use super::*;
    use crate::Transcript;

    fn notice(text: &str) -> EntryKind {
        EntryKind::Notice { text: text.to_owned() }
    }

    async fn texts(read: &mut mpsc::Receiver<SessionNews>, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(match read.recv().await.expect("news") {
                SessionNews::Entry { entry } => match entry.kind {
                    EntryKind::Notice { text } => text,
                    other => format!("{other:?}"),
                },
                SessionNews::Session { session } => session.to_string(),
                SessionNews::Live => "live".to_owned(),
                other => format!("{other:?}"),
            });
        }
        texts
    }

    #[tokio::test]
    async fn each_line_is_told_once_also_to_one_who_is_slow() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = SessionFolder::new(place.path().to_owned());
        let key: SessionKey = "agent:a:chat:1".parse().expect("a key");
        let mut transcript = Transcript::create(&folder.path(&key)).expect("new");
        let mut add = |text| transcript.append(vec![notice(text)], false).expect("written").remove(0);
        add("one");
        let two = add("two");
        let (tell, news) = broadcast::channel(2);
        let mut read = feed(folder, (news, Some((key.clone(), SessionNews::Listens))), 1);
        assert_eq!(texts(&mut read, 4).await, ["agent:a:chat:1", "two", "live", "Listens"]);
        // Told before the file was read, and after.
        tell.send(SessionNews::Entry { entry: Box::new(two) }).expect("heard");
        for text in ["three", "four", "five"] {
            let entry = Box::new(add(text));
            tell.send(SessionNews::Entry { entry }).expect("heard");
        }
        let told = texts(&mut read, 4).await;
        assert_eq!(
            (told[0].as_str(), &told[1..]),
            ("Missed { count: 2 }", &["three", "four", "five"].map(str::to_owned)[..])
        );
        drop(tell);
        assert_eq!(read.recv().await, None);
    }
}
