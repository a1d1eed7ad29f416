//! The post at which callers are awaited: the control socket stays where the next one looks for it. Somebody who tidies up
//! may remove it, or its folder, while we run; without it nobody could ever stop us, or see what runs, and a second daemon
//! would begin beside us.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use toka_api::socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// After a socket could not be made anew, the next try is so much later.
const RETRY: Duration = Duration::from_secs(1);
/// When a new listener is watched. To end a watch takes the kernel some milliseconds, in which we stand still (inotify(7) says nothing of
/// it; Linux waits for a grace period of its own), and most runs of a single command are over before that.
const WATCHED_AFTER: Duration = Duration::from_millis(200);
/// How often it is made anew at once: somebody who removes the whole folder may come after it once more.
const TRIES: u32 = 5;

/// What is found at the socket's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What we made.
    Ours,
    /// Nothing.
    Empty,
    /// Something that is not ours, and stays.
    Taken,
}

/// A listener that is made anew when its path is gone.
pub(super) struct RebindingListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket.
    identity: Option<(u64, u64)>,
    /// None where the kernel has no more of them: then nothing is noticed.
    watch: Option<AsyncFd<Watch>>,
    /// When to look, and begin to watch if that is not done.
    due: Option<Instant>,
    is_watched: bool,
    /// Whether the run is over: then the listener leaves its path empty.
    is_over: Box<dyn Fn() -> bool + Send>,
}

/// What wakes us about files (inotify(7)).
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

enum Wake {
    Caller(io::Result<UnixStream>),
    Disturbed,
}

impl RebindingListener {
    /// Looks after `listener`, which listens at `path`, until `is_over`. Must be called within a Tokio runtime.
    pub(super) fn new(
        listener: UnixListener,
        path: &Path,
        is_over: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let due = Some(Instant::now() + WATCHED_AFTER);
        let (path, identity) = (path.to_owned(), identity(path));
        Self { listener, path, identity, watch: None, due, is_watched: false, is_over: Box::new(is_over) }
    }

    /// The next caller.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            let wake = tokio::select! {
                accepted = self.listener.accept() => Wake::Caller(accepted.map(|(stream, _)| stream)),
                () = disturbed(self.watch.as_ref(), self.due) => Wake::Disturbed,
            };
            match wake {
                Wake::Caller(accepted) => return accepted,
                Wake::Disturbed => self.mend(),
            }
        }
    }

    /// Makes the socket anew if it is gone.
    fn mend(&mut self) {
        self.due = None;
        if !self.is_watched {
            self.watch();
        }
        for _ in 0..TRIES {
            match self.look() {
                Place::Ours => return,
                Place::Taken => {
                    let socket = self.path.display();
                    tracing::error!(%socket, "the control socket was replaced: nobody finds this daemon there");
                    return;
                }
                Place::Empty if (self.is_over)() => return,
                Place::Empty => self.make_anew(),
            }
        }
    }

    fn make_anew(&mut self) {
        let socket = self.path.display();
        match socket::bind(&self.path) {
            Ok(listener) => {
                tracing::warn!(%socket, "somebody removed the control socket: it is made anew");
                self.listener = listener;
                self.identity = identity(&self.path);
                // Its folder may be another one.
                self.watch();
            }
            Err(error) => {
                if self.due.is_none() {
                    tracing::error!(%socket, %error, "somebody removed the control socket, and it cannot be made anew");
                }
                self.due = Some(Instant::now() + RETRY);
            }
        }
    }

    fn look(&self) -> Place {
        match identity(&self.path) {
            None => Place::Empty,
            found if found == self.identity => Place::Ours,
            Some(_) => Place::Taken,
        }
    }

    fn watch(&mut self) {
        self.is_watched = true;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        match watch(folder) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "nobody would notice if the control socket went");
                self.watch = None;
            }
        }
    }
}

/// Device and inode of what is at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn watch(folder: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let flags = AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(folder, flags)?;
    #[expect(
        deprecated,
        reason = "the other one is unsafe; a watch owns its descriptor, and always names the same"
    )]
    AsyncFd::with_interest(Watch(inotify), Interest::READABLE)
}

/// Returns when something has gone from the folder or come into it, or the next look is due.
async fn disturbed(watch: Option<&AsyncFd<Watch>>, due: Option<Instant>) {
    let due = async {
        match due {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = due => {}
        () = noticed(watch) => {}
    }
}

async fn noticed(watch: Option<&AsyncFd<Watch>>) {
    let Some(watch) = watch else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = watch.readable().await else { return std::future::pending().await };
        match watch.get_ref().0.read_events() {
            // Which one does not matter: the path is looked at.
            Ok(_) => return,
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(_) => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn reachable(path: &Path) {
        let connected = async {
            while socket::connect(path).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, connected).await.expect("it is made anew");
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_made_anew_and_so_is_its_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("run/deep/daemon.sock");
        let mut post = RebindingListener::new(socket::bind(&path).expect("a socket"), &path, || false);
        let (calls, mut called) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(stream) = post.accept().await {
                let _ = calls.send(stream);
            }
        });
        for _ in 0..3 {
            fs::remove_file(&path).expect("it is there");
            reachable(&path).await;
            called.recv().await.expect("a caller");
        }
        // As `rm -r` does it: it may find the folder in use again.
        while fs::remove_dir_all(root.path().join("run")).is_err() {}
        reachable(&path).await;
        called.recv().await.expect("a caller");
        task.abort();
    }

    #[tokio::test]
    async fn one_that_may_go_is_not_made_anew() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("control.sock");
        let mut post = RebindingListener::new(socket::bind(&path).expect("a socket"), &path, || true);
        post.mend();
        assert_eq!(post.look(), Place::Ours);
        fs::remove_file(&path).expect("it is there");
        post.mend();
        assert_eq!(post.look(), Place::Empty);
        assert!(post.due.is_none(), "it is not looked at again");
    }

    #[tokio::test]
    async fn what_is_in_its_place_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("daemon.sock");
        let mut post = RebindingListener::new(socket::bind(&path).expect("a socket"), &path, || false);
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "precious").expect("room");
        post.mend();
        assert_eq!(
            (post.look(), fs::read_to_string(&path).expect("a file")),
            (Place::Taken, "precious".into())
        );
        fs::remove_file(&path).expect("it is there");
        post.mend();
        assert_eq!(post.look(), Place::Ours);
    }
}
