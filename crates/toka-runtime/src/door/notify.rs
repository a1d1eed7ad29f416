//! The words of sd_notify(3), and the two of our own: `X_TOKA_PROGRESS=0.42` and `X_TOKA_TASK=text`.

use std::time::Duration;

use toka_core::rpc::MAX_TEXT;

/// One assignment of a datagram.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// `READY=1`: it does now what it is there for.
    Ready,
    /// `RELOADING=1`.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=`, cut at [`MAX_TEXT`] bytes.
    Status(String),
    /// `WATCHDOG=1`: it is alive.
    Watchdog,
    /// `WATCHDOG=trigger`: it is not well, and says so.
    WatchdogTrigger,
    /// `MAINPID=`.
    MainPid(i32),
    /// `EXTEND_TIMEOUT_USEC=`.
    ExtendTimeout(Duration),
    /// `BARRIER=1`: whoever sent the descriptor along waits for it to be closed.
    Barrier,
    /// `ERRNO=`: the number of an error (errno(3)) that it met.
    Errno(i32),
    /// `BUSERROR=`: the same in the words of D-Bus, cut at [`MAX_TEXT`] bytes.
    BusError(String),
    /// `EXIT_STATUS=`, from 0 to 255.
    ExitStatus(u8),
    /// Something in the datagram cannot be read.
    Unreadable(Flaw),
    /// `X_TOKA_PROGRESS=`, from 0.0 to 1.0.
    Progress(f64),
    /// `X_TOKA_TASK=`, cut at [`MAX_TEXT`] bytes.
    Task(String),
}

/// Why a datagram, or an assignment in it, cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// It is longer than the door takes, so that its end is missing; nothing of it counts.
    TooLong,
    /// A value is not UTF-8; the other assignments count.
    NotText,
}

/// Reads a datagram: one assignment a line. What is unknown or makes no sense is passed over, as sd_notify(3) has it;
/// `MONOTONIC_USEC=` too, which tells a service manager what reload it was that it asked for.
pub fn parse_notices(datagram: &[u8]) -> Vec<Notice> {
    datagram.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Notice> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&line[..at], std::str::from_utf8(&line[at + 1..]));
    let Ok(value) = value else { return Some(Notice::Unreadable(Flaw::NotText)) };
    match (key, value) {
        (b"READY", "1") => Some(Notice::Ready),
        (b"RELOADING", "1") => Some(Notice::Reloading),
        (b"STOPPING", "1") => Some(Notice::Stopping),
        (b"WATCHDOG", "1") => Some(Notice::Watchdog),
        (b"WATCHDOG", "trigger") => Some(Notice::WatchdogTrigger),
        (b"BARRIER", "1") => Some(Notice::Barrier),
        (b"STATUS", text) => Some(Notice::Status(cut(text))),
        (b"X_TOKA_TASK", text) => Some(Notice::Task(cut(text))),
        (b"BUSERROR", text) => Some(Notice::BusError(cut(text))),
        (b"ERRNO", number) => number.parse().ok().filter(|number| *number > 0).map(Notice::Errno),
        (b"EXIT_STATUS", status) => status.parse().ok().map(Notice::ExitStatus),
        (b"MAINPID", pid) => pid.parse().ok().filter(|pid| *pid > 0).map(Notice::MainPid),
        (b"EXTEND_TIMEOUT_USEC", micros) => {
            micros.parse().ok().map(Duration::from_micros).map(Notice::ExtendTimeout)
        }
        (b"X_TOKA_PROGRESS", fraction) => {
            let fraction: f64 = fraction.trim().parse().ok()?;
            (0.0..=1.0).contains(&fraction).then_some(Notice::Progress(fraction))
        }
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words() {
        for (text, expected) in [
            ("READY=1", vec![Notice::Ready]),
            ("READY=1\nSTATUS=up\n", vec![Notice::Ready, Notice::Status("up".into())]),
            ("STATUS=a=b", vec![Notice::Status("a=b".into())]),
            ("STATUS=", vec![Notice::Status(String::new())]),
            ("STOPPING=1", vec![Notice::Stopping]),
            ("RELOADING=1\nMONOTONIC_USEC=5", vec![Notice::Reloading]),
            ("WATCHDOG=1", vec![Notice::Watchdog]),
            ("WATCHDOG=trigger", vec![Notice::WatchdogTrigger]),
            ("MAINPID=17", vec![Notice::MainPid(17)]),
            ("MAINPID=-1", vec![]),
            ("EXTEND_TIMEOUT_USEC=1500000", vec![Notice::ExtendTimeout(Duration::from_millis(1500))]),
            ("BARRIER=1", vec![Notice::Barrier]),
            ("ERRNO=2", vec![Notice::Errno(2)]),
            ("ERRNO=none", vec![]),
            ("BUSERROR=org.example.Broken", vec![Notice::BusError("org.example.Broken".into())]),
            ("EXIT_STATUS=3", vec![Notice::ExitStatus(3)]),
            ("EXIT_STATUS=300", vec![]),
            ("EXTEND_TIMEOUT_USEC=soon", vec![]),
            ("FDSTORE=1\nX_SOMEBODY=1\nREADY=1", vec![Notice::Ready]),
            ("X_TOKA_PROGRESS=0.42", vec![Notice::Progress(0.42)]),
            ("X_TOKA_PROGRESS=1.01", vec![]),
            ("X_TOKA_PROGRESS=NaN", vec![]),
            ("X_TOKA_PROGRESS=inf", vec![]),
            ("X_TOKA_TASK=linking", vec![Notice::Task("linking".into())]),
            ("READY=0\nready=1\n=\n", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse_notices(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_text_spoils_its_own_line_only() {
        let expected = [Notice::Unreadable(Flaw::NotText), Notice::Ready];
        assert_eq!(parse_notices(b"STATUS=\xff\nREADY=1\n\xfe\xfd"), expected);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = format!("STATUS={}", "é".repeat(MAX_TEXT));
        assert_eq!(parse_notices(text.as_bytes()), [Notice::Status("é".repeat(MAX_TEXT / 2))]);
    }

    proptest! {
        #[test]
        fn no_datagram_panics_or_smuggles_an_impossible_value(bytes: Vec<u8>, key in "X_TOKA_PROGRESS|STATUS|MAINPID") {
            let mut datagram = key.into_bytes();
            datagram.push(b'=');
            datagram.extend(bytes);
            for notice in parse_notices(&datagram) {
                match notice {
                    Notice::Progress(fraction) => prop_assert!((0.0..=1.0).contains(&fraction)),
                    Notice::Status(text) | Notice::Task(text) => prop_assert!(text.len() <= MAX_TEXT),
                    Notice::MainPid(pid) => prop_assert!(pid > 0),
                    _ => {}
                }
            }
        }
    }
}
