//! Keys and mouse, read by a thread of their own. It stops to read while another command (`attach`, `exec`) has the terminal.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratatui::crossterm::event;
use ratatui::layout::Size;
use tokio::sync::mpsc;

use super::model::Message;

/// How long a look at the terminal takes when nothing is typed: so long it takes to leave it to somebody else.
const LOOK: Duration = Duration::from_millis(50);

/// Who reads the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The thread does.
    Thread,
    /// It is to stop, and has not noticed yet.
    Leaving,
    /// Somebody else does.
    Other,
}

/// The thread that reads.
#[derive(Debug)]
pub(crate) struct Keyboard {
    reader: Mutex<Reader>,
    changed: Condvar,
}

impl Keyboard {
    /// Tells every key, until there are none or nobody wants to hear them.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn listen(messages: mpsc::Sender<Message>) -> std::io::Result<Arc<Self>> {
        let keyboard = Arc::new(Self { reader: Mutex::new(Reader::Thread), changed: Condvar::new() });
        let own = Arc::clone(&keyboard);
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            own.read(&messages);
            // Nobody reads any more; whoever waits for that need not.
            own.set(Reader::Other);
        })?;
        Ok(keyboard)
    }

    /// Comes back when the thread does not read any more.
    pub(crate) fn pause(&self) {
        let mut reader = self.lock();
        if *reader == Reader::Thread {
            *reader = Reader::Leaving;
        }
        while *reader != Reader::Other {
            reader = self.changed.wait(reader).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the thread read again.
    pub(crate) fn go_on(&self) {
        self.set(Reader::Thread);
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, reader: Reader) {
        *self.lock() = reader;
        self.changed.notify_all();
    }

    /// Waits until the terminal is ours.
    fn await_turn(&self) {
        let mut reader = self.lock();
        while *reader != Reader::Thread {
            // Also while it waits: the terminal may have been ours, and have been wanted again, before this thread has noticed.
            if *reader == Reader::Leaving {
                *reader = Reader::Other;
                self.changed.notify_all();
            }
            reader = self.changed.wait(reader).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, messages: &mpsc::Sender<Message>) {
        loop {
            self.await_turn();
            let message = match event::poll(LOOK).and_then(|is_there| is_there.then(event::read).transpose())
            {
                Ok(None) if messages.is_closed() => return,
                Ok(None) => continue,
                Ok(Some(event::Event::Key(key))) => Message::Key(key),
                Ok(Some(event::Event::Mouse(mouse))) => Message::Mouse(mouse),
                Ok(Some(event::Event::Resize(width, height))) => Message::Resized(Size { width, height }),
                Ok(Some(_)) => continue,
                Err(_) => Message::KeyboardGone,
            };
            let is_last = matches!(message, Message::KeyboardGone);
            if messages.blocking_send(message).is_err() || is_last {
                return;
            }
        }
    }
}
